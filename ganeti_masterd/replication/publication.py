"""What was published, and states that wait for the ones that follow them at once.

A job that begins as soon as it is submitted changes its state twice within a moment:
``running`` is on its way to the disk when ``queued`` is published. Candidates are sent
the later state only, which is one call less to each. Whoever waits for the earlier one
waits for that: the job begins no later, as it waits for the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from ganeti_masterd.replication.states import JobFile


class Publication:
    """What one commit published.

    ``number``: that of its last state; while ``held_back`` of its states wait for ones
    that follow, it is not known yet. ``ssconf``: the simple configuration changed with it.
    ``earlier``: publications of which a state goes with this one. ``done``: whoever waits
    for it while some are held back.
    """

    __slots__ = ("done", "earlier", "held_back", "number", "ssconf")

    def __init__(self, *, ssconf: bool = False) -> None:
        self.number = 0
        self.ssconf = ssconf
        self.held_back = 0
        self.earlier: list[Publication] = []
        self.done: Deferred[None] | None = None


class HeldBack:
    """States of jobs, at most one of each, and the publications that they are of."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[JobFile, list[Publication]]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def hold(self, state: JobFile, publication: Publication) -> None:
        """Keeps a state, in the place of an older one of its job."""
        _, publications = self._states.get(state.job_id, (None, []))
        publication.held_back += 1
        self._states[state.job_id] = (state, [*publications, publication])

    def overtake(self, job_id: int, by: Publication) -> None:
        """A later state of a job goes now, if one is held back: the older one is not needed."""
        held = self._states.pop(job_id, None)
        if held is not None:
            for publication in held[1]:
                publication.number = by.number
                publication.held_back -= 1
                by.earlier.append(publication)

    def release(self) -> Iterator[tuple[JobFile, list[Publication]]]:
        """Gives back everything, for what follows does not come."""
        states, self._states = self._states, {}
        yield from states.values()
