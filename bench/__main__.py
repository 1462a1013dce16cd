"""``python -m bench``: runs the workloads and prints one table."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import reference, takeover
from bench.figures import Limit, Line
from bench.job_runs import Values
from bench.machine import creation, description
from bench.process import Daemon, DidNotRun
from bench.report import as_json, table
from bench.site import Limits, Site
from bench.workloads import WORKLOADS, Workload

#: Where a synced write reaches a disk; /tmp is often memory.
DEFAULT_FOLDER = "/var/tmp"

#: How far a limit may move while a workload runs before its ratio is in doubt.
STEADY = 1.4

#: All that ``--only`` takes.
NAMES = (*(workload.name for workload in WORKLOADS), takeover.NAME, reference.NAME)

#: From how many seconds for a file on its creation tells in the figures.
SLOW_CREATION = 0.0002


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the daemon beside the machine's own limits, in one table. "
        "Ends with 1 if a figure is not as wanted.",
        epilog="Workloads: " + ", ".join(NAMES),
    )
    parser.add_argument("--quick", action="store_true", help="shorter, and less exact")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=NAMES,
        help="this workload only (may be given again)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--peer",
        type=Path,
        metavar="SOCKET",
        help="measure another daemon's LUXI socket as well (it gets jobs that do nothing)",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(DEFAULT_FOLDER),
        help="where clusters are made, on the file system to be measured (%(default)s)",
    )
    return parser.parse_args(argv)


class Run:
    """All workloads of one command line, in a folder that is removed afterwards.

    Not before: deleting the thousands of files of one workload would slow the
    next (see :func:`bench.machine.creation`).
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._quick: bool = options.quick
        self._peer: Path | None = options.peer
        self.limits = Limits(folder, options.quick)
        self.remarks: list[str] = []

    def workload(self, workload: Workload) -> list[Line]:
        """Runs one workload: limit, daemon, limit, peer."""
        print(f"{workload.name}: {workload.about}", file=sys.stderr, flush=True)
        limits = self._limit(workload)
        own = self._own(workload)
        limits += self._limit(workload)
        if limits and max(limits) > STEADY * min(limits):
            self._remark(
                workload,
                f"the machine's limit was {limits[0]:,.2f} before and {limits[-1]:,.2f} after: "
                "something else was at work, measure again",
            )
        peer: Values = {}
        if self._peer is not None and workload.peer:
            peer = self._on(workload, Site(self._peer, None, self._quick), "peer: ")
        # The better of the two: what disturbed the other must not flatter the daemon.
        best = min if workload.limit is Limit.START else max
        machine = best(limits) if limits else None
        return [
            Line(
                workload=workload.name,
                figure=figure,
                measured=own.get(figure.key),
                machine=machine if figure.limit else None,
                limit=workload.limit.value if workload.limit and figure.limit else None,
                peer=peer.get(figure.key),
            )
            for figure in workload.figures
        ]

    def _limit(self, workload: Workload) -> list[float]:
        if workload.limit is None:
            return []
        try:
            return [self.limits.measure(workload.limit)]
        except DidNotRun as error:
            self._remark(workload, f"{workload.limit.value}: {error}")
            return []

    def _own(self, workload: Workload) -> Values:
        folder = self._folder / workload.name
        folder.mkdir()
        daemon = Daemon(folder, workload.options, workload.prepare)
        try:
            with daemon:
                daemon.start()
                values = self._on(workload, Site(daemon.path, daemon, self._quick))
                daemon.stop()
        except DidNotRun as error:
            self._remark(workload, str(error))
            return {}
        return values

    def _on(self, workload: Workload, site: Site, of: str = "") -> Values:
        try:
            return workload.run(site)
        except DidNotRun as error:
            self._remark(workload, f"{of}{error}")
            return {}
        finally:
            for remark in dict.fromkeys(site.remarks):
                self._remark(workload, of + remark)

    def _remark(self, workload: Workload, text: str) -> None:
        self.remarks.append(f"{workload.name}: {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit code."""
    options = arguments(argv)
    chosen = [each for each in WORKLOADS if not options.only or each.name in options.only]
    lines: list[tuple[str, Line]] = []
    with tempfile.TemporaryDirectory(prefix="gnt-bench-", dir=options.dir) as name:
        folder = Path(name)
        machine = description(folder)
        run = Run(folder, options)
        if (seconds := creation(folder)) > SLOW_CREATION:
            run.remarks.append(
                f"creating a file took {seconds * 1e3:.2f} ms before the run: on ext4 many files "
                "were deleted here of late; measure again in six minutes"
            )
        for workload in chosen:
            lines += [(workload.about, line) for line in run.workload(workload)]
        for real in (takeover, reference):
            if not options.only or real.NAME in options.only:
                print(f"{real.NAME}: {real.ABOUT}", file=sys.stderr, flush=True)
                lines += real.measure(options.dir, options.quick, run.remarks)
    print(table(lines, any(line.peer is not None for _, line in lines)))
    print("\nOn " + ", ".join(f"{key} {value}" for key, value in machine.items()) + ".")
    for limit in dict.fromkeys(line.limit for _, line in lines if line.limit):
        print(f"Limit: {limit}.")
    if run.limits.ceiling:
        print(
            f"The load generator could send {run.limits.ceiling:,.0f} requests/s if it never had "
            f"to wait; against the line server it was busy {run.limits.busy:.0%} of the time."
        )
    for remark in run.remarks:
        print(f"Note: {remark}")
    if options.json:
        data = msgspec.json.encode(as_json(lines, machine, run.remarks))
        options.json.write_bytes(msgspec.json.format(data) + b"\n")
    failed = any(line.reached is False or line.measured is None for _, line in lines)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
