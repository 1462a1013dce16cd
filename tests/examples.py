"""How many examples hypothesis tries: few as a rule, very many in a soak."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

#: Whether this is a soak (``make soak``).
SOAK = bool(os.environ.get("GANETI_MASTERD_SOAK"))


def examples(usual: int, soak: int) -> int:
    """Returns how many examples to try now."""
    return soak if SOAK else usual


def run_machine(machine: type[RuleBasedStateMachine], number: int, steps: int) -> None:
    """Runs so many examples of a state machine, each of at most so many steps.

    It may be slow and pick few of its rules: the machines here do much in one step.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=number,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
