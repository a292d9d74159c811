"""A real daemon on a private store and socket, for the time of a benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bench:
    room: str
    socket: str
    environ: dict[str, str]
    pid: int

    def file(self, name: str, size: int) -> str:
        """A file of random bytes, made once."""
        path = os.path.join(self.room, name)
        if not os.path.exists(path):
            block = os.urandom(1 << 20)
            with open(path, "wb") as file:
                for number in range(0, size, len(block)):
                    piece = number.to_bytes(8, "little") + block[8:]
                    file.write(piece[: min(len(block), size - number)])
        return path


def modelctl() -> str:
    """The command of the environment that runs the benchmark."""
    return os.path.join(os.path.dirname(sys.executable), "modelctl")


def private_environment(room: str) -> dict[str, str]:
    keep = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    environ = {name: value for name, value in os.environ.items() if name in keep}
    config = os.path.join(room, "config.toml")
    with open(config, "a", encoding="utf-8"):
        pass
    return environ | {
        "MODELD_CONFIG": config,
        "MODELS_HOME": os.path.join(room, "models"),
        "MODELD_SOCKET": os.path.join(room, "modeld.sock"),
        "MODELD_STATE_DIR": os.path.join(room, "state"),
        "MODELD_LIMITS_CONNECTIONS_PER_PEER": "512",
        "MODELD_LIMITS_REQUESTS_PER_PEER": "512",
    }


@contextmanager
def daemon(extra: Mapping[str, str] | None = None) -> Iterator[Bench]:
    room = tempfile.mkdtemp(prefix="modeld-bench-")
    environ = private_environment(room) | dict(extra or {})
    reader, writer = os.pipe()
    with open(os.path.join(room, "daemon.log"), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "modeld", "--ready-fd", str(writer)], env=environ, pass_fds=[writer], stderr=log
        )
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            word = pipe.readline()
        if not word.startswith(b"READY"):
            raise RuntimeError(f"the daemon did not start: {word.decode()}")
        yield Bench(room, environ["MODELD_SOCKET"], environ, process.pid)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(room, ignore_errors=True)
