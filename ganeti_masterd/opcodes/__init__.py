"""Opcodes: typed declarations, validation of submitted ones, and their summaries.

One module for each domain declares its opcodes; ``OPCODES`` has them all by
name. ``decode_opcode`` checks what clients submit. Nothing here executes an opcode: that
is the work of its logical unit.
"""

from ganeti_masterd.opcodes.base import Hooks, Opcode
from ganeti_masterd.opcodes.registry import OPCODES
from ganeti_masterd.opcodes.secrecy import (
    REDACTED,
    lacks_secrets,
    private_fields,
    redact,
    secret_fields,
    strip_secrets,
)
from ganeti_masterd.opcodes.summary import summary
from ganeti_masterd.opcodes.types import Dependency
from ganeti_masterd.opcodes.validation import (
    check_result,
    decode_opcode,
    encode_opcode,
    load_opcode,
)

__all__ = [
    "OPCODES",
    "REDACTED",
    "Dependency",
    "Hooks",
    "Opcode",
    "check_result",
    "decode_opcode",
    "encode_opcode",
    "lacks_secrets",
    "load_opcode",
    "private_fields",
    "redact",
    "secret_fields",
    "strip_secrets",
    "summary",
]
