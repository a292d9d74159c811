"""`modelctl` in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rigs import warm_python

COMMAND = (sys.executable, "-c", "import sys; from modelclient.ctl.fast_path import main; sys.exit(main())")


def run(
    *arguments: str, environ: Mapping[str, str], directory: str | None = None, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, and until what it has started has closed its output."""
    (out, out_writer), (err, err_writer) = os.pipe(), os.pipe()
    try:
        with open(os.devnull, "rb") as nothing:
            process = warm_python.start_warm(
                COMMAND[1:],
                arguments,
                environ,
                imported=warm_python.COMMAND,
                stdin=nothing.fileno(),
                stdout=out_writer,
                stderr=err_writer,
                directory=directory,
            )
    finally:
        os.close(out_writer)
        os.close(err_writer)
    with open(out, "rb"), open(err, "rb"):
        if process is None:
            return _run_cold(*arguments, environ=environ, directory=directory, seconds=seconds)
        written = _read_all([out, err], time.monotonic() + seconds)
        if written is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, seconds)
    said, complained = (text.decode(errors="surrogateescape") for text in written)
    return subprocess.CompletedProcess(arguments, process.wait(seconds), said, complained)


def _read_all(pipes: list[int], deadline: float) -> list[bytes] | None:
    """What is written to each; None when one is still open at the deadline."""
    found = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                found[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [found[pipe] for pipe in pipes]


def _run_cold(
    *arguments: str, environ: Mapping[str, str], directory: str | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environ,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Ctl:
    """`ctl("list", "--json")` runs to the end; `ctl.open(...)` gives the process, always with a Python of its own."""

    def __init__(self, room: Path, *, warm: bool = False) -> None:
        self.room = room
        self._warm = warm
        home, runtime = room / "home", room / "run"
        home.mkdir(exist_ok=True)
        runtime.mkdir(mode=0o700, exist_ok=True)
        self.socket = str(runtime / "modeld" / "modeld.sock")
        self.environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": str(room / "state"),
            "XDG_DATA_HOME": str(room),  # the store is in `models` below it
            "PYTHONWARNINGS": "error",
            "TERM": "xterm",
        }
        self.log = room / "state" / "modeld" / "daemon.log"

    def open(self, *arguments: str, environ: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[Any]:
        pipe = subprocess.PIPE
        options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "text": True} | options
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environ | dict(environ or {}),
            cwd=self.room,
            **options,
        )

    def __call__(
        self, *arguments: str, environ: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        if self._warm:
            whole = self.environ | dict(environ or {})
            return run(*arguments, environ=whole, directory=str(self.room), seconds=seconds)
        with self.open(*arguments, environ=environ) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def file(self, name: str, content: bytes) -> str:
        path = self.room / name
        path.write_bytes(content)
        return str(path)

    def pid(self) -> int | None:
        """The daemon that was started here, by its own word in its lock."""
        try:
            held = json.loads(Path(self.socket + ".lock").read_bytes() or b"{}")
        except (FileNotFoundError, ValueError):
            return None
        found = held.get("pid")
        return found if isinstance(found, int) else None

    def close(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
