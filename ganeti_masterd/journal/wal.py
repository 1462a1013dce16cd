"""SQLite's write-ahead log, read further than SQLite does: for a log that is damaged.

Its format is one of SQLite's documented ones: a header of 32 bytes, then frames, each a header
of 24 bytes and one page. SQLite ends at the first frame whose checksum is wrong, as the frames
behind it may be older ones. Here all frames with the log's salt are taken; whoever uses the
result must tell by other means what of it is good.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")

#: The sizes that a page can have.
PAGE_SIZES = [512 << power for power in range(8)]

#: That of the journal: SQLite's own choice.
_USUAL_PAGE = 4096

#: Pages beyond this many are taken for rubbish.
_MOST_PAGES = 1 << 20


def pages_of_all_frames(log: str) -> dict[int, bytes]:
    """Returns the last page of each number in a log, by where it begins in the database.

    Raises ``OSError``.
    """
    frames: list[tuple[int, tuple[int, int], bytes]] = []
    with open(log, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return {}
        page_size = _HEADER.unpack(header)[2]
        if page_size not in PAGE_SIZES:
            page_size = _USUAL_PAGE
        while True:
            head, page = file.read(_FRAME.size), file.read(page_size)
            if len(page) < page_size:
                break
            number, _, *salt, _, _ = _FRAME.unpack(head)
            frames.append((number, (salt[0], salt[1]), page))
    # Any one of them may be damaged.
    first = [salt for _, salt, _ in frames[:3]]
    return {
        (number - 1) * page_size: page
        for number, salt, page in frames
        if salt == max(first, key=first.count) and 0 < number < _MOST_PAGES
    }
