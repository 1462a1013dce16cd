"""Checks news fragments: their names, and that each reads as one entry.

``python -m tools.check_fragments FOLDER`` prints each fault and ends with 1 if
there is any. towncrier itself leaves out a file whose name it doesn't
understand without a word, so that its news would be lost.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: ``+words.kind.md`` (no issue) or ``12.kind.md``; the kinds are towncrier's own.
NAME = re.compile(
    r"(\+[a-z0-9-]+|[0-9]+)\.(feature|bugfix|doc|removal|misc)(\.[0-9]+)?\.md", re.ASCII
)

#: Longest line of a fragment, as in the code.
MAX_LINE = 100


def faults(path: Path) -> list[str]:
    """Returns what is wrong with one fragment, each in a few words."""
    found = []
    if not NAME.fullmatch(path.name):
        found.append("the name is not '+words.kind.md' or 'number.kind.md' with a known kind")
    text = path.read_text(encoding="utf-8").strip()
    if not text.endswith("."):
        found.append("the text is not a sentence that ends with a full stop")
    if text.startswith(("-", "*", "#")):
        found.append("the text begins with a mark; towncrier makes the list")
    if any(len(line) > MAX_LINE for line in text.splitlines()):
        found.append(f"a line is longer than {MAX_LINE} characters")
    return found


def main(folder: str) -> int:
    """Checks every visible file in ``folder``; returns the exit code."""
    bad = 0
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith("."):
            continue
        for fault in faults(path):
            print(f"{path}: {fault}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
