"""Where no endpoint can be: one sentence for each refusal, and nothing is left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from modeld.platform.posix.endpoint import Endpoint, UnusableEndpoint
from modeld.platform.posix.endpoint.endpoint import _temporary_name
from modelwire.endpoint import PATH_LIMIT
from modelwire.errors import ModeldError, PermissionDenied
from rigs.listeners import AS_ROOT, OTHER_UID, acquired, connects, in_child, listening, stale_socket


def make_file(path: str) -> None:
    Path(path).write_text("precious")


def make_link(path: str) -> None:
    os.symlink("elsewhere", path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_file, "a regular file"),
        (os.mkdir, "a directory"),
        (os.mkfifo, "a FIFO"),
        (make_link, "a symbolic link"),
    ],
)
def test_anything_but_a_socket_is_refused_by_its_type_and_kept(
    path: str, make: Callable[[str], None], kind: str
) -> None:
    make(path)
    before = os.lstat(path)
    with pytest.raises(UnusableEndpoint) as refusal:
        Endpoint.acquire(path)
    assert refusal.value.message == f"{path} is {kind}, not a socket"
    assert refusal.value.hint
    assert os.lstat(path).st_ino == before.st_ino
    # The refusal left no lock behind.
    os.rename(path, f"{path}.away")
    with acquired(path):
        assert connects(path)


def test_a_link_to_a_live_socket_is_refused(path: str, directory: str) -> None:
    real = os.path.join(directory, "real.sock")
    with listening(real):
        os.symlink(real, path)
        with pytest.raises(UnusableEndpoint, match="a symbolic link"):
            Endpoint.acquire(path)


def test_sockets_of_killed_starts_are_swept_others_stay(path: str, directory: str) -> None:
    own, plain = (os.path.join(directory, f"{_temporary_name('modeld.sock')[:12]}{end}") for end in ("aaaa", "bbbb"))
    foreign = os.path.join(directory, _temporary_name("other.sock"))
    stale_socket(own)
    stale_socket(foreign)
    make_file(plain)
    with acquired(path):
        assert not os.path.lexists(own)
        assert os.path.lexists(foreign)
        assert os.path.lexists(plain)


@pytest.mark.parametrize(
    ("make", "kind"), [(make_link, "a symbolic link"), (os.mkdir, "a directory"), (os.mkfifo, "a FIFO")]
)
def test_a_lock_that_is_no_file_is_refused(path: str, make: Callable[[str], None], kind: str) -> None:
    make(f"{path}.lock")
    with pytest.raises(UnusableEndpoint, match=kind):
        Endpoint.acquire(path)
    assert not os.path.lexists(path)


def test_a_lock_with_a_second_name_is_refused_and_not_written(path: str, directory: str) -> None:
    precious = os.path.join(directory, "precious")
    make_file(precious)
    os.link(precious, f"{path}.lock")
    with pytest.raises(UnusableEndpoint, match="with 2 links"):
        Endpoint.acquire(path)
    assert Path(precious).read_text() == "precious"


@AS_ROOT
def test_a_lock_of_another_user_is_refused(path: str) -> None:
    make_file(f"{path}.lock")
    os.chown(f"{path}.lock", OTHER_UID, -1)
    with pytest.raises(UnusableEndpoint, match=f"a file of uid {OTHER_UID}"):
        Endpoint.acquire(path)


def test_a_linked_directory_is_refused(directory: str) -> None:
    os.mkdir(os.path.join(directory, "real"))
    os.symlink("real", os.path.join(directory, "run"))
    with pytest.raises(PermissionDenied, match="it is a symbolic link"):
        Endpoint.acquire(os.path.join(directory, "run", "modeld.sock"))
    assert os.listdir(os.path.join(directory, "real")) == []


def test_a_linked_parent_is_fine(directory: str) -> None:
    os.makedirs(os.path.join(directory, "real", "run"))
    os.symlink("real", os.path.join(directory, "link"))
    with acquired(os.path.join(directory, "link", "run", "modeld.sock")) as endpoint:
        assert endpoint.still_ours()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(directory: str, path: str, mode: int) -> None:
    os.chmod(directory, mode)
    with pytest.raises(PermissionDenied, match=f"others can write to it .mode {mode:04o}"):
        Endpoint.acquire(path)
    assert os.listdir(directory) == []


def test_a_sticky_directory_will_do(directory: str, path: str) -> None:
    os.chmod(directory, 0o1777)
    with acquired(path):
        assert connects(path)


def test_a_missing_directory_is_made_its_parents_are_not(directory: str) -> None:
    with acquired(os.path.join(directory, "run", "modeld.sock")):
        pass
    with pytest.raises(UnusableEndpoint, match=f"there is no directory {directory}/a$"):
        Endpoint.acquire(os.path.join(directory, "a", "b", "modeld.sock"))


def test_a_file_in_the_directorys_place_is_refused(directory: str) -> None:
    make_file(os.path.join(directory, "run"))
    with pytest.raises(PermissionDenied, match="it is not a directory"):
        Endpoint.acquire(os.path.join(directory, "run", "modeld.sock"))


@AS_ROOT
def test_a_directory_of_another_user_is_refused(directory: str, path: str) -> None:
    os.chown(directory, OTHER_UID, -1)
    with pytest.raises(PermissionDenied, match=f"it belongs to uid {OTHER_UID}, not to uid 0"):
        Endpoint.acquire(path)


@AS_ROOT
def test_a_socket_of_another_user_is_refused(path: str) -> None:
    stale_socket(path)
    os.chown(path, OTHER_UID, -1)
    with pytest.raises(UnusableEndpoint, match=f"a socket of uid {OTHER_UID}"):
        Endpoint.acquire(path)
    assert os.path.lexists(path)


AS_ANOTHER_USER = """
import os, sys
from modeld.platform.posix.endpoint import Endpoint
from modelwire.errors import ModeldError
os.setgroups([]); os.setgid(54321); os.setuid(54321)
try:
    endpoint = Endpoint.acquire(sys.argv[1])
except ModeldError as error:
    print(type(error).__name__, error.message, sep="|")
else:
    print("acquired", endpoint.still_ours(), sep="|")
    endpoint.close()
"""


def as_another_user(path: str) -> str:
    with in_child(AS_ANOTHER_USER, path) as child:
        return child.communicate(timeout=60)[0].strip()


@AS_ROOT
@pytest.mark.parametrize(
    ("owner", "mode", "answer"),
    [
        (0, 0o755, "PermissionDenied|cannot listen at {path}: permission denied"),
        (0, 0o1777, "acquired|True"),
        (0, 0o777, "PermissionDenied|{directory} cannot hold the endpoint: others can write to it (mode 0777)"),
        (OTHER_UID, 0o700, "acquired|True"),
        (OTHER_UID, 0o500, "PermissionDenied|cannot listen at {path}: permission denied"),
        (OTHER_UID + 1, 0o755, "PermissionDenied|{directory} cannot hold the endpoint: it belongs to uid 54322, not"),
    ],
)
def test_an_unprivileged_daemon(directory: str, owner: int, mode: int, answer: str) -> None:
    os.chmod(directory, 0o711)
    run = os.path.join(directory, "run")
    os.mkdir(run)
    os.chown(run, owner, -1)
    os.chmod(run, mode)
    path = os.path.join(run, "modeld.sock")
    assert as_another_user(path).startswith(answer.format(path=path, directory=run))
    assert not os.path.lexists(path)


def test_a_path_of_the_longest_length_works_and_one_byte_more_is_said(directory: str) -> None:
    room = PATH_LIMIT - len(directory) - 1
    longest = os.path.join(directory, "s" * room)
    with acquired(longest):
        assert connects(longest)
    with pytest.raises(UnusableEndpoint) as refusal:
        Endpoint.acquire(longest + "s")
    assert f"the endpoint takes {PATH_LIMIT + 1} bytes" in refusal.value.message
    assert refusal.value.hint


def test_bytes_are_counted_not_characters(directory: str) -> None:
    with pytest.raises(UnusableEndpoint, match="bytes"):
        Endpoint.acquire(os.path.join(directory, "ü" * (PATH_LIMIT - len(directory) - 1)))


def test_the_temporary_name_needs_room_too(directory: str) -> None:
    parent = os.path.join(directory, "d" * (PATH_LIMIT - len(directory) - 4))
    path = os.path.join(parent, "s")
    assert len(path) <= PATH_LIMIT
    with pytest.raises(UnusableEndpoint, match="the temporary name beside it takes"):
        Endpoint.acquire(path)
    assert os.listdir(directory) == []


@pytest.mark.parametrize("path", ["/", "/tmp/a\0b"])
def test_what_cannot_be_a_path(path: str) -> None:
    with pytest.raises(UnusableEndpoint, match="cannot be the path of a socket"):
        Endpoint.acquire(path)


@pytest.mark.parametrize("step", ["bind", "stat", "rename", "listen"])
def test_a_start_that_fails_half_way_leaves_nothing(
    path: str, directory: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_stat = os.stat

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    def stat_fails(target: str, **options: bool) -> os.stat_result:
        if ".modeld-" in str(target):
            fail()
        return real_stat(target, **options)

    with monkeypatch.context() as patched:
        if step == "rename":
            patched.setattr(os, "rename", fail)
        elif step == "stat":
            patched.setattr(os, "stat", stat_fails)
        else:
            patched.setattr(socket.socket, step, fail)
        with pytest.raises(ModeldError, match="Input/output error"):
            Endpoint.acquire(path)
    assert os.listdir(directory) == ["modeld.sock.lock"]
    with acquired(path):
        assert connects(path)
