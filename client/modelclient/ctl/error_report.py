"""How `modelctl` reports an error: two lines for people, a document or a record for programs, and the exit code."""

from __future__ import annotations

from modelclient.ctl.output import Output, complain, printable
from modelwire.errors import ConnectionLost, LocalError, ModeldError, NoDaemon, RemoteError, WireError

_NEXT = {
    "unsupported": "Compare the versions with `modelctl version`.",
    "unknown_operation": "Compare the versions with `modelctl version`: the daemon has another one.",
    "unauthorized": "Ask the daemon's owner for the right.",
    "not_found": "See what is there with `modelctl list`.",
    "already_exists": "Choose another name, or replace it with --replace.",
    "digest_mismatch": "Check the expected digest, or get the file again.",
    "corrupt": "See what is known about it with `modelctl show NAME`.",
    "untrusted": "Give the signer's file with --signature.",
    "permission_denied": "Let the daemon's user read and write that place, or run the daemon as another user.",
    "queue_full": "Try again in a moment; see what is waiting with `modelctl jobs`.",
    "draining": "Try again when the daemon has stopped; a new one is then started.",
    "no_space": "Make room on the store's disk, then run the same command again.",
    "quota_exceeded": "Remove models that are not needed, or raise the limit.",
    "source_unavailable": "Try again later.",
    "source_not_found": "Check the reference and the path.",
    "source_unauthorized": "Give the daemon credentials for that source.",
    "offline": "Allow the network, or name a local source.",
    "in_use": "See what holds it with `modelctl jobs`.",
    "cancelled": "Run the same command again; it goes on with what is there.",
    "timeout": "Try again, perhaps with a longer --timeout.",
    "interrupted": "Run the same command again.",
    "internal": "See the daemon's log with `modelctl log -n 20`.",
}


def report(error: ModeldError, *, as_json: bool = False, as_event: bool = False, verb: str | None = None) -> int:
    """Two lines on standard error, for programs a document or the last record of the stream; returns the exit code."""
    complain_of(error, verb)
    if as_json:
        Output().document({"error": as_value(error, verb)})
    elif as_event:
        Output().record({"type": "error", **as_value(error, verb)})
    return error.exit_code


def complain_of(error: ModeldError, verb: str | None = None) -> None:
    complain(f"modelctl: {printable(_words(error))}")
    complain(f"hint: {printable(_hint(error, verb))}")


def _hint(error: ModeldError, verb: str | None = None) -> str:
    """What to do next: the daemon's own hint, when it sent one."""
    if error.hint:
        return error.hint
    if isinstance(error, WireError):
        return _NEXT.get(error.code, f"See `modelctl {verb + ' ' if verb else ''}--help`.")
    if isinstance(error, ConnectionLost):
        return "See whether it is there again with `modelctl status`."
    if isinstance(error, RemoteError):
        return _NEXT["unsupported"]
    if isinstance(error, LocalError):
        return "Report this: it is a fault of modelctl itself."
    return "Start a daemon with `modelctl start`."


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
