"""The log's writer: nobody waits for a stream that blocks, and what it could not take is counted."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from modeld.observe.line_writer import QUEUED_MAX, LineWriter, write_last
from rigs.waiting import wait_until


def lost(number: int) -> str:
    return f"lost {number}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream:
        yield reader, stream
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 1 << 20):  # lets a writer that is still blocked end
                pass
    os.close(reader)


def filled(stream: TextIO) -> int:
    """Fills the pipe; returns the number of bytes."""
    descriptor, total = stream.fileno(), 0
    os.set_blocking(descriptor, False)
    try:
        while True:
            total += os.write(descriptor, b"." * 1024)
    except BlockingIOError:
        os.set_blocking(descriptor, True)
        return total


def read_until(reader: int, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        found += os.read(reader, 1 << 16)
    return found


def test_lines_arrive_in_their_order(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer = LineWriter(stream, str.upper, lost)
    for number in range(300):
        writer.put(f"line {number}")
    assert read_until(reader, b"LINE 299\n").decode().split("\n")[:-1] == [f"LINE {n}" for n in range(300)]
    assert writer.flush(20)
    writer.close()


def test_a_stream_that_nobody_reads_delays_no_caller_and_its_losses_are_counted(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    size = filled(stream)
    writer = LineWriter(stream, str, lost)
    more = 250
    for number in range(QUEUED_MAX + more):
        writer.put(f"line {number}")
    assert not writer.flush(0.01)
    writer.close(0.01)
    os.read(reader, size)
    text = read_until(reader, b"\n").decode()
    while "lost" not in text:
        text += read_until(reader, b"\n").decode()
    lines = text.split("\n")[:-1]
    # One more than the queue has room for when the first line was in the writer's hands already.
    kept = [line for line in lines if line.startswith("line")]
    assert kept == [f"line {number}" for number in range(len(kept))]
    assert len(kept) in (QUEUED_MAX, QUEUED_MAX + 1)
    assert lines[-1] == f"lost {QUEUED_MAX + more - len(kept)}"


class Refusing(io.StringIO):
    """Refuses so many writes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def write(self, text: str) -> int:
        if self.times:
            self.times -= 1
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_lines_that_the_stream_refuses_are_counted(pipe: tuple[int, TextIO]) -> None:
    stream = Refusing(2)
    writer = LineWriter(stream, str, lost)
    for line in ("a", "b", "c"):
        writer.put(line)
        assert writer.flush(20)
    assert stream.getvalue() == "c\nlost 2\n"
    writer.close()


def test_a_line_that_cannot_be_rendered_ends_nothing() -> None:
    stream = io.StringIO()

    def render(line: str) -> str:
        if line == "bad":
            raise KeyError(line)
        return line

    writer = LineWriter(stream, render, lost)
    writer.put("bad")
    writer.put("good")
    assert writer.flush(20)
    assert stream.getvalue() == "good\nlost 1\n"
    writer.close()


def test_another_process_may_make_the_pipe_non_blocking(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    size = filled(stream)
    os.set_blocking(stream.fileno(), False)
    writer = LineWriter(stream, str, lost)
    writer.put("late")
    assert not writer.flush(0.01)
    os.read(reader, size)
    assert read_until(reader, b"late\n").endswith(b"late\n")
    assert writer.flush(20)
    writer.close()


def test_last_words_wait_only_for_a_while(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    size = filled(stream)
    write_last(stream, "the end\n", 0.01)
    os.read(reader, size)
    wait_until(lambda: b"the end\n" in os.read(reader, 100))
