"""The endpoint: one owner, who is named, and nothing taken that is not ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modeld.platform.posix.endpoint import AlreadyServing, Endpoint
from rigs.listeners import acquired, connects, in_child, listening, stale_socket


def test_serves_and_leaves_nothing_but_the_lock_file(path: str, directory: str) -> None:
    with acquired(path) as endpoint:
        assert connects(path)
        assert endpoint.still_ours()
        assert endpoint.socket.getblocking() is False
        assert not endpoint.socket.get_inheritable()
        assert sorted(os.listdir(directory)) == ["modeld.sock", "modeld.sock.lock"]
    assert os.listdir(directory) == ["modeld.sock.lock"]
    assert endpoint.socket.fileno() == -1


def test_can_be_taken_again_after_close_and_close_twice(path: str) -> None:
    with acquired(path) as first:
        pass
    with acquired(path):
        first.close()
        assert connects(path)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize(("shared", "mode", "directory_mode"), [(False, 0o600, 0o700), (True, 0o666, 0o755)])
def test_modes_do_not_depend_on_the_umask(
    directory: str, mask: int, shared: bool, mode: int, directory_mode: int
) -> None:
    path = os.path.join(directory, "run", "modeld.sock")
    os.chmod(directory, 0o711)
    before = os.umask(mask)
    try:
        with acquired(path, shared=shared) as endpoint:
            assert stat.S_IMODE(os.lstat(path).st_mode) == mode
            assert stat.S_IMODE(os.lstat(os.path.dirname(path)).st_mode) == directory_mode
            assert stat.S_IMODE(os.lstat(f"{path}.lock").st_mode) == 0o600
            assert endpoint.warnings == ()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_a_shared_endpoint_in_a_closed_directory_is_said(path: str, directory: str) -> None:
    os.chmod(directory, 0o700)
    with acquired(path, shared=True) as endpoint:
        assert len(endpoint.warnings) == 1
        assert directory in endpoint.warnings[0]


def test_a_shared_endpoint_below_a_private_directory_is_said(directory: str) -> None:
    """Of its own directory the mode is right."""
    above = os.path.join(directory, "private")
    os.makedirs(os.path.join(above, "between"), 0o755)
    path = os.path.join(above, "between", "run", "modeld.sock")
    os.chmod(above, 0o700)
    with acquired(path, shared=True) as endpoint:
        (warning,) = endpoint.warnings
        assert f"they cannot enter {above} (" in warning
    with acquired(path) as endpoint:
        assert endpoint.warnings == ()
    os.chmod(above, 0o710)
    with acquired(path, shared=True) as endpoint:
        assert not any(f"cannot enter {above} " in warning for warning in endpoint.warnings)


def test_the_second_is_told_who_holds_it(path: str) -> None:
    held = Endpoint.acquire(path, holder={"instance": "abc", "store": "/srv/models"})
    try:
        with pytest.raises(AlreadyServing) as refusal:
            Endpoint.acquire(path)
        assert refusal.value.message == f"{path} is already served by pid {os.getpid()} for the store /srv/models"
        assert refusal.value.code == "in_use"
        assert refusal.value.details == {
            "pid": os.getpid(),
            "endpoint": path,
            "instance": "abc",
            "store": "/srv/models",
        }
        assert connects(path)
        assert held.still_ours()
    finally:
        held.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": -1}', b'{"pid": 99999999999999999999}', b"\xff", b"x" * 100_000],
)
def test_an_unreadable_holder_is_another_process(path: str, content: bytes) -> None:
    with acquired(path):
        Path(f"{path}.lock").write_bytes(content)
        with pytest.raises(AlreadyServing, match=r"already served by another process$"):
            Endpoint.acquire(path)


def test_a_holder_that_is_dead_is_not_named(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with acquired(path):
        Path(f"{path}.lock").write_text(json.dumps({"pid": child.pid}))
        with pytest.raises(AlreadyServing, match=r"already served by another process$"):
            Endpoint.acquire(path)


def test_notices_that_the_path_is_gone_or_replaced_and_leaves_what_is_not_its_own(path: str) -> None:
    with acquired(path) as endpoint:
        os.unlink(path)
        assert not endpoint.still_ours()
        with listening(path):
            assert not endpoint.still_ours()
            endpoint.close()
            assert connects(path)


def test_a_sigkill_leaves_a_stale_socket_that_the_next_takes_at_once(path: str) -> None:
    child = in_child(
        "import sys; from modeld.platform.posix.endpoint import Endpoint\n"
        "e = Endpoint.acquire(sys.argv[1]); print('up', flush=True); sys.stdin.read()",
        path,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        with pytest.raises(AlreadyServing, match=f"pid {child.pid}"):
            Endpoint.acquire(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert not connects(path)
    with acquired(path):
        assert connects(path)


def test_takes_over_a_stale_socket(path: str) -> None:
    stale_socket(path)
    with acquired(path):
        assert connects(path)


def test_a_live_listener_without_the_lock_is_left_alone(path: str) -> None:
    with listening(path) as other:
        with pytest.raises(AlreadyServing, match="does not hold its lock"):
            Endpoint.acquire(path)
        assert connects(path)
        other.accept()[0].close()


def test_a_live_listener_with_a_full_queue_is_left_alone(path: str) -> None:
    with contextlib.ExitStack() as open_now:
        other = open_now.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(path)
        other.listen(0)
        for _ in range(16):
            client = open_now.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                break
        else:
            pytest.fail("the queue never filled")
        with pytest.raises(AlreadyServing):
            Endpoint.acquire(path)
