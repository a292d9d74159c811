"""What the kernel takes in ahead of a reader that is held back has been sent all the same."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable

import pytest

from modeld.download.http.body import _BUFFER_LOCK, _LOCK_RECEIVING, HttpBody
from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo, Narrowable
from rigs.metered_server import metered
from rigs.waiting import wait_until

MIB = 1 << 20
WINDOW = 64 * 1024
SIZE = 1 << 34
"""More than is read here."""


def _has_buffer_lock() -> bool:
    major, minor = platform.release().split(".")[:2]
    return platform.system() == "Linux" and (int(major), int(minor)) >= (5, 14)


@pytest.mark.skipif(not _has_buffer_lock(), reason="Linux has it, from 5.14 on")
def test_a_narrow_window_holds_however_much_is_read_and_opens_again() -> None:
    piece = memoryview(bytearray(MIB))
    read = 0
    with metered(SIZE) as server:
        client = HttpClient(environ={})
        body = client.open_range(f"{server.url}/m", FileInfo(path="m", locator="", size=SIZE), 0, None, None)
        try:
            assert isinstance(body, Narrowable)
            assert isinstance(body, HttpBody)
            body.narrow(WINDOW)
            while read < 32 * MIB:
                read += body.readinto(piece)
            ahead = settled(server.sent) - read
            assert ahead <= 8 * WINDOW
            assert kept_small(body)
            body.narrow(None)
            assert not kept_small(body), "the kernel may grow it again"
            while read < 64 * MIB:
                read += body.readinto(piece)
        finally:
            body.close()
            client.close()


def kept_small(body: HttpBody) -> bool:
    return bool(body._sock.getsockopt(socket.SOL_SOCKET, _BUFFER_LOCK) & _LOCK_RECEIVING)


def settled(sent: Callable[[], int]) -> int:
    """Once the server has given nothing more away for a tenth of a second."""
    last, since = sent(), time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        if (now := sent()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= 0.1

    wait_until(quiet, what="the end of its sending")
    return last
