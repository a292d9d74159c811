"""Listeners of ours and of others, for tests of the endpoint."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modeld.platform.posix.endpoint import Endpoint

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
OTHER_UID = 54321


@contextlib.contextmanager
def acquired(path: str, *, shared: bool = False) -> Iterator[Endpoint]:
    endpoint = Endpoint.acquire(path, shared=shared)
    try:
        yield endpoint
    finally:
        endpoint.close()


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """A listener that knows nothing of our lock."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        yield other


def stale_socket(path: str) -> None:
    with listening(path):
        pass


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def in_child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
