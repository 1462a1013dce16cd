"""Ganeti's error classes, and how an error travels.

Clients raise the class that a reply names, so the names and the tree are
Ganeti's own (protocol/luxi.rst, Framing). A LUXI error result, and the result of a failed
opcode, is ``[class name, [args...]]``: :func:`encode_error` makes it,
:func:`decode_error` reads it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ECODE_RESOLVER = "resolver_error"
ECODE_NORES = "insufficient_resources"
ECODE_TEMP_NORES = "temp_insufficient_resources"
ECODE_INVAL = "wrong_input"
ECODE_STATE = "wrong_state"
ECODE_NOENT = "unknown_entity"
ECODE_EXISTS = "already_exists"
ECODE_NOTUNIQUE = "resource_not_unique"
ECODE_FAULT = "internal_error"
ECODE_ENVIRON = "environment_error"


class GenericError(Exception):
    """The root of Ganeti's errors; args: message."""


class AddressPoolError(GenericError):
    """An address pool can't give or take what was asked."""


class BlockDeviceError(GenericError):
    """A block device could not be made, found or changed."""


class CommandError(GenericError):
    """An external command failed."""


class ConfdClientError(GenericError):
    """The configuration daemon's client was misused or got a senseless answer."""


class ConfdMagicError(GenericError):
    """A confd datagram doesn't begin with the agreed magic."""


class ConfigurationError(GenericError):
    """The configuration can't be read, written or changed as asked."""


class ConfigVerifyError(ConfigurationError):
    """The configuration contradicts itself; args: message, list of faults."""


class ConfigVersionMismatch(ConfigurationError):
    """The configuration is of another version; args: expected, found."""


class DeviceCreationError(GenericError):
    """Creating an instance's disks failed halfway."""


class FileStoragePathError(GenericError):
    """A file storage path is outside what the node allows."""


class HooksFailure(GenericError):
    """Hooks could not be run."""


class HooksAbort(HooksFailure):
    """A pre hook refused the operation; args: list of [node, script, output]."""


class HypervisorError(GenericError):
    """The hypervisor refused or failed."""


class HotplugError(HypervisorError):
    """A device could not be added to or removed from a running instance."""


class IPAddressError(GenericError):
    """An IP address isn't valid in its family."""


class InotifyError(GenericError):
    """Watching files failed."""


class JobCanceled(GenericError):
    """The job was cancelled before the opcode ran."""


class JobFileCorrupted(GenericError):
    """A job file can't be understood."""


class JobLost(GenericError):
    """The job is archived or never existed."""


class JobQueueError(GenericError):
    """The queue can't do what was asked."""


class JobQueueDrainError(JobQueueError):
    """The queue is drained: it takes no new jobs."""


class JobQueueFull(JobQueueError):
    """The queue already holds the most jobs it may."""


class JobSubmittedException(Exception):
    """Clients' own signal that a job was only submitted."""


class LockError(GenericError):
    """A lock was used against the rules."""


class LuxiError(GenericError):
    """The two sides of LUXI don't understand each other."""


class NoCtypesError(GenericError):
    """A library call needs ctypes, which is missing."""


class OpCodeUnknown(GenericError):
    """No logical unit runs this opcode."""


class OpExecError(GenericError):
    """An opcode failed while it ran; args: message."""


class OpPrereqError(GenericError):
    """An opcode or request can't be done as asked; args: message, one of ECODE_ALL."""


class OpResultError(GenericError):
    """An opcode's result doesn't have the declared type."""


class OpRetryNotSupportedError(GenericError):
    """The opcode can't be sent back to wait for resources."""


class ParameterError(GenericError):
    """A parameter or field is unknown or of the wrong type; args: name."""


class ParseError(GenericError):
    """Text could not be parsed."""


class PidFileLockError(LockError):
    """Another process holds the PID file."""


class ProgrammerError(GenericError):
    """A fault of the code, not of its input."""


class QueryFilterParseError(ParseError):
    """A filter text could not be parsed."""


class QuitGanetiException(Exception):
    """A node daemon's own signal to leave the cluster."""


class RapiTestResult(GenericError):
    """The remote API's test result."""


class RemoteError(GenericError):
    """A remote import or export failed."""


class ReservationError(GenericError):
    """A name, address or id is taken or reserved by another job."""


class ResolverError(GenericError):
    """A name does not resolve; args: name, code, message."""


class ResultValidationError(GenericError):
    """A node's answer doesn't have the declared type."""


class SignatureError(GenericError):
    """A signature is wrong."""


class SshUpdateError(GenericError):
    """Keys could not be distributed."""


class StorageError(GenericError):
    """A storage unit refused or failed."""


class TagError(GenericError):
    """A tag is invalid, or the object doesn't have it."""


class TypeEnforcementError(GenericError):
    """A parameter's value has the wrong type."""


class UdpDataSizeError(GenericError):
    """A datagram would be too large."""


class UnitParseError(GenericError):
    """A size with a unit could not be parsed."""


class X509CertError(GenericError):
    """A certificate is wrong; args: file, reason."""


class DaemonStopping(JobQueueError):
    """The daemon is stopping: the request was not begun, or was given up in an orderly way.

    Travels as ``JobQueueError``, the nearest class that clients know.
    """


#: Every class that may travel, by its name.
ERRORS: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Exception) and cls is not DaemonStopping
}


def prereq(message: str, code: str = ECODE_INVAL) -> OpPrereqError:
    """Returns an ``OpPrereqError`` for the caller to raise."""
    return OpPrereqError(message, code)


def encode_error(error: BaseException) -> list[Any]:
    """Returns ``[class name, [args...]]`` for any exception.

    An exception that isn't one of Ganeti's becomes an ``OpExecError`` with its
    text, as clients could not raise it (protocol/queue.rst, Running an opcode).
    """
    for cls in type(error).__mro__:
        if ERRORS.get(cls.__name__) is cls:
            return [cls.__name__, list(error.args)]
    text = str(error)
    name = type(error).__name__
    return ["OpExecError", [f"{name}: {text}" if text else name]]


def decode_error(result: Any) -> Exception:
    """Returns the exception that an error result stands for.

    ``result`` is what :func:`encode_error` makes, or the bare text that luxid
    3.0.2 and the classic daemon send for some faults. An unknown class becomes
    a ``GenericError`` that keeps its name in the message.
    """
    if (
        isinstance(result, Sequence)
        and not isinstance(result, str)
        and len(result) == 2
        and isinstance(result[0], str)
        and isinstance(result[1], (list, tuple))
    ):
        name, args = result
        cls = ERRORS.get(name)
        if cls is None:
            return GenericError(f"{name}: {', '.join(map(str, args))}")
        return cls(*args)
    return GenericError(str(result))
