"""`modelctl` in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-c", "import sys; from modelclient.ctl.fast_path import main; sys.exit(main())")


class Ctl:
    """`ctl("list", "--json")` runs to the end; `ctl.open(...)` gives the process."""

    def __init__(self, room: Path) -> None:
        self.room = room
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
