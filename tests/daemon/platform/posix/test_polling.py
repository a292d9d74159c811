"""Readiness of descriptors, of which a process may have many."""

from __future__ import annotations

import os
import resource
import socket

from modeld.platform.posix.polling import hung_up, readable


def test_tells_a_closed_peer_from_one_that_ended_its_side() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert not hung_up(here)
        there.shutdown(socket.SHUT_WR)
        assert here.recv(1) == b""
        assert not hung_up(here), "it may still read"
        there.close()
        assert hung_up(here)


def test_bytes_and_the_end_are_readable_and_silence_is_not() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert not readable(here.fileno())
        assert not readable(here.fileno(), 0.01)
        there.send(b"x")
        assert readable(here.fileno(), 60)
        here.recv(1)
        there.close()
        assert readable(here.fileno(), 60)


def test_descriptors_beyond_those_that_select_takes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    reader, writer = os.pipe()
    high = 2000
    try:
        os.dup2(reader, high)
        os.close(writer)
        assert readable(high)
        os.close(high)
    finally:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
