"""One range of a file in xet storage, read from a child process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final

from modeld.download.xet.frames import DATA, END, FAULT, HEADER, LONGEST, Fault, Order
from modeld.platform import children, polling
from modelwire.errors import SourceUnavailable, TimedOut, WireError

COMMAND: Final = (sys.executable, "-P", "-m", "modeld.download.xet.child")

INHERITED: Final = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEMROOT")
"""What an interpreter needs to find its libraries, and hf-xet to find its authorities. None of them holds a secret."""

OWN: Final = {
    "HF_XET_LOG_DEST": "/dev/null",  # else it writes a log file, with signed addresses, into the home directory
    "MALLOC_ARENA_MAX": "2",
}

Explain = Callable[[Fault, bool], WireError]
"""Makes an error of a fault of the child; the flag is True when bytes came before it."""


class XetBody:
    """See `modeld.download.source.Body`. Starting the child is cheap; its errors are raised by `readinto`."""

    partial = True

    def __init__(
        self,
        order: Order,
        environ: Mapping[str, str],
        *,
        shown: str,
        validator: str | None,
        explain: Explain,
        stall_seconds: float,
    ) -> None:
        self.start, self.end, self.total = order["start"], order["end"], order["size"]
        self.validator = validator
        self._shown = shown
        self._explain = explain
        self._stall_seconds = stall_seconds
        self._left = self.end - self.start
        self._in_frame = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a panic of hf-xet would quote addresses in our log
            bufsize=0,
            cwd="/",
            env={name: environ[name] for name in INHERITED if name in environ} | OWN,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._output = self._child.stdout.fileno()
        children.widen_pipe(self._output, LONGEST)  # it works with 64 KiB too
        try:
            with contextlib.suppress(BrokenPipeError):  # it died at once: `readinto` finds out
                self._child.stdin.write(json.dumps(order).encode() + b"\n")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def readinto(self, into: memoryview) -> int:
        if not into or self._left == 0:
            return 0
        while self._in_frame == 0:
            self._next_frame()
        got = self._read(into[: self._in_frame])
        self._in_frame -= got
        self._left -= got
        return got

    def _next_frame(self) -> None:
        header = bytearray(HEADER.size)
        self._fill(header)
        kind, length = HEADER.unpack(header)
        if kind == DATA and 0 < length <= min(LONGEST, self._left):
            self._in_frame = length
        elif kind == FAULT and length <= LONGEST:
            payload = bytearray(length)
            self._fill(payload)
            raise self._explain(json.loads(payload), self._left < self.end - self.start)
        elif kind == END:
            raise SourceUnavailable(
                f"{self._shown} ended with {self._left} bytes of the range still to come",
                details={"source": self._shown},
            )
        else:
            raise SourceUnavailable(
                f"{self._shown} gave more bytes than were asked for, or no frame at all",
                retryable=False,
                details={"source": self._shown},
            )

    def _fill(self, buffer: bytearray) -> None:
        view = memoryview(buffer)
        while view:
            view = view[self._read(view) :]

    def _read(self, into: memoryview) -> int:
        """At least one byte of the pipe."""
        if self._child is None:
            raise self._gone("was ended")
        if not polling.readable(self._output, self._stall_seconds):
            raise TimedOut(
                f"{self._shown} sent nothing within {self._stall_seconds:g} s",
                hint="Try again later.",
                details={"source": self._shown},
            )
        got = os.readv(self._output, [into])
        if got == 0:
            raise self._gone(self._how_it_ended())
        return got

    def _how_it_ended(self) -> str:
        assert self._child is not None
        try:
            code = self._child.wait(self._stall_seconds)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by signal {-code}" if code < 0 else f"ended with {code}"

    def _gone(self, how: str) -> WireError:
        return SourceUnavailable(
            f"the process that reads {self._shown} {how} with {self._left} bytes of the range still to come",
            hint="If it happens again, check whether memory is left on the machine: the process needs some 250 MB.",
            details={"source": self._shown},
        )

    def abort(self) -> None:
        """Kills the child: its end of the pipe closes, which wakes the reader."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
