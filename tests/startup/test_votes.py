"""Who is the master: counting votes, order, ties, nobody (protocol/startup.rst, The vote)."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup.votes import TRIES, Vote, VoteOutcome, decide, tally, vote_of
from tests.examples import examples

EXAMPLES = settings(deadline=None, max_examples=examples(200, 5000))

VOTES = st.lists(st.sampled_from(["us", "node2", "zz", "a", None]), max_size=12)


def outcome(votes: list[Vote], tries_left: int = 0) -> VoteOutcome:
    """Returns the outcome for the node "us"."""
    return decide("us", votes, tries_left).outcome


class DecisionTests(SynchronousTestCase):
    """The cases in protocol/startup.rst, and properties of all cases."""

    def test_alone(self) -> None:
        """A cluster of one node agrees with itself."""
        self.assertIs(outcome([]), VoteOutcome.AGREED)

    def test_cluster_of_two(self) -> None:
        """In a cluster of two, the other node's vote is needed."""
        self.assertIs(outcome(["us"]), VoteOutcome.AGREED)
        self.assertIs(outcome([None]), VoteOutcome.LOST)
        self.assertIs(outcome(["node2"]), VoteOutcome.LOST)

    def test_cluster_of_three(self) -> None:
        """One vote of the two other nodes is enough if the other one doesn't answer."""
        self.assertIs(outcome(["us", None]), VoteOutcome.AGREED)

    def test_cluster_of_four(self) -> None:
        """Two of the three others are needed."""
        self.assertIs(outcome(["us", "us", "node2"]), VoteOutcome.AGREED)
        self.assertIs(outcome(["us", None, "node2"]), VoteOutcome.LOST)
        self.assertIs(outcome(["us", "us", None]), VoteOutcome.AGREED)

    def test_tie_of_names(self) -> None:
        """With equal votes the greater name wins."""
        self.assertIs(decide("b", ["a", "b"], 0).outcome, VoteOutcome.AGREED)
        self.assertIs(decide("a", ["a", "b"], 0).outcome, VoteOutcome.LOST)

    def test_tie_with_nobody(self) -> None:
        """With equal votes nobody ranks below every name."""
        self.assertIs(decide("a", [None, "a"], 0).outcome, VoteOutcome.AGREED)
        self.assertIs(decide("a", [None, None, "z", "z"], 3).outcome, VoteOutcome.LOST)

    def test_nobody(self) -> None:
        """While nobody ranks first, the nodes are asked again until no tries are left."""
        self.assertIs(outcome([None, None], 1), VoteOutcome.AGAIN)
        verdict = decide("us", [None, None], 0)
        self.assertIs(verdict.outcome, VoteOutcome.LOST)
        self.assertIn("--no-voting", verdict.reason)

    def test_other_master(self) -> None:
        """The reason names the other node, its votes and the total."""
        verdict = decide("us", ["node2", "node2", "us"], TRIES)
        self.assertIs(verdict.outcome, VoteOutcome.LOST)
        self.assertIn("node2 is the master by 2 of 3 votes", verdict.reason)

    @EXAMPLES
    @given(VOTES)
    def test_order(self, votes: list[Vote]) -> None:
        """Ranks go by votes, then by name, with nobody last, and no vote is lost."""
        ranks = tally(votes).ranks
        self.assertEqual(tally(votes).total, len(votes))
        for (name, count), (later, other) in pairwise(ranks):
            self.assertGreaterEqual(count, other)
            if count == other:
                self.assertIsNotNone(name)
                self.assertTrue(later is None or (name or "") > later)

    @EXAMPLES
    @given(VOTES, st.integers(0, 5))
    def test_bound(self, votes: list[Vote], tries_left: int) -> None:
        """This node wins only with at least half of all votes, not counting its own."""
        found = outcome(votes, tries_left)
        # In 3.0 the node asks itself as well, and the rule is: 2 x own votes > all.
        enough = 2 * (votes.count("us") + 1) > len(votes) + 1
        if found is VoteOutcome.AGREED:
            self.assertTrue(enough)
        if votes.count("us") * 2 > len(votes):
            self.assertIs(found, VoteOutcome.AGREED)
        if found is VoteOutcome.AGAIN:
            self.assertGreater(tries_left, 0)
            self.assertGreater(votes.count(None), votes.count("us"))

    @EXAMPLES
    @given(VOTES, st.randoms())
    def test_order_of_answers(self, votes: list[Vote], random: object) -> None:
        """The order in which nodes answer makes no difference."""
        shuffled = list(votes)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        self.assertEqual(decide("us", votes, 2), decide("us", shuffled, 2))


class VoteTests(SynchronousTestCase):
    """What counts as a name."""

    def test_names(self) -> None:
        """A host name is a vote for it."""
        self.assertEqual(vote_of("node1.example.com"), "node1.example.com")

    def test_rubbish(self) -> None:
        """Anything else is a vote for nobody."""
        for answer in (None, "", 7, True, [], {}, ["node1"], "a b", "node1\n", " node1", "x" * 256):
            self.assertIsNone(vote_of(answer), answer)

    @EXAMPLES
    @given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
    def test_anything(self, answer: object) -> None:
        """Whatever a node answers, it is one vote."""
        vote = vote_of(answer)
        self.assertTrue(vote is None or vote == answer)
