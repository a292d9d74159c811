"""Who has connected: the kernel's word at the time of connect, and an error for every doubt."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from modeld.platform.posix.peers import Peer, _parse_xucred, identify

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        os.chmod(directory, 0o755)
        yield os.path.join(directory, "s")


def test_identifies_a_peer_of_our_own() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert identify(left) == Peer(os.getuid(), os.getgid(), os.getpid())


@AS_ROOT
def test_a_peer_is_who_it_was_when_it_connected(address: str) -> None:
    script = (
        "import os, socket, sys; os.setgroups([]); os.setgid(54322); os.setuid(54321)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        os.chmod(address, 0o666)
        listening.listen()
        listening.settimeout(60)
        with subprocess.Popen([sys.executable, "-c", script, address]) as child:
            connection, _ = listening.accept()
            with connection:
                assert identify(connection) == Peer(54321, 54322, child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux reports uid -1 here")
def test_a_socket_without_a_peer_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as lonely, pytest.raises(OSError, match="the socket has no peer"):
        identify(lonely)


def test_a_network_socket_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as client, pytest.raises(OSError, match=r".+"):
            identify(client)


@pytest.mark.parametrize("answer", [OSError(22, "Invalid argument"), b"", b"x" * 11, b"x" * 13])
def test_every_failed_look_up_is_an_error(answer: OSError | bytes) -> None:
    class Odd(socket.socket):
        def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
            if isinstance(answer, OSError):
                raise answer
            return answer

    with Odd(socket.AF_UNIX) as odd, pytest.raises(OSError, match=r".+") as refusal:
        identify(odd)
    assert "\n" not in str(refusal.value)


def xucred(version: int, uid: int, count: int, *groups: int) -> bytes:
    return struct.pack("IIh2x16I", version, uid, count, *groups, *[0] * (16 - len(groups)))


def test_reads_the_credentials_of_macos() -> None:
    assert len(xucred(0, 1, 1, 1)) == 76
    assert _parse_xucred(xucred(0, 501, 2, 20, 80)) == (501, 20)


@pytest.mark.parametrize(
    "raw", [xucred(1, 501, 1, 20), xucred(0, 501, 0), xucred(0, 501, -1, 20), xucred(0, 501, 17, 20)]
)
def test_refuses_credentials_of_macos_that_it_does_not_understand(raw: bytes) -> None:
    with pytest.raises(ValueError, match="xucred has"):
        _parse_xucred(raw)


@pytest.mark.parametrize("raw", [b"", xucred(0, 501, 1, 20)[:-1]])
def test_refuses_short_credentials_of_macos(raw: bytes) -> None:
    with pytest.raises(struct.error):
        _parse_xucred(raw)
