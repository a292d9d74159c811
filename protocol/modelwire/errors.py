"""Every error that crosses the wire: one class for each code, converted here in both directions.

The classes at the end of this module are the table of codes: the code on the wire, the exit code of a command that ends
with it, and whether the same request can succeed later. A new error is one row there.

ModeldError
├── LocalError             this side broke a rule of the protocol: a bug here
├── RemoteError            the peer broke a rule of the protocol: a bug there
├── NoDaemon               no daemon answers at the endpoint and none could be started
├── ConnectionLost         the daemon went away before the terminal reply
└── WireError              an answer of the daemon; one subclass for each code

A message reports what went wrong, with which thing and why; the hint is what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from modelwire import exits


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: storing or sending an error must not fail because of what its details hold."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


class ModeldError(Exception):
    """Base of everything that modeld raises on purpose. A command that ends with it has `exit_code`."""

    exit_code: int = exits.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocalError(ModeldError):
    """This side used the connection wrongly."""


class RemoteError(ModeldError):
    """The peer sent what the protocol does not allow."""


class NoDaemon(ModeldError):
    """No daemon answers, and none was or could be started."""

    exit_code = exits.NO_DAEMON


class ConnectionLost(ModeldError):
    """The connection ended before the terminal reply: the outcome is unknown."""


class WireError(ModeldError):
    """An `error` reply. `retryable` says whether the same request can succeed later unchanged."""

    code: ClassVar[str]
    retryable_by_default: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, code: str | None = None, exit_code: int | None = None, retryable: bool | None = None
    ) -> None:
        """A row of the table. What a further subclass leaves out it inherits."""
        cls.code = cls.code if code is None else code
        cls.exit_code = cls.exit_code if exit_code is None else exit_code
        cls.retryable_by_default = cls.retryable_by_default if retryable is None else retryable

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.retry_after_ms = retry_after_ms
        self.details: dict[str, Any] = _plain(details or {})


class InvalidRequest(WireError, code="invalid_request", exit_code=exits.USAGE): ...


class Unsupported(WireError, code="unsupported"): ...


class UnknownOperation(WireError, code="unknown_operation"): ...


class FrameTooLarge(WireError, code="frame_too_large"): ...


class Unauthorized(WireError, code="unauthorized", exit_code=exits.PERMISSION): ...


class NotFound(WireError, code="not_found", exit_code=exits.NOT_FOUND): ...


class AlreadyExists(WireError, code="already_exists", exit_code=exits.EXISTS): ...


class InvalidName(WireError, code="invalid_name", exit_code=exits.USAGE): ...


class InvalidDigest(WireError, code="invalid_digest", exit_code=exits.USAGE): ...


class DigestMismatch(WireError, code="digest_mismatch", exit_code=exits.INTEGRITY): ...


class Corrupt(WireError, code="corrupt", exit_code=exits.INTEGRITY): ...


class Untrusted(WireError, code="untrusted", exit_code=exits.INTEGRITY): ...


class PermissionDenied(WireError, code="permission_denied", exit_code=exits.PERMISSION): ...


class QueueFull(WireError, code="queue_full", exit_code=exits.BUSY, retryable=True): ...


class Draining(WireError, code="draining", exit_code=exits.BUSY, retryable=True): ...


class NoSpace(WireError, code="no_space", exit_code=exits.SPACE, retryable=True): ...


class QuotaExceeded(WireError, code="quota_exceeded", exit_code=exits.SPACE): ...


class SourceUnavailable(WireError, code="source_unavailable", exit_code=exits.SOURCE, retryable=True): ...


class SourceNotFound(WireError, code="source_not_found", exit_code=exits.NOT_FOUND): ...


class SourceUnauthorized(WireError, code="source_unauthorized", exit_code=exits.CREDENTIALS): ...


class Offline(WireError, code="offline", exit_code=exits.SOURCE): ...


class InUse(WireError, code="in_use", exit_code=exits.EXISTS, retryable=True): ...


class Cancelled(WireError, code="cancelled"): ...


class TimedOut(WireError, code="timeout", retryable=True): ...


class Interrupted(WireError, code="interrupted", retryable=True): ...


class Internal(WireError, code="internal"): ...


BY_CODE: dict[str, type[WireError]] = {cls.code: cls for cls in WireError.__subclasses__()}


def from_code(
    code: str,
    message: str,
    *,
    hint: str | None = None,
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> WireError:
    """The exception for a code off the wire; a code of a newer daemon becomes `Internal` that names it."""
    cls = BY_CODE.get(code)
    if cls is None:
        cls, message = Internal, f"{message} (unknown error code {code!r})"
    return cls(message, hint=hint, retryable=retryable, retry_after_ms=retry_after_ms, details=details)
