"""The blocking stretch of one opcode: check, hooks, exec, in one pool thread.

The order of the steps is that of protocol/queue.rst, Running an opcode. A dry run ends after the
hooks that come before.
"""

from __future__ import annotations

from typing import Any

from ganeti_masterd.execution.context import OpcodeContext
from ganeti_masterd.execution.hooks import HooksRun
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.opcodes import check_result


def run_unit(unit: LogicalUnit[Any], ctx: OpcodeContext, data_dir: str) -> Any:
    """Runs a logical unit that holds its locks; returns the opcode's result.

    Raises whatever refuses or fails. After an opcode that wrote the
    configuration, even one that failed, the config-update hooks run.
    """
    hooks = HooksRun(unit, ctx, data_dir)
    ctx.hooks_early = hooks.early
    try:
        unit.check(ctx)
        hooks.before()
        if unit.op.dry_run:
            ctx.info("dry-run mode requested, not actually executing the operation")
            return unit.dry_result(ctx)
        result = unit.exec(ctx)
        check_result(unit.op, result)
        with ctx.shielded():
            judged = unit.after_hooks(ctx, hooks.after(), result)
        if judged is not result:
            check_result(unit.op, judged)
        return judged
    finally:
        if ctx.wrote_config:
            hooks.config_update()
