"""How much memory clients may take with what they haven't finished sending or reading. Pure.

One :class:`Budget` counts for all connections of all sockets: messages that aren't whole yet,
large requests that are being answered, and answers that nobody has read.
"""

from __future__ import annotations

from collections.abc import Collection

#: The most bytes for all clients together unless told otherwise.
MAX_BUFFERED = 512 * 1024 * 1024

#: What a request takes in memory once it is read, for each of its bytes: the usual figure.
READ_COST = 8


class Budget:
    """Counts the bytes that are held for clients, in all and for each user.

    ``trusted`` are the users (uids) for whom an eighth of it is kept; each of the others may have
    half of it. A user for whom nothing is held may have a single thing that is larger.
    """

    def __init__(self, total: int = MAX_BUFFERED, trusted: Collection[int] = ()) -> None:
        self.total = total
        #: The bytes held now, and the most that were held at a time.
        self.held = self.highest = 0
        self._trusted = frozenset(trusted)
        self._others = 0
        self._by_user: dict[int | None, int] = {}

    def held_for(self, uid: int | None) -> int:
        """Returns the bytes held for a user."""
        return self._by_user.get(uid, 0)

    def refusal(self, uid: int | None, more: int) -> str | None:
        """Returns why a user can't have ``more`` bytes held; None if that is all right."""
        own, limit = self.held_for(uid), self.total // 2
        free = self.total - self.held
        if uid not in self._trusted:
            if own and own + more > limit:
                return (
                    f"{own} bytes are held for this user already, of requests half sent and "
                    f"answers not read, and {more} more would be above the limit of {limit}"
                )
            free = min(free, self.total - self.total // 8 - self._others)
        if more > free:
            return (
                f"{self.held} bytes are held for all clients already, of requests half sent and "
                f"answers not read, and {more} more would be above the limit of {self.total} "
                "(--max-buffered)"
            )
        return None

    def add(self, uid: int | None, more: int) -> None:
        """Counts bytes for a user, whether they fit or not; a negative number takes them off."""
        self.held += more
        self.highest = max(self.highest, self.held)
        if uid not in self._trusted:
            self._others += more
        left = self._by_user.get(uid, 0) + more
        if left:
            self._by_user[uid] = left
        else:
            self._by_user.pop(uid, None)
