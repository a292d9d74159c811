"""Descriptors come with the bytes that they were sent with, and none is lost or left open unseen."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from modeld.platform.posix.endpoint.descriptors import MOST_AT_ONCE, ReceivingSocket

Pair = tuple[socket.socket, ReceivingSocket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    peer, here = socket.socketpair()
    with peer, ReceivingSocket(here) as receiving:
        receiving.setblocking(False)
        yield peer, receiving


def read(receiving: ReceivingSocket, size: int = 100) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: receiving.recv_into(memoryview(buffer))])


def close_all(receiving: ReceivingSocket) -> list[int]:
    counts = []
    while receiving.arrived:
        descriptors, _ = receiving.arrived.popleft()
        counts.append(len(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
    return counts


def test_bytes_alone_bring_nothing(pair: Pair) -> None:
    peer, receiving = pair
    peer.send(b"bytes")
    assert read(receiving) == b"bytes"
    assert not receiving.arrived


def test_a_file_arrives_with_the_first_byte_and_is_not_inherited(pair: Pair) -> None:
    peer, receiving = pair
    with open("/dev/null", "rb") as file:
        socket.send_fds(peer, [b"line\n"], [file.fileno()])
    assert read(receiving, 1) == b"l"
    ((descriptor,), lost) = receiving.arrived[0]
    assert not lost
    assert not os.get_inheritable(descriptor)
    assert read(receiving) == b"ine\n"
    assert close_all(receiving) == [1]


def test_a_read_ends_with_the_message_that_has_files(pair: Pair) -> None:
    """So at most one message of them comes with a read, and their order is that of the lines."""
    peer, receiving = pair
    with open("/dev/null", "rb") as file:
        peer.send(b"before ")
        socket.send_fds(peer, [b"one "], [file.fileno()])
        socket.send_fds(peer, [b"two "], [file.fileno()] * 2)
        peer.send(b"after")
    assert read(receiving) == b"before one "
    assert len(receiving.arrived) == 1
    assert read(receiving) + read(receiving) == b"two after"
    assert close_all(receiving) == [1, 2]


def test_more_than_fit_are_reported_as_lost(pair: Pair) -> None:
    peer, receiving = pair
    with open("/dev/null", "rb") as file:
        socket.send_fds(peer, [b"x"], [file.fileno()] * (MOST_AT_ONCE + 1))
        socket.send_fds(peer, [b"y"], [file.fileno()] * MOST_AT_ONCE)
    before = len(os.listdir("/proc/self/fd"))
    read(receiving)
    read(receiving)
    assert [arrived.lost for arrived in receiving.arrived] == [True, False]
    assert close_all(receiving) == [MOST_AT_ONCE, MOST_AT_ONCE]
    assert len(os.listdir("/proc/self/fd")) == before
