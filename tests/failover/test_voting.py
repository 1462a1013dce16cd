"""Whether the other nodes let this one become the master."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.failover.voting import refusal


def votes(*given: str | None) -> dict[str, str | None]:
    """Returns these votes by node, with the nodes named a, b, c and so on."""
    return dict(zip("abcdefgh", given, strict=False))


class VotingTests(SynchronousTestCase):
    """Votes of the other nodes; this node always votes for the old master."""

    def accepted(self, *given: str | None) -> None:
        self.assertIsNone(refusal("old", "own", votes(*given)))

    def refused(self, words: str, *given: str | None) -> None:
        self.assertIn(words, refusal("old", "own", votes(*given)) or "")

    def test_majority_answers(self) -> None:
        """More than half of all nodes, including this one, must answer."""
        self.accepted("old", None)
        self.accepted("old", "old", None, None)
        self.refused("only 1 of 3 nodes answer, this one included (not: a, b)", None, None)
        self.refused("only 2 of 4 nodes answer", "old", None, None)
        self.refused("only 1 of 2 nodes answer", None)

    def test_alone(self) -> None:
        """A cluster without other nodes has nobody to ask."""
        self.accepted()

    def test_someone_else(self) -> None:
        """A third node with as many votes as the old master is a refusal."""
        self.refused("2 of 3 nodes take third for the master", "third", "third")
        self.refused("1 of 2 nodes take third for the master", "third")
        self.accepted("third", "old")

    def test_begun_before(self) -> None:
        """Votes for this node count for it: they are from a fail-over that was cut short."""
        self.accepted("own", "own")
        self.accepted("own", "third")
        self.refused("3 of 5 nodes take third", "own", "third", "third", "third")

    def test_most_of_the_others(self) -> None:
        """Of several others the one with most votes is named, then the first by name."""
        self.refused("2 of 6 nodes take b for the master", "c", "c", "b", "b", None)
