"""A path of a peer is opened only when it means the same to this process: same mounts, same root, surely that peer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modeld.platform import clock
from modeld.platform.posix.endpoint import peer_files
from modeld.platform.posix.endpoint.peer_files import sees_same_files
from rigs.rough_peers import needs_root

_CONNECT = """
import os, socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
if "chroot" in sys.argv:
    os.chroot("/usr")
print("connected", flush=True)
if "ends" not in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture(params=["pidfd", "number"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the descriptor of the peer's process, and without it as before Linux 6.5."""
    if request.param == "number":
        monkeypatch.setattr(peer_files, "_SO_PEERPIDFD", 9999)


@contextlib.contextmanager
def peer(tmp_path: Path, *arguments: str, prefix: Sequence[str] = ()) -> Iterator[tuple[socket.socket, float]]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        listening.settimeout(20)
        with subprocess.Popen(
            [*prefix, sys.executable, "-c", _CONNECT, str(tmp_path / "s"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            connected, _ = listening.accept()
            accepted = clock.elapsed()
            assert process.stdout is not None
            assert process.stdout.readline() == b"connected\n"
            with connected:
                if "ends" in arguments:
                    process.wait(20)
                yield connected, accepted
            process.communicate(timeout=20)


def test_a_process_of_the_same_mounts(tmp_path: Path, kernel: None) -> None:
    with peer(tmp_path) as (connected, accepted):
        assert sees_same_files(connected, accepted)


@needs_root
@pytest.mark.parametrize("what", ["--mount", "--pid"])
def test_a_process_of_other_mounts_or_numbers(tmp_path: Path, kernel: None, what: str) -> None:
    """Of another pid namespace the peer alone counts: its mounts are looked at by the number that it has here."""
    prefix = ["unshare", what, *(["--fork"] if what == "--pid" else [])]
    with peer(tmp_path, prefix=prefix) as (connected, accepted):
        assert sees_same_files(connected, accepted) is (what == "--pid")


@needs_root
def test_a_process_of_another_root(tmp_path: Path, kernel: None) -> None:
    """By chroot, which leaves the mounts as they are."""
    with peer(tmp_path, "chroot") as (connected, accepted):
        assert not sees_same_files(connected, accepted)


def test_a_process_that_has_ended(tmp_path: Path, kernel: None) -> None:
    with peer(tmp_path, "ends") as (connected, accepted):
        assert not sees_same_files(connected, accepted)


def test_another_process_with_the_number_of_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the number is known: one that began after the connection is not the peer."""
    monkeypatch.setattr(peer_files, "_SO_PEERPIDFD", 9999)
    with peer(tmp_path) as (connected, accepted):
        assert not sees_same_files(connected, accepted - time.monotonic())


def test_a_process_that_may_not_be_looked_at(tmp_path: Path, kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "denied")

    with peer(tmp_path) as (connected, accepted):
        monkeypatch.setattr(os, "readlink", refuse)
        assert not sees_same_files(connected, accepted)


def test_a_process_out_of_descriptors_does_not_judge(
    tmp_path: Path, kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with peer(tmp_path) as (connected, accepted):
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with pytest.raises(OSError, match="Too many"):
                sees_same_files(connected, accepted)
        assert sees_same_files(connected, accepted)


def test_a_socket_without_a_process(kernel: None) -> None:
    with socket.socket(socket.AF_UNIX) as alone:
        assert not sees_same_files(alone, clock.elapsed())
