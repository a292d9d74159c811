"""What keeps a daemon from starting is said in one line, at once, to everybody who waits for it, and leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import needs_root

SECONDS = 20.0
"""It takes a quarter of one on a quiet machine, and has taken five on a busy one: this is for a start that hangs."""

NO_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
"""Root without its capabilities obeys the modes of files as anybody does."""


@dataclass(frozen=True)
class Refusal:
    exit_code: int
    lines: list[str]
    """Of standard error, without the log's own."""
    ready: str
    seconds: float

    @property
    def reason(self) -> str:
        return self.lines[0]


def refusal(daemon: RealDaemon, *arguments: str, prefix: tuple[str, ...] = ()) -> Refusal:
    before = len(daemon.log()) if os.path.exists(daemon.log_path) else 0
    began = time.monotonic()
    ready = daemon.spawn(*arguments, prefix=prefix)
    exit_code = daemon.wait(SECONDS)
    seconds = time.monotonic() - began
    lines = [line for line in daemon.log()[before:].splitlines() if line and not line.startswith("{")]
    return Refusal(exit_code, lines, ready, seconds)


def assert_refused(refused: Refusal, exit_code: int, *words: str) -> None:
    """One line of what, which and why; at most one more of what to do; and the same words for who waits on the pipe."""
    assert refused.exit_code == exit_code, refused
    assert 1 <= len(refused.lines) <= 2, refused
    assert refused.reason.startswith("modeld: ")
    for word in words:
        assert word in refused.reason, refused
    assert refused.seconds < SECONDS
    kind, _, facts = refused.ready.partition(" ")
    assert kind == "ERROR", refused
    said = json.loads(facts)
    assert f"modeld: {said['message']}" == refused.reason
    assert (said.get("hint") or "") == "".join(refused.lines[1:]).strip()


def assert_nothing_is_left(daemon: RealDaemon) -> None:
    """No endpoint, no temporary of one, no lock that is held: the same daemon starts once the reason is gone."""
    directory = os.path.dirname(daemon.socket)
    left = [name for name in os.listdir(directory) if name.startswith(".modeld")] if os.path.isdir(directory) else []
    assert left == []
    assert not (os.path.lexists(daemon.socket) and stat.S_ISSOCK(os.lstat(daemon.socket).st_mode))


def a_file(path: str) -> None:
    Path(path).write_text("mine", encoding="ascii")


def a_fifo(path: str) -> None:
    os.mkfifo(path)


def a_directory(path: str) -> None:
    os.mkdir(path)


def a_dangling_link(path: str) -> None:
    os.symlink(f"{path}-elsewhere", path)


def a_link_to_a_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{path}-real")
    os.symlink(f"{path}-real", path)


@pytest.mark.parametrize(
    ("occupant", "word"),
    [
        (a_file, "a regular file"),
        (a_fifo, "a FIFO"),
        (a_directory, "a directory"),
        (a_dangling_link, "a symbolic link"),
        (a_link_to_a_socket, "a symbolic link"),
    ],
)
def test_something_else_stands_at_the_endpoint(stopped: RealDaemon, occupant: Callable[[str], None], word: str) -> None:
    occupant(stopped.socket)
    before = os.lstat(stopped.socket)
    assert_refused(refusal(stopped), 1, stopped.socket, word)
    assert os.lstat(stopped.socket) == before
    os.rename(stopped.socket, f"{stopped.socket}.away")
    stopped.start()


def test_a_socket_that_somebody_else_listens_on_is_not_taken(stopped: RealDaemon) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(stopped.socket)
        other.listen()
        assert_refused(refusal(stopped), 5, stopped.socket)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(stopped.socket)


def test_the_directory_of_the_endpoint_cannot_be_written(stopped: RealDaemon, room: Path) -> None:
    closed = room / "closed"
    closed.mkdir(0o500)
    stopped.environ["MODELD_SOCKET"] = str(closed / "m.sock")
    assert_refused(refusal(stopped, prefix=NO_RIGHTS), 13, str(closed), "permission denied")
    assert os.listdir(closed) == []
    closed.chmod(0o700)


def test_others_may_write_to_the_directory_of_the_endpoint(stopped: RealDaemon, room: Path) -> None:
    wide = room / "wide"
    wide.mkdir()
    wide.chmod(0o777)
    stopped.environ["MODELD_SOCKET"] = str(wide / "m.sock")
    assert_refused(refusal(stopped), 13, str(wide))
    assert os.listdir(wide) == []


def test_the_path_of_the_endpoint_is_too_long(stopped: RealDaemon, room: Path) -> None:
    stopped.environ["MODELD_SOCKET"] = long = str(room / ("x" * 110))
    assert_refused(refusal(stopped), 1, long, "107")


def test_there_is_no_directory_for_the_endpoint(stopped: RealDaemon, room: Path) -> None:
    stopped.environ["MODELD_SOCKET"] = str(room / "no" / "where" / "m.sock")
    assert_refused(refusal(stopped), 1, str(room / "no"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socet = '/x'", ["socet"]),
        ("[limits]\nruning_bytes = 2", ["runing_bytes"]),
        ("[nonsense]\nx = 1", ["nonsense"]),
        ("[limits]\nrunning_bytes = 'many'", ["running_bytes", "many"]),
        ("[limits]\nrunning_bytes = 0", ["running_bytes"]),
        ("[store]\nmin_free = true", ["min_free"]),
        ("[daemon]\ndrain_deadline = 'soon'", ["drain_deadline", "soon"]),
        ("[access.users]\nmallory = 'god'", ["mallory", "god"]),
        ("socket = [", ["line 1"]),
        ("= 3", ["line 1"]),
        ("a = 1\na = 2", ["line 2"]),
    ],
)
def test_a_configuration_that_says_nonsense(stopped: RealDaemon, text: str, words: list[str]) -> None:
    stopped.configure(text)
    assert_refused(refusal(stopped), 2, stopped.config_path, *words)
    assert not os.path.exists(stopped.root)
    assert_nothing_is_left(stopped)


def test_a_configuration_that_is_no_text(stopped: RealDaemon) -> None:
    Path(stopped.config_path).write_bytes(b"socket = '\xff\xfe'")
    assert_refused(refusal(stopped), 2, stopped.config_path, "UTF-8")


def test_the_configuration_that_was_named_is_not_there(stopped: RealDaemon, room: Path) -> None:
    assert_refused(refusal(stopped, "--config", str(room / "none.toml")), 2, str(room / "none.toml"))


def test_a_variable_that_says_nonsense(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_LIMITS_RUNNING_BYTES"] = "lots"
    assert_refused(refusal(stopped), 2, "MODELD_LIMITS_RUNNING_BYTES", "lots")


def test_nothing_says_where_the_store_is(stopped: RealDaemon) -> None:
    for name in ("HOME", "MODELS_HOME"):
        del stopped.environ[name]
    assert_refused(refusal(stopped), 2, "")


# -- the activity log


def test_a_file_stands_where_the_log_directory_should_be(stopped: RealDaemon) -> None:
    a_file(stopped.state)
    refused = refusal(stopped)
    assert_refused(refused, refused.exit_code, stopped.state)
    assert refused.exit_code in (1, 13)
    assert_nothing_is_left(stopped)
    os.unlink(stopped.state)
    stopped.start()


@pytest.mark.parametrize("kind", [a_directory, a_dangling_link, a_fifo])
def test_the_log_is_no_file(stopped: RealDaemon, kind: Callable[[str], None]) -> None:
    os.mkdir(stopped.state)
    kind(os.path.join(stopped.state, "activity.ndjson"))
    refused = refusal(stopped)
    assert refused.exit_code in (1, 13)
    assert_refused(refused, refused.exit_code, "activity.ndjson")
    assert_nothing_is_left(stopped)


def test_the_log_directory_cannot_be_written(stopped: RealDaemon) -> None:
    os.mkdir(stopped.state, 0o500)
    assert_refused(refusal(stopped, prefix=NO_RIGHTS), 13, stopped.state)
    assert_nothing_is_left(stopped)
    os.chmod(stopped.state, 0o700)
    stopped.start()


@pytest.fixture
def small_disk(room: Path) -> Iterator[Path]:
    """A filesystem of one mebibyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    place = room / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this root may not mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def test_the_disk_of_the_log_is_full(stopped: RealDaemon, small_disk: Path) -> None:
    stopped.environ["MODELD_STATE_DIR"] = str(small_disk / "state")
    (small_disk / "state").mkdir()
    filler = fill(small_disk)
    assert_refused(refusal(stopped), 8, str(small_disk))
    assert_nothing_is_left(stopped)
    filler.unlink()
    stopped.start()


def test_the_disk_of_the_store_is_full(stopped: RealDaemon, small_disk: Path) -> None:
    """A first start needs some room, and says so. A root that cannot be made exits with 1, whatever the reason."""
    stopped.environ["MODELS_HOME"] = str(small_disk / "models")
    filler = fill(small_disk)
    refused = refusal(stopped)
    assert_refused(refused, 1, str(small_disk), "No space")
    assert "Free some space" in refused.lines[1]
    assert_nothing_is_left(stopped)
    filler.unlink()
    stopped.start()


# -- the store


def test_the_root_of_the_store_is_a_file(stopped: RealDaemon) -> None:
    a_file(stopped.root)
    assert_refused(refusal(stopped), 1, stopped.root)
    assert Path(stopped.root).read_text(encoding="ascii") == "mine"
    assert_nothing_is_left(stopped)


def test_the_root_of_the_store_is_a_dangling_link(stopped: RealDaemon) -> None:
    a_dangling_link(stopped.root)
    assert_refused(refusal(stopped), 1, stopped.root)
    assert not os.path.exists(stopped.root)
    assert_nothing_is_left(stopped)


def test_the_root_of_the_store_is_read_only(stopped: RealDaemon) -> None:
    os.mkdir(stopped.root, 0o500)
    refused = refusal(stopped, prefix=NO_RIGHTS)
    assert_refused(refused, 13, stopped.root)
    assert "permission" in " ".join(refused.lines).lower()
    assert os.listdir(stopped.root) == []
    assert_nothing_is_left(stopped)
    os.chmod(stopped.root, 0o700)
    stopped.start()


def test_the_filesystem_of_the_store_is_read_only(stopped: RealDaemon, small_disk: Path) -> None:
    stopped.environ["MODELS_HOME"] = str(small_disk / "models")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_refused(refusal(stopped), 1, str(small_disk), "Read-only")
    assert_nothing_is_left(stopped)


@pytest.mark.parametrize("part", ["manifests", ".modeld", ".modeld/staging", ".modeld/lock", ".modeld/catalog.sqlite"])
def test_a_part_of_the_store_cannot_be_read(stopped: RealDaemon, part: str) -> None:
    stopped.start()
    assert stopped.terminate() == 0
    path = os.path.join(stopped.root, part)
    os.chmod(path, 0)
    refused = refusal(stopped, prefix=NO_RIGHTS)
    os.chmod(path, 0o700)
    assert_refused(refused, 13, stopped.root)
    assert "permission" in " ".join(refused.lines).lower()
    assert_nothing_is_left(stopped)
    stopped.start()


@pytest.mark.parametrize("part", ["blobs", "manifests", "locks", ".modeld", ".modeld/staging"])
def test_a_file_stands_where_a_part_of_the_store_should_be(stopped: RealDaemon, part: str) -> None:
    path = os.path.join(stopped.root, part)
    os.makedirs(os.path.dirname(path))
    a_file(path)
    assert_refused(refusal(stopped), 1, path)
    assert_nothing_is_left(stopped)
    os.unlink(path)
    stopped.start()


def test_the_catalogue_is_a_directory(stopped: RealDaemon) -> None:
    stopped.start()
    assert stopped.terminate() == 0
    catalog = next(name for name in os.listdir(os.path.join(stopped.root, ".modeld")) if "catal" in name)
    path = os.path.join(stopped.root, ".modeld", catalog)
    for name in os.listdir(os.path.dirname(path)):
        if name.startswith(catalog):
            os.unlink(os.path.join(os.path.dirname(path), name))
    os.mkdir(path)
    stopped.start()
    aside = stopped.ask("daemon.status")["value"]["recovery"]["catalog_set_aside"]
    assert os.path.isdir(aside)


def test_the_reason_is_told_without_a_pipe_too(stopped: RealDaemon) -> None:
    a_file(stopped.socket)
    run = subprocess.run(
        [sys.executable, "-m", "modeld"], env=stopped.environ, capture_output=True, text=True, timeout=SECONDS * 4
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith(f"modeld: {stopped.socket} is a regular file")


def test_readiness_is_told_once_it_answers(stopped: RealDaemon) -> None:
    word = stopped.spawn()
    kind, _, facts = word.partition(" ")
    assert kind == "READY"
    assert json.loads(facts) == {"socket": stopped.socket, "pid": stopped.pid}
    assert stopped.ask("daemon.status")["value"]["pid"] == stopped.pid


@needs_root
@pytest.mark.parametrize("table", ['users = { "54321" = "read" }', 'groups = { "54321" = "read" }'])
def test_a_daemon_that_root_runs_serves_no_others_unless_that_is_allowed(stopped: RealDaemon, table: str) -> None:
    stopped.configure(f"[access]\n{table}\n")
    found = refusal(stopped)
    assert found.exit_code == 2
    assert "runs as root, and [access] gives other users a role" in found.reason
    assert "allow_root = true in [daemon]" in " ".join(found.lines)
    assert not os.path.exists(stopped.root), "nothing was opened"
    stopped.configure(f"[daemon]\nallow_root = true\n[access]\n{table}\n")
    stopped.start()
