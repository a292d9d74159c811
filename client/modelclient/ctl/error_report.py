"""How `modelctl` reports an error: two lines for people, a document or a record for programs, and the exit code."""

from __future__ import annotations

from modelclient.ctl.output import Output, complain, printable
from modelwire.errors import ConnectionLost, LocalError, ModeldError, NoDaemon, RemoteError, WireError

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


def report(error: ModeldError, *, as_json: bool = False, as_event: bool = False, verb: str | None = None) -> int:
    """Two lines on standard error, for programs a document or the last record of the stream; returns the exit code."""
    complain(f"modelctl: {printable(_words(error))}")
    complain(f"hint: {printable(_hint(error, verb))}")
    if as_json:
        Output().document({"error": as_value(error, verb)})
    elif as_event:
        Output().record({"type": "error", **as_value(error, verb)})
    return error.exit_code


def _hint(error: ModeldError, verb: str | None = None) -> str:
    """What to do next: the daemon's own hint, when it sent one."""
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


def _words(error: ModeldError) -> str:
    """The message for people, who do not write JSON: `$.filter: …` is how the wire names the field at fault."""
    return error.message.removeprefix("$.")


def as_value(error: ModeldError, verb: str | None = None) -> dict[str, object]:
    """The value of `{"error": …}`."""
    made: dict[str, object] = {"code": _code(error), "message": error.message, "hint": _hint(error, verb)}
    if isinstance(error, WireError):
        made["retryable"] = error.retryable
        if error.retry_after_ms is not None:
            made["retry_after_ms"] = error.retry_after_ms
        if error.details:
            made["details"] = error.details
    return made


def _code(error: ModeldError) -> str:
    """The wire's code, or a word of the same kind for what never crossed it."""
    if isinstance(error, NoDaemon):
        return str(getattr(error, "code", None) or "no_daemon")
    if isinstance(error, WireError):
        return error.code
    return "connection_lost" if isinstance(error, ConnectionLost) else "protocol_fault"
