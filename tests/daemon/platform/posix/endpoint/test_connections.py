"""Connections are handed over in the order of their coming, also after the machine had no room for one."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from modeld.platform.posix.endpoint import connections
from modeld.platform.posix.endpoint.connections import Acceptor, Connection
from modeld.platform.posix.peers import Peer
from rigs.waiting import eventually


class Listening(socket.socket):
    """Has no descriptor for the next connections when it is told so."""

    faults: list[OSError]

    def accept(self) -> tuple[socket.socket, object]:
        if self.faults:
            raise self.faults.pop()
        return super().accept()


class Door:
    def __init__(self, listening: Listening) -> None:
        self.came: list[Connection] = []
        self.starved: list[OSError] = []
        self.acceptor = Acceptor(listening, asyncio.get_running_loop(), self.came.append, self.starved.append)


@pytest.fixture
def listening(path: str) -> Iterator[Listening]:
    with Listening(socket.AF_UNIX) as made:
        made.faults = []
        made.bind(path)
        made.listen()
        yield made


@pytest.fixture
async def door(listening: Listening) -> AsyncIterator[Door]:
    made = Door(listening)
    made.acceptor.open()
    yield made
    made.acceptor.close()
    for connection in made.came:
        connection.close()


def client(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    made.settimeout(20)
    return made


async def test_who_connects_is_identified_and_may_be_refused(door: Door, path: str) -> None:
    with client(path) as other:
        await eventually(lambda: door.came)
        assert door.came[0].peer() == Peer(os.getuid(), os.getgid(), os.getpid())
        door.came[0].refuse(b"no")
        assert other.recv(100) == b"no"
        assert other.recv(100) == b""


async def test_refusing_one_that_has_left_leaves_nothing_open(door: Door, path: str) -> None:
    with client(path) as other:
        other.send(b"and gone")
    await eventually(lambda: door.came)
    with pytest.raises(BrokenPipeError):
        door.came[0].refuse(b"no")
    with pytest.raises(OSError, match="Bad file descriptor"):
        door.came[0].peer()


async def test_one_that_left_without_a_word_is_closed_and_not_handed_over(door: Door, path: str) -> None:
    door.acceptor.close()
    client(path).close()
    with client(path) as said, client(path) as ended, client(path) as waits:
        said.send(b"a request")
        said.close()
        ended.shutdown(socket.SHUT_WR)  # it may still read
        assert door.acceptor.accept() is False
        assert len(door.came) == 3
        assert waits.fileno() >= 0


async def test_the_acceptor_reports_that_more_may_wait(door: Door, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ACCEPT_BATCH", 2)
    door.acceptor.close()
    client(path).close()
    client(path).close()
    with client(path):
        assert door.acceptor.accept() is True
        assert door.came == []
        assert door.acceptor.accept() is False
        assert len(door.came) == 1


async def test_a_machine_without_descriptors_is_asked_again(
    door: Door, listening: Listening, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "RETRY_SECONDS", 0.01)
    listening.faults = [OSError(code, os.strerror(code)) for code in (errno.ENOMEM, errno.ENFILE, errno.EMFILE)]
    with client(path):
        await eventually(lambda: door.came)
    assert [error.errno for error in door.starved] == [errno.EMFILE, errno.ENFILE, errno.ENOMEM]


async def test_what_waits_is_taken_while_the_door_is_closed(door: Door, path: str) -> None:
    door.acceptor.close()
    with client(path), client(path):
        door.acceptor.accept()
        assert len(door.came) == 2


async def test_a_served_connection_reports_a_reader_that_is_gone(door: Door, path: str) -> None:
    transports: list[asyncio.BaseTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

        def eof_received(self) -> bool:
            return True

    with client(path) as other:
        await eventually(lambda: door.came)
        await door.came.pop().serve(asyncio.get_running_loop(), Protocol)
        other.shutdown(socket.SHUT_WR)
        assert not connections.reader_gone(transports[0])
    assert connections.reader_gone(transports[0])
    transports[0].close()
    await asyncio.sleep(0)
