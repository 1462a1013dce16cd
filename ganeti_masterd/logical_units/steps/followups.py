"""Jobs that an opcode submits with its result, and how the result lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.base import Opcode


def with_jobs(ctx: Context, jobs: Sequence[Sequence[Opcode]]) -> dict[str, Any]:
    """Submits jobs; returns the result that tells their ids: ``{"jobs": [[true, id], ...]}``.

    They come to be with the opcode's success. Raises as ``ctx.submit``.
    """
    return {"jobs": [[True, job_id] for job_id in (ctx.submit(jobs) if jobs else ())]}
