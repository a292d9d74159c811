"""The endpoint: one owner, nothing taken that is not ours, one sentence for each refusal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.listener import AlreadyServing, Endpoint, UnusableEndpoint
from modeld.listener.endpoint import _temporary_name
from modelwire.endpoint import PATH_LIMIT
from modelwire.errors import ModeldError, PermissionDenied

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
OTHER_UID = 54321


@pytest.fixture
def directory() -> Iterator[str]:
    """A short path: pytest's own are long enough to fill a socket address."""
    with tempfile.TemporaryDirectory(prefix="md-") as made:
        yield made


@pytest.fixture
def path(directory: str) -> str:
    return os.path.join(directory, "modeld.sock")


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


# --- the ordinary life of an endpoint ---


def test_serves_and_leaves_nothing_but_the_lock_file(path: str, directory: str) -> None:
    with acquired(path) as endpoint:
        assert connects(path)
        assert endpoint.still_ours()
        assert not endpoint.is_inherited
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


# --- what others did to the path ---


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
        "import sys; from modeld.listener import Endpoint\n"
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


# --- the lock file ---


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


# --- the directory ---


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
from modeld.listener import Endpoint
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


# --- the path ---


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


# --- sockets of the service manager ---


def test_an_inherited_socket_is_served_and_never_unlinked(path: str, directory: str) -> None:
    with listening(path) as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        assert endpoint.is_inherited
        assert endpoint.path == path
        assert endpoint.still_ours()
        assert endpoint.socket.getblocking() is False
        assert not endpoint.socket.get_inheritable()
        endpoint.close()
        assert connects(path)
        assert os.listdir(directory) == ["modeld.sock"]


def test_an_inherited_socket_whose_path_was_taken_away_is_noticed(path: str) -> None:
    with listening(path) as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        os.unlink(path)
        assert not endpoint.still_ours()
        endpoint.close()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses exist on Linux only")
def test_an_inherited_abstract_socket_has_no_path_to_lose() -> None:
    with listening(f"\0modeld-test-{os.getpid()}") as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        assert endpoint.path == ""
        assert endpoint.still_ours()
        endpoint.close()


def test_what_cannot_be_inherited(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        with pytest.raises(UnusableEndpoint, match="it does not listen"):
            Endpoint.inherited(os.dup(deaf.fileno()))
    with socket.socket(socket.AF_INET) as network, pytest.raises(UnusableEndpoint, match="no Unix stream socket"):
        Endpoint.inherited(os.dup(network.fileno()))
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(UnusableEndpoint, match=f"descriptor {reading} "):
        Endpoint.inherited(reading)
    os.close(reading)


# --- the race ---


def race(rounds: int, seed: int = 1) -> None:
    script = Path(__file__).with_name("endpoint_race.py")
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        run = subprocess.run(
            [sys.executable, str(script), directory, str(rounds), str(seed)],
            capture_output=True,
            text=True,
            timeout=100 + rounds,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["breaches"] == []
    assert sum(outcome["played"].values()) == rounds
    assert set(outcome["played"]) == {"absent", "stale", "live"}


def test_eight_racers_and_one_owner() -> None:
    race(30)


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_eight_racers_and_one_owner_three_hundred_times() -> None:
    race(300, seed=os.getpid())
