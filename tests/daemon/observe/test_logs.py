"""The daemon's own log: three formats, no secret, nothing that fools a terminal, and no way to end the daemon."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from modeld.config import LogSettings
from modeld.observe import logs


@dataclass
class Log:
    """A configured log and what was written to it."""

    out: TextIO
    outputs: list[logs.Output] = field(default_factory=list)

    def configure(self, style: str = "json", level: str = "info", **options: Any) -> str:
        choice = LogSettings(format=style, level=level)  # type: ignore[arg-type]
        assert all(output.flush(20) for output in self.outputs), "each has a thread that writes"
        self.outputs.append(logs.configure(choice, stream=self.out, **{"environ": {}, **options}))
        return self.outputs[-1].format

    @property
    def text(self) -> str:
        assert isinstance(self.out, io.StringIO)
        assert all(output.flush(20) for output in self.outputs)
        return self.out.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Log(io.StringIO())
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines(log: Log) -> None:
    assert log.configure() == "json"
    structlog.get_logger("modeld.server").info(
        "peer connected",
        uid=1000,
        path=Path("/a"),
        sizes={
            1,
        },
        deep={"a": (1, None)},
    )
    (record,) = log.records
    assert list(record)[:4] == ["timestamp", "level", "room", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record.pop("timestamp"))
    assert record == {
        "level": "info",
        "room": "server",
        "event": "peer connected",
        "uid": 1000,
        "path": "/a",
        "sizes": [1],
        "deep": {"a": [1, None]},
    }


def test_a_person_gets_plain_lines(log: Log) -> None:
    log.configure("console")
    structlog.get_logger("modeld.app").warning("disk is filling", free="3 GB")
    (line,) = log.lines
    assert "disk is filling" in line
    assert "room=app" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_the_journal_gets_priorities(log: Log, level: str, priority: int) -> None:
    log.configure("journal", "debug")
    getattr(structlog.get_logger("modeld.jobs"), level)("a job", id="x", name="two words", none=None, quote='"')
    assert log.text == f'<{priority}>jobs: a job id=x name="two words" none=null quote="\\""\n'


def test_each_line_of_a_traceback_has_its_priority(log: Log) -> None:
    log.configure("journal")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        structlog.get_logger("modeld.jobs").exception("it broke\nbadly")
    assert len(log.lines) > 4
    assert all(line.startswith("<3>") for line in log.lines)
    assert log.lines[0] == "<3>jobs: it broke\\nbadly"


def test_levels_and_a_reload(log: Log) -> None:
    made_before = structlog.get_logger("modeld.app")
    log.configure(level="warning")
    made_before.info("unseen")
    made_before.warning("seen")
    log.configure(level="debug")
    made_before.debug("seen too")
    assert [record["event"] for record in log.records] == ["seen", "seen too"]


# --- which format ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_looks_at_the_stream(log: Log) -> None:
    assert log.configure("auto") == "json"
    assert Log(Terminal()).configure("auto") == "console"


def test_colours_on_a_terminal_unless_told_not_to(log: Log) -> None:
    terminal = Log(Terminal())
    terminal.configure("auto")
    structlog.get_logger().info("x")
    assert "\x1b[" in terminal.text
    plain = Log(Terminal())
    plain.configure("auto", environ={"NO_COLOR": "1"})
    structlog.get_logger().info("x")
    assert "\x1b[" not in plain.text


def test_auto_finds_the_journal_only_when_it_is_this_stream(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as out, (tmp_path / "other").open("w") as other:
        info = os.fstat(out.fileno())
        environ = {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
        assert logs.choose_format(out, environ) == "journal"
        assert logs.choose_format(other, environ) == "json"
        assert logs.choose_format(io.StringIO(), environ) == "json"
    assert logs.choose_format(out, environ) == "json"  # closed by now


# --- what must not get out ---


def hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "***" if key == "token" else hide(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [hide(entry) for entry in value]
    return value.replace("s3cret", "***") if isinstance(value, str) else value


class Holder:
    def __str__(self) -> str:
        return "holds s3cret"


@pytest.mark.parametrize("style", ["json", "console", "journal"])
def test_no_secret_gets_out(log: Log, style: str) -> None:
    log.configure(style, redact=hide)
    logger = structlog.get_logger("modeld.download").bind(bound="s3cret")
    logger.info("got s3cret", token="abc123", deep={"list": ["s3cret", {"token": "abc123"}]}, thing=Holder())
    try:
        local_variable = "abc" + "123"
        raise ValueError("s3cret", local_variable[:0])
    except ValueError:
        logger.exception("s3cret")
    logging.getLogger("library").error("with %s", "s3cret")
    assert "s3cret" not in log.text
    assert "abc123" not in log.text
    assert log.text.count("***") >= 8


@pytest.mark.parametrize("style", ["json", "console", "journal"])
@pytest.mark.parametrize("answer", [None, "text", ValueError("no")])
def test_a_failed_redaction_withholds_the_line(log: Log, style: str, answer: object) -> None:
    def broken(_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    log.configure(style, redact=broken)
    structlog.get_logger("modeld.app").warning("s3cret", x="s3cret")
    assert "s3cret" not in log.text
    assert "withheld" in log.text
    assert len(log.lines) == 1


@pytest.mark.parametrize("style", ["json", "console", "journal"])
def test_a_peer_cannot_write_to_the_terminal(log: Log, style: str) -> None:
    log.configure(style)
    structlog.get_logger().info("a\x1b[2Jb\x9b1mc\u202ed\r", key="\x1b]0;title\x07", deep={"\x1b": ["\x7f\udcff"]})
    assert not set(log.text) & set("\x1b\x9b\u202e\r\x07\x7f\udcff")
    log.text.encode()


# --- what must not end the daemon ---


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_value_that_cannot_be_shown(log: Log) -> None:
    log.configure()
    structlog.get_logger().info("x", value=Unshowable())
    assert log.records[0]["value"] == "<Unshowable>"


class Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_log_that_nobody_reads_any_more() -> None:
    log = Log(Broken())
    log.configure()
    structlog.get_logger().info("x")
    closed = io.StringIO()
    closed.close()
    Log(closed).configure()
    structlog.get_logger().error("x")
    structlog.reset_defaults()


class Refusing(io.StringIO):
    """Refuses the first line."""

    refused = False

    def write(self, text: str) -> int:
        if not self.refused:
            self.refused = True
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("style", ["json", "console", "journal"])
def test_lines_that_could_not_be_written_are_counted_in_the_log(style: str) -> None:
    log = Log(Refusing())
    log.configure(style)
    structlog.get_logger().info("first")
    assert log.text == ""
    structlog.get_logger().info("second")
    first, second = log.lines
    assert "second" in first
    assert "lost" in second
    assert re.search(r'lines"?[=:] ?1', second)
    structlog.reset_defaults()


# --- other people's lines ---


def test_lines_of_the_standard_library_are_adopted(log: Log) -> None:
    log.configure()
    log.configure()
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=ValueError("lost"))
    logging.getLogger("library").info("chatter")
    # Straight to the handler: pytest has one of its own that would raise.
    adopted = next(each for each in logging.getLogger().handlers if type(each).__module__ == logs.__name__)
    adopted.handle(logging.LogRecord("library", logging.WARNING, "", 1, "bad format %d", ("x",), None))
    first, second = log.records
    assert (first["room"], first["level"]) == ("asyncio", "error")
    assert "ValueError: lost" in first["exception"]
    assert second["event"] == "bad format %d"


def test_python_warnings_are_off() -> None:
    code = (
        "import warnings; from modeld.observe import logs; from modeld.config import LogSettings\n"
        "logs.configure(LogSettings()); warnings.warn('old', DeprecationWarning); warnings.warn('odd')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
