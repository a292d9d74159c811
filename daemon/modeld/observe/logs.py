"""The daemon's own log, on standard error: for a person on a terminal, as JSON lines for a pipe, with priorities for
the journal.

Everything passes through `redact` first: events, values and tracebacks. If redaction fails, the line is withheld: it is
never worth a secret. Control characters are escaped, because names and messages of clients appear here, and so on an
operator's terminal.

The caller of a logger only makes a copy of the event. All else happens in the thread that writes: redaction, the text
of a traceback, which reads source files, and the write itself.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TextIO

import structlog

from modeld.observe.line_writer import FLUSH_SECONDS, LineWriter

log = structlog.get_logger("modeld.observe")

Redact = Callable[[Any], Any]
Event = MutableMapping[str, Any]
Line = tuple[float, Event]
"""An event for the writer, and its time in seconds since the epoch."""

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# sd-daemon(3): the priorities of syslog.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_WITHHELD: Final = "<withheld: redaction failed>"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 except tab and newline; separators and direction marks that make a line look like another; lone surrogates,
which a UTF-8 stream cannot encode."""


class Choice(Protocol):
    """The settings of the log."""

    @property
    def level(self) -> str: ...
    @property
    def format(self) -> str: ...


class Output:
    """The log of the process as it was set up."""

    def __init__(self, form: str, writer: LineWriter[Line]) -> None:
        self.format = form
        self._writer = writer

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until all lines are written, for so long at most. Reports whether they are."""
        return self._writer.flush(seconds)

    def close(self) -> None:
        """Writes the lines that are queued, within `FLUSH_SECONDS`. Later ones are lost. Idempotent."""
        self._writer.close()


def configure(
    choice: Choice,
    *,
    redact: Redact | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> Output:
    """Sets up logging for the process, and again after a reload."""
    out = sys.stderr if stream is None else stream
    given = os.environ if environ is None else environ
    chosen = choose_format(out, given) if choice.format == "auto" else choice.format
    shown = _Redacted(redact or _unchanged)
    renderer = _renderer(chosen, colors=_is_terminal(out) and "NO_COLOR" not in given)

    def render(line: Line) -> str:
        moment, event = line
        event = shown(structlog.processors.format_exc_info(None, "", event))
        if chosen != "journal":  # the journal has a clock of its own
            event["timestamp"] = datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
        return str(renderer(None, "", event))

    writer = LineWriter(out, render, _lost)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _add_room, _copied],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[choice.level]),
        logger_factory=lambda *names: _Lines(writer, *names),
        cache_logger_on_first_use=False,  # a reload changes the level of loggers that exist already
    )
    _adopt_stdlib(LEVELS[choice.level])
    return Output(chosen, writer)


def choose_format(stream: TextIO, environ: Mapping[str, str]) -> str:
    """`journal` if standard error is the journal, `console` on a terminal, else `json`."""
    if leads_to_journal(stream, environ):
        return "journal"
    return "console" if _is_terminal(stream) else "json"


def leads_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether JOURNAL_STREAM names this very stream: a process inherits it even if its stream is redirected."""
    try:
        info = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{info.st_dev}:{info.st_ino}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


def _unchanged(value: Any) -> Any:
    return value


def _add_room(lines: Any, _method: str, event: Event) -> Event:
    """Adds `room=server` to each line of `structlog.get_logger("modeld.server")`."""
    room = str(getattr(lines, "name", "")).removeprefix("modeld.")
    if room:
        event.setdefault("room", room)
    return event


def _copied(_lines: Any, _method: str, event: Event) -> tuple[tuple[Line], dict[str, Any]]:
    """Hands the event over to the writer. Values that may change meanwhile, and objects that JSON cannot encode, become
    text now; a traceback only later."""
    raised = event.pop("exc_info", None)
    copy: Event = {str(key): _plain(value) for key, value in event.items()}
    if raised:
        copy["exc_info"] = raised if isinstance(raised, BaseException | tuple) else sys.exc_info()
    return ((time.time(), copy),), {}


def _lost(number: int) -> Line:
    text = "lines of this log are lost: they could not be written in time"
    return time.time(), {"event": text, "level": "warning", "room": "observe", "lines": number}


class _Redacted:
    """Redacts an event as a whole, because a key identifies a secret as well as a value does; then escapes it."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def __call__(self, event: Event) -> Event:
        try:
            shown: Event = dict(_escaped(self._redact(event)))
        except Exception:  # noqa: BLE001 - after any fault of the redaction, the values must not be logged
            return {"level": event.get("level", "error"), "event": _WITHHELD}
        return shown


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, str | bool | int | float | None):
        return value
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an object without a text must not raise in the caller of the logger
        return f"<{type(value).__name__}>"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", value)
    if isinstance(value, dict):
        return {_escaped(key): _escaped(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    return value


def _renderer(chosen: str, *, colors: bool) -> Any:
    if chosen == "console":
        # plain_traceback: the other one shows local variables, which may hold tokens.
        return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return _journal if chosen == "journal" else _json


def _json(_logger: object, _method: str, event: Event) -> str:
    ordered = {key: event[key] for key in ("timestamp", "level", "room", "event") if key in event}
    return json.dumps({**ordered, **event}, default=str)


def _journal(_logger: object, _method: str, event: Event) -> str:
    """`<6>room: event key=value`; each line of a traceback carries the priority, or the journal would take it for a
    message of its own."""
    prefix = f"<{_PRIORITIES.get(event.pop('level', 'info'), 6)}>"
    room, text, trace = event.pop("room", None), event.pop("event", ""), event.pop("exception", "")
    words = [f"{room}: {text}" if room else str(text), *(f"{key}={_word(value)}" for key, value in event.items())]
    lines = [" ".join(words).replace("\n", "\\n"), *str(trace).splitlines()]
    return "\n".join(f"{prefix}{line}" for line in lines if line)


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if text and not re.search(r'[\s"=]', text) else json.dumps(text, ensure_ascii=False)


class _Lines:
    """The logger below structlog's: it passes each event on to the writer."""

    def __init__(self, writer: LineWriter[Line], name: str = "") -> None:
        self._writer = writer
        self.name = name

    def msg(self, line: Line) -> None:
        self._writer.put(line)

    debug = info = warning = warn = error = critical = exception = fatal = failure = err = log = msg


class _Adopted(logging.Handler):
    """Takes the lines of libraries that use the standard library's logging, such as asyncio's about lost exceptions."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken format string
            text = str(record.msg)
        name = logging.getLevelName(record.levelno).lower()
        method = name if name in LEVELS else "info"
        getattr(structlog.get_logger(record.name), method)(text, exc_info=record.exc_info)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    name = None if ended.thread is None else ended.thread.name
    log.error("an error ended a thread", thread=name, exc_info=ended.exc_value)


def _not_raised(unraisable: sys.UnraisableHookArgs) -> None:
    text = unraisable.err_msg or "an error could not be raised"
    log.error(text, of=repr(unraisable.object), exc_info=unraisable.exc_value)


def _adopt_stdlib(level: int) -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Adopted)]:
        root.removeHandler(handler)
    root.addHandler(_Adopted())
    # Python's own hooks write to standard error at once, unredacted, in the thread of the error.
    threading.excepthook = _thread_ended
    sys.unraisablehook = _not_raised
    # At INFO, libraries log what is of no use to an operator.
    root.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
    if not sys.warnoptions:  # deprecations are for the tests, not for the operator
        warnings.simplefilter("ignore")
