"""How the status of a job follows from those of its opcodes."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
)


def job_status(opcodes: Iterable[str]) -> str:
    """Returns a job's status, given those of its opcodes (protocol/queue.rst, States of jobs)."""
    last = STATUS_QUEUED
    success = True
    for status in opcodes:
        if status in (STATUS_ERROR, STATUS_CANCELING, STATUS_CANCELED):
            return status
        if status != STATUS_SUCCESS:
            success = False
            if status in (STATUS_WAITING, STATUS_RUNNING):
                last = status
    return STATUS_SUCCESS if success else last
