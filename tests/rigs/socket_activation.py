"""A daemon started as a socket unit starts it, without a running systemd: systemd-socket-activate listens, and runs the
command at the first connection with LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES set."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

DEADLINE_SECONDS = 60.0


def tool(name: str) -> str:
    """The path of a command; without it the test is skipped, in CI failed."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextlib.contextmanager
def activated(
    command: Sequence[str], path: str, *, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`path` is listened on; the first connection becomes `command`, in the process that is given (same pid).

    The activator sees only PATH and `environ`, as a unit would; it is ended with SIGTERM.
    """
    given = {"PATH": os.environ["PATH"], **(environ or {})}
    passed = [f"--setenv={name}={value}" for name, value in given.items()]
    process = subprocess.Popen(
        [tool("systemd-socket-activate"), f"--listen={path}", "--fdname=modeld.socket", *passed, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until_listening(path, process)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)


def until_listening(path: str, process: subprocess.Popen[str]) -> None:
    """Wait for the listener without connecting to it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"systemd-socket-activate ended: {process.communicate()[1]}")
        if listens(path):
            return
        os.sched_yield()
    pytest.fail(f"nothing listens at {path}")


def listens(path: str) -> bool:
    """As the kernel says: a socket has its path before it takes connections, and connecting would start the command."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as sockets:
        # Flags 00010000 is __SO_ACCEPTCON.
        return any(line.split()[3] == "00010000" and line.rstrip().endswith(f" {path}") for line in sockets)


def connected(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_SECONDS)
    try:
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client
