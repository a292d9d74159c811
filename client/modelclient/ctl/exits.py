"""What `modelctl` ends with: one table, and the second line of an error that brings none of its own."""

from __future__ import annotations

from modelwire.errors import ConnectionLost, LocalError, ModeldError, NoDaemon, RemoteError, WireError

FINE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CREDENTIALS = 4
EXISTS = 5
INTEGRITY = 6
BUSY = 7
SPACE = 8
NO_DAEMON = 9
SOURCE = 10
PERMISSION = 13
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what the shell shows for any command whose reader left."""

BY_CODE = {
    "invalid_request": USAGE,
    "unsupported": FAILED,
    "unknown_operation": FAILED,
    "frame_too_large": FAILED,
    "unauthorized": PERMISSION,
    "not_found": NOT_FOUND,
    "already_exists": EXISTS,
    "invalid_name": USAGE,
    "invalid_digest": USAGE,
    "digest_mismatch": INTEGRITY,
    "corrupt": INTEGRITY,
    "permission_denied": PERMISSION,
    "queue_full": BUSY,
    "draining": BUSY,
    "no_space": SPACE,
    "quota_exceeded": SPACE,
    "source_unavailable": SOURCE,
    "source_not_found": NOT_FOUND,
    "source_unauthorized": CREDENTIALS,
    "offline": SOURCE,
    "in_use": EXISTS,
    "cancelled": FAILED,
    "timeout": FAILED,
    "interrupted": FAILED,
    "internal": FAILED,
}

_NEXT = {
    "unsupported": "compare the versions: modelctl version",
    "unknown_operation": "the daemon is of another version: modelctl version",
    "unauthorized": "ask the daemon's owner for the right",
    "not_found": "see what is there: modelctl list",
    "already_exists": "choose another name, or replace it: --replace",
    "digest_mismatch": "check the expected digest, or get the file again",
    "corrupt": "see what is known about it: modelctl show NAME",
    "permission_denied": "let the daemon's user read and write that place, or run the daemon as another user",
    "queue_full": "try again in a moment; see what is waiting: modelctl jobs",
    "draining": "the daemon is stopping: try again when it is gone, a new one is then started",
    "no_space": "make room on the store's disk, then run the same command again",
    "quota_exceeded": "remove models that are not needed, or raise the limit",
    "source_unavailable": "try again later",
    "source_not_found": "check the reference and the path",
    "source_unauthorized": "give the daemon credentials for that source",
    "offline": "allow the network, or name a local source",
    "in_use": "see who holds it: modelctl jobs",
    "cancelled": "run the same command again to start over",
    "timeout": "try again, perhaps with a longer --timeout",
    "interrupted": "run the same command again",
    "internal": "see the daemon's log: modelctl log -n 20",
}


def exit_code(error: ModeldError) -> int:
    if isinstance(error, WireError):
        return BY_CODE.get(error.code, FAILED)
    if isinstance(error, NoDaemon):
        # A daemon that could not start says what it ended with: 13 for a root that it may not use.
        return int(getattr(error, "exit_code", NO_DAEMON))
    return FAILED


def hint(error: ModeldError, verb: str | None = None) -> str:
    """What to do next: in the daemon's words when it has some."""
    if error.hint:
        return error.hint
    if isinstance(error, WireError):
        return _NEXT.get(error.code, f"see modelctl {verb + ' ' if verb else ''}--help")
    if isinstance(error, ConnectionLost):
        return "see whether it is there again: modelctl status"
    if isinstance(error, RemoteError):
        return _NEXT["unsupported"]
    if isinstance(error, LocalError):
        return "this is a fault of modelctl itself: please report it"
    return "start a daemon: modelctl start"


def words(error: ModeldError) -> str:
    """The message for people, who do not write JSON: `$.filter: …` is the wire's way to say where the fault is."""
    return error.message.removeprefix("$.")


def as_json(error: ModeldError, verb: str | None = None) -> dict[str, object]:
    """The value of `{"error": …}`."""
    made: dict[str, object] = {"code": code(error), "message": error.message, "hint": hint(error, verb)}
    if isinstance(error, WireError):
        made["retryable"] = error.retryable
        if error.retry_after_ms is not None:
            made["retry_after_ms"] = error.retry_after_ms
        if error.details:
            made["details"] = error.details
    return made


def code(error: ModeldError) -> str:
    """The wire's code, or a word of the same kind for what never crossed it."""
    if isinstance(error, NoDaemon):
        return str(getattr(error, "code", None) or "no_daemon")
    if isinstance(error, WireError):
        return error.code
    return "connection_lost" if isinstance(error, ConnectionLost) else "protocol_fault"
