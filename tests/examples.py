"""How many examples hypothesis tries: few as a rule, very many in a soak.

A quarter of the usual ones is enough where the same tests have run on another Python before
(``GANETI_MASTERD_FEW_EXAMPLES``).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

#: Whether this is a soak (``make soak``).
SOAK = bool(os.environ.get("GANETI_MASTERD_SOAK"))

#: Whether fewer than the usual examples will do.
FEW = bool(os.environ.get("GANETI_MASTERD_FEW_EXAMPLES"))

if FEW:
    settings.register_profile("few", max_examples=25)
    settings.load_profile("few")


def examples(usual: int, soak: int) -> int:
    """Returns how many examples to try now."""
    if SOAK:
        return soak
    return max(1, usual // 4) if FEW else usual


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
