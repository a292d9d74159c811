"""Standard output and standard error: data for programs as it is, text for people without control characters."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_REORDERING = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks of the direction of text, which let a name look like another, and separators of lines."""

_CONTROLS |= {code: f"\\u{code:04x}" for code in _REORDERING}


def printable(text: object) -> str:
    """Text from the store or another peer, safe on a terminal: no escape sequence, no second line."""
    return str(text).translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()


class Output:
    """Standard output, written whole and flushed line by line, so that what is piped on is there at once."""

    elements: int | None = None
    """Written so far, of an array that has begun."""

    def text(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, text: str) -> None:
        self.text(text + "\n")

    def path(self, path: str) -> None:
        """The bytes of a path and nothing else."""
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.buffer.flush()

    def document(self, value: Any) -> None:
        """One JSON document."""
        self._raw(msgspec.json.format(msgspec.json.encode(value), indent=2))

    def begin_array(self) -> None:
        """The one JSON document is an array whose elements come one by one."""
        self.elements = 0

    def element(self, value: Any) -> None:
        """On a line of its own, so that a reader has it at once."""
        begin = b"," if self.elements else b"[\n"
        # Counted first: whoever reads the line may press Ctrl-C at once, and the array is then closed by this count.
        self.elements = (self.elements or 0) + 1
        self._raw(begin + msgspec.json.encode(value))

    def end_array(self) -> None:
        """Closes the array, if one was begun."""
        if self.elements is not None:
            self._raw(b"]" if self.elements else b"[]")
            self.elements = None

    def record(self, value: Any) -> None:
        """One line of NDJSON."""
        self._raw(msgspec.json.encode(value))

    def _raw(self, data: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()


def complain(text: str) -> None:
    """A line on standard error; one that is closed or full changes no exit code."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def command(verb: str, names: Sequence[str], options: Sequence[str] = ()) -> str:
    """A command as it is typed. A name that begins with `-` would be an option without the `--` before it."""
    dashed = any(name.startswith("-") for name in names)
    return shlex.join(["modelctl", verb, *([*options, "--", *names] if dashed else [*names, *options])])


def option(name: str, value: str) -> list[str]:
    """An option with its value as they are typed."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def count(number: int, thing: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {thing if number == 1 else thing + 's'}"


def short_digest(text: str) -> str:
    """Enough of a digest to tell two apart by eye."""
    return text.removeprefix("sha256:")[:12]
