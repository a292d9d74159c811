"""Every error that crosses the wire: one class for each code, converted here in both directions.

ModeldError
├── LocalError             this side broke a rule of the protocol: a bug here
├── RemoteError            the peer broke a rule of the protocol: a bug there
├── NoDaemon               nobody answers at the endpoint and none could be started
├── ConnectionLost         the daemon went away before the terminal reply
└── WireError              an answer of the daemon; one subclass for each code below

A message says what went wrong, with which thing and why; the hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


def _plain(value: Any) -> Any:
    """What JSON has a form for. An error is stored and sent from places that must not fail for what it carries."""
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
    """Base of everything that modeld raises on purpose."""

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


class ConnectionLost(ModeldError):
    """The connection ended before the terminal reply: the outcome is unknown."""


class WireError(ModeldError):
    """An `error` reply. `retryable` says whether the same request can succeed later unchanged."""

    code: ClassVar[str]
    retryable_by_default: ClassVar[bool] = False

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


class InvalidRequest(WireError):
    code = "invalid_request"


class Unsupported(WireError):
    code = "unsupported"


class UnknownOperation(WireError):
    code = "unknown_operation"


class FrameTooLarge(WireError):
    code = "frame_too_large"


class Unauthorized(WireError):
    code = "unauthorized"


class NotFound(WireError):
    code = "not_found"


class AlreadyExists(WireError):
    code = "already_exists"


class InvalidName(WireError):
    code = "invalid_name"


class InvalidDigest(WireError):
    code = "invalid_digest"


class DigestMismatch(WireError):
    code = "digest_mismatch"


class Corrupt(WireError):
    code = "corrupt"


class PermissionDenied(WireError):
    code = "permission_denied"


class QueueFull(WireError):
    code = "queue_full"
    retryable_by_default = True


class Draining(WireError):
    code = "draining"
    retryable_by_default = True


class NoSpace(WireError):
    code = "no_space"
    retryable_by_default = True


class QuotaExceeded(WireError):
    code = "quota_exceeded"


class SourceUnavailable(WireError):
    code = "source_unavailable"
    retryable_by_default = True


class SourceNotFound(WireError):
    code = "source_not_found"


class SourceUnauthorized(WireError):
    code = "source_unauthorized"


class Offline(WireError):
    code = "offline"


class InUse(WireError):
    code = "in_use"
    retryable_by_default = True


class Cancelled(WireError):
    code = "cancelled"


class TimedOut(WireError):
    code = "timeout"
    retryable_by_default = True


class Interrupted(WireError):
    code = "interrupted"
    retryable_by_default = True


class Internal(WireError):
    code = "internal"


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
