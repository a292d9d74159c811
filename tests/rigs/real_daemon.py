"""A real daemon in a subprocess, with a room of its own, and a peer that speaks the wire by hand."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rigs.waiting import wait_until
from rigs.warm_python import DAEMON, WarmProcess, fits, start_warm

START_SECONDS = 20.0


TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Where a rig that is run as a program finds the other rigs."""


class RealDaemon:
    """Start it, talk to it, kill it, start it again: the room stays."""

    def __init__(self, room: str, environ: Mapping[str, str] | None = None) -> None:
        self.room = room
        self.socket = os.path.join(room, "modeld.sock")
        self.root = os.path.join(room, "models")
        self.state = os.path.join(room, "state")
        self.log_path = os.path.join(room, "daemon.log")
        config = os.path.join(room, "config.toml")
        with open(config, "a", encoding="utf-8"):
            pass
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        self.environ = inherited | {
            "HOME": room,
            "MODELD_CONFIG": config,
            "MODELS_HOME": self.root,
            "MODELD_SOCKET": self.socket,
            "MODELD_STATE_DIR": self.state,
            "PYTHONWARNINGS": "error",
        }
        self.environ.update(environ or {})
        self.config_path = config
        self.program: tuple[str, ...] = ("-m", "modeld")
        self.process: subprocess.Popen[bytes] | WarmProcess | None = None

    def start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> RealDaemon:
        word = self.spawn(*arguments, prefix=prefix)
        assert word.startswith("READY"), f"{word!r}\n{self.log()}"
        return self

    def spawn(self, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
        """Starts it and gives back the line with which it says how that went."""
        reader, writer = os.pipe()
        with open(self.log_path, "ab") as log:
            self.process = self._warm(arguments, writer, log.fileno()) if not prefix else None
            self.process = self.process or subprocess.Popen(
                [*prefix, sys.executable, *self.program, "--ready-fd", str(writer), *arguments],
                env=self.environ,
                pass_fds=[writer],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(writer)
        with open(reader, "rb") as pipe:
            ready, _, _ = select.select([pipe], [], [], START_SECONDS)
            return pipe.readline().decode() if ready else ""

    def _warm(self, arguments: Sequence[str], ready: int, log: int) -> WarmProcess | None:
        """None when this daemon needs a Python of its own."""
        if not fits(self.program, self.environ):
            return None
        with open(os.devnull, "rb") as nothing:
            return start_warm(
                self.program,
                ["--ready-fd", "3", *arguments],
                self.environ,
                imported=DAEMON,
                stdin=nothing.fileno(),
                stdout=log,
                stderr=log,
                passed=[ready],
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """As the kernel or an impatient person would: no last words."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def terminate(self, seconds: float = 30.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def wait(self, seconds: float = 30.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def close(self) -> None:
        self.kill()

    def log(self) -> str:
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def configure(self, text: str) -> None:
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(text)

    def connect(self, *, hello: bool = True) -> Wire:
        wire = Wire(self.socket)
        try:
            if hello:
                assert wire.read()["type"] == "hello"
        except BaseException:
            wire.close()
            raise
        return wire

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request on a connection of its own: its terminal reply."""
        with self.connect() as wire:
            return wire.ask(op, **fields)

    def activity(self) -> list[dict[str, Any]]:
        """All lines up to now. Who was answered may look before a line is written: the log has a thread of its own."""
        told = self._last_line()
        lines: list[dict[str, Any]] = []

        def written() -> bool:
            with open(os.path.join(self.state, "activity.ndjson"), encoding="utf-8") as file:
                lines[:] = [json.loads(line) for line in file if line.endswith("\n")]
            return not told or (bool(lines) and lines[-1]["seq"] >= told)

        wait_until(written, what=f"line {told} of the activity log")
        return lines

    def _last_line(self) -> int:
        """Zero for a daemon that has ended: it wrote all that it had."""
        if self.process is None or self.process.poll() is not None:
            return 0
        try:
            log = self.ask("daemon.status")["value"]["log"]
        except OSError:
            return 0
        return 0 if log["lost"] else int(log["last_seq"])

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Bytes of memory that the daemon has in use."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def file(self, name: str, content: bytes) -> str:
        path = os.path.join(self.room, name)
        with open(path, "wb") as file:
            file.write(content)
        return path


class Wire:
    """A peer without any library: lines in, lines out."""

    def __init__(self, path: str, seconds: float = 30.0) -> None:
        made = socket.socket(socket.AF_UNIX)
        try:
            # Not settimeout: a non-blocking connect to a Unix socket with a full backlog fails instead of waiting.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", math.ceil(seconds), 0))
            made.connect(path)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
            made.settimeout(seconds)
        except BaseException:
            made.close()
            raise
        self._start(made)

    @classmethod
    def over(cls, connected: socket.socket, seconds: float = 30.0) -> Wire:
        """Over a socket that somebody else has connected."""
        wire = cls.__new__(cls)
        connected.settimeout(seconds)
        wire._start(connected)
        return wire

    def _start(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = b""
        self._ids = 0

    def end_sending(self) -> None:
        """Half-closes: nothing more will be asked, replies are still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, op: str, **fields: Any) -> str:
        self._ids += 1
        number = fields.pop("id", str(self._ids))
        self.send(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
        return str(number)

    def send_with(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Sends open files with the first byte."""
        rest = data[socket.send_fds(self.socket, [data], list(descriptors)) :]
        if rest:
            self.send(rest)

    def offer(self, transfer: str, files: Mapping[str, int], **fields: Any) -> dict[str, Any]:
        """Hands over open files by their paths in the model; the reply."""
        self._ids += 1
        request = {"id": str(self._ids), "op": "files.offer", "transfer": transfer, "paths": list(files), **fields}
        self.send_with(json.dumps(request).encode() + b"\n", list(files.values()))
        return self.terminal(str(self._ids))

    def hand_over(self, path: str) -> dict[str, str]:
        """Hands over a file or a directory, opened with this process's rights; the fields of a request about it."""
        transfer, directory = f"t{self._ids}", os.path.isdir(path)
        inside = [os.path.join(where, name) for where, _, names in os.walk(path) for name in names]
        for file in inside if directory else [path]:
            name = os.path.relpath(file, path) if directory else os.path.basename(path)
            with open(file, "rb") as opened:
                offered = self.offer(transfer, {name: opened.fileno()}, directory=directory)
            assert offered["type"] == "result", offered
        return {"path": path, "transfer": transfer}

    def read(self) -> dict[str, Any]:
        """The next reply; EOFError when the daemon has closed."""
        while b"\n" not in self._buffer:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def until(self, number: str | None, *types: str) -> dict[str, Any]:
        """The first reply to this request of one of these types; others to it are passed over."""
        while True:
            reply = self.read()
            if reply.get("id") == number and reply["type"] in types:
                return reply

    def terminal(self, number: str) -> dict[str, Any]:
        return self.until(number, "result", "error")

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.terminal(self.request(op, **fields))

    def closed(self) -> bool:
        """Whether the daemon closes this connection; reads what is left."""
        try:
            while True:
                self.read()
        except EOFError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Start = Callable[..., RealDaemon]
"""Starts a daemon with the settings given by name, as the fixture `start` does."""
