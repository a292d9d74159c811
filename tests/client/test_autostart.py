"""From no daemon to one: who starts it, how many, and what is said when it does not come.

The daemon here is a stand-in that starts as badly as a test wants; the real one is started in tests/end_to_end.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import modelclient
from modelclient import autostart, connect_or_start
from modelclient.locate import Endpoint
from modelclient.platform import posix_starting
from modelclient.platform.posix_starting import keeper
from modelwire.errors import NoDaemon
from rigs.command import Ctl
from rigs.rough_peers import FOREIGN_UID, needs_root
from rigs.waiting import wait_until


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


HERE = Path(__file__).parent


@pytest.fixture
def stand_in(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ctl]:
    starts = ctl.room / "starts"
    ctl.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "stand_in"), str(HERE.parent)])
    ctl.environ["STAND_IN_STARTS"] = str(starts)
    for name in ("PYTHONPATH", "STAND_IN_STARTS", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, ctl.environ[name])
    yield ctl
    for pid, _, _ in started(ctl):
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


def started(ctl: Ctl) -> list[list[str]]:
    path = ctl.room / "starts"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_cold_client_starts_a_daemon_and_gets_its_answer(stand_in: Ctl, open_client: Callable[..., Any]) -> None:
    with open_client(None) as client:
        status = client.status()
    ((pid, session, directory),) = started(stand_in)
    assert status.pid == int(pid)
    assert session != str(os.getsid(0))  # Ctrl-C in the client's terminal is not for the daemon
    assert directory == "/"


@contextmanager
def leaving(path: str, *, lets_in: bool) -> Iterator[None]:
    """A daemon that ends without a word at the first connection."""

    def serve() -> None:
        with door:
            assert select.select([door], [], [], 30)[0]
            os.unlink(path)
            if lets_in:
                door.accept()[0].close()

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(30)


@pytest.mark.parametrize("lets_in", [False, True])
def test_who_comes_as_a_daemon_ends_starts_the_next_one(
    stand_in: Ctl, open_client: Callable[..., Any], lets_in: bool
) -> None:
    path = Path(stand_in.environ["XDG_RUNTIME_DIR"]) / "modeld" / "modeld.sock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with leaving(str(path), lets_in=lets_in), open_client(None) as client:
        assert client.status().pid == int(started(stand_in)[0][0])
    assert len(started(stand_in)) == 1


def test_twenty_cold_clients_start_one_daemon(stand_in: Ctl) -> None:
    processes = [stand_in.open("status", "--json"), *(stand_in.open("start", "--json") for _ in range(20))]
    outcomes = [(process.communicate(timeout=60)[0], process.returncode) for process in processes]
    assert [code for _, code in outcomes[1:]] == [0] * 20
    assert len({json.loads(out)["pid"] for out, _ in outcomes[1:]}) == 1
    assert len(started(stand_in)) == 1


def test_clients_that_cannot_lock_still_end_with_one_daemon(stand_in: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix_starting, "_locked", lambda held: True)
    pids: list[int] = []

    def ask() -> None:
        with modelclient.Client() as client:
            pids.append(client.status().pid)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pids) == 6
    assert len(set(pids)) == 1


def test_a_stale_socket_is_no_daemon(stand_in: Ctl) -> None:
    os.makedirs(os.path.dirname(stand_in.socket), mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(stand_in.socket)
    os.unlink(stand_in.socket)
    Path(stand_in.socket).touch()
    done = stand_in("start")
    assert done.returncode == 9
    assert "is not a socket" in done.stderr
    assert started(stand_in) == []


def test_a_refusing_socket_leads_to_a_new_daemon(stand_in: Ctl) -> None:
    os.makedirs(os.path.dirname(stand_in.socket), mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(stand_in.socket)
    stand_in.environ["STAND_IN"] = "refuses"  # it would unlink first; that it is called is what counts here
    done = stand_in("start")
    assert (done.returncode, len(started(stand_in))) == (13, 1)


def test_the_daemons_own_words_and_exit_code_are_handed_on(stand_in: Ctl) -> None:
    stand_in.environ["STAND_IN"] = "refuses"
    done = stand_in("list")
    assert (done.returncode, done.stderr) == (13, "modelctl: no right to the root\nhint: chmod\n")
    assert json.loads(stand_in("list", "--json").stdout)["error"]["code"] == "permission_denied"


def test_a_daemon_that_dies_is_quoted(stand_in: Ctl) -> None:
    stand_in.environ["STAND_IN"] = "dies"
    done = stand_in("list")
    assert done.returncode == 9
    assert done.stderr == (
        "modelctl: a daemon was started and ended before it was ready: the stars are wrong\n"
        f"hint: See {stand_in.log}.\n"
    )


def test_a_daemon_that_is_slow_is_not_waited_for_for_ever(
    stand_in: Ctl, monkeypatch: pytest.MonkeyPatch, open_client: Callable[..., Any]
) -> None:
    monkeypatch.setenv("STAND_IN", "hangs")
    with pytest.raises(NoDaemon, match="not ready yet"), open_client(None, start_timeout=1.0):
        pass


def test_a_lost_race_is_waited_out(stand_in: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds the daemon's lock and does not listen yet: the words are kept, the client goes on trying."""
    os.makedirs(os.path.dirname(stand_in.socket), mode=0o700)
    held = os.open(stand_in.socket + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    answers: list[int] = []

    def ask() -> None:
        with modelclient.Client(start_timeout=30) as client:
            answers.append(client.status().pid)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: len(started(stand_in)) >= 2, 20, "a second try to start")
    os.close(held)
    thread.join(30)
    assert len(answers) == 1


def test_a_race_that_is_never_won_ends_with_the_daemons_words(stand_in: Ctl) -> None:
    endpoint = Endpoint(str(stand_in.room / "other.sock"), named=True)
    lock = os.open(endpoint.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    began = time.monotonic()
    stand_in("version")  # what one interpreter takes on this machine now: the race needs time for a few
    patience = 5.0 + 5 * (time.monotonic() - began)
    with pytest.raises(autostart.StartFailed, match="another one has it") as caught:
        autostart.start(endpoint, time.monotonic() + patience)
    os.close(lock)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("verb", ["status", "stop", "version"])
def test_some_verbs_never_start_one(stand_in: Ctl, verb: str) -> None:
    done = stand_in(verb)
    assert started(stand_in) == []
    if verb == "version":
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no daemon runs")
    else:
        assert (done.returncode, done.stdout) == (9, "")
        hint = "Start one with `modelctl start`."
        if verb == "stop":
            hint = "To stop a daemon at another endpoint, name it with --socket."
        assert done.stderr == f"modelctl: no daemon runs at {stand_in.socket}\nhint: {hint}\n"


@needs_root
@pytest.mark.parametrize("line", [["list"], ["list", "--no-start"], ["start"], ["status"]])
def test_the_endpoint_of_another_user_is_not_ours_to_start(stand_in: Ctl, line: list[str]) -> None:
    theirs = stand_in.room / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, FOREIGN_UID, FOREIGN_UID)
    path = str(theirs / "modeld.sock")
    done = stand_in(*line, environ={"MODELD_SOCKET": path})
    assert (done.returncode, started(stand_in)) == (9, [])
    who = keeper(path)
    assert who is not None
    assert who.startswith(f"uid {FOREIGN_UID}")
    assert done.stderr.splitlines() == [
        f"modelctl: no daemon runs at {path}, whose directory belongs to {who}",
        f"hint: Ask {who} to start it, or use a daemon of your own with another --socket or MODELD_SOCKET.",
    ]
    assert json.loads(stand_in(*line, "--json", environ={"MODELD_SOCKET": path}).stdout)["error"]["code"] == "no_daemon"


def test_who_can_start_a_daemon_is_named(room: Path) -> None:
    assert keeper(str(room / "x.sock")) is None
    assert keeper(str(room / "none" / "x.sock")) is None
    assert keeper("/tmp/x.sock") is None


def test_no_start_is_kept_to(stand_in: Ctl, open_client: Callable[..., Any]) -> None:
    assert stand_in("--no-start", "list").returncode == 9
    with pytest.raises(NoDaemon, match="no daemon runs"), open_client(None, start=False):
        pass
    assert started(stand_in) == []


def test_the_system_service_is_not_ours_to_start(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(str(room / "system.sock"), system=True)
    monkeypatch.setattr(connect_or_start, "find", lambda argument: endpoint)
    # The user who runs the tests may have a daemon.
    monkeypatch.setenv("MODELS_HOME", str(room / "models"))
    with pytest.raises(NoDaemon, match="system service does not answer") as caught:
        connect_or_start.connect_or_start()
    assert "systemctl" in (caught.value.hint or "")


CLIENT_ONLY = (
    # Found before the real ones, and found missing: an entry of None in sys.modules is how an import is forbidden.
    "import importlib.util as u, sys; find = u.find_spec\n"
    "u.find_spec = lambda name, *rest: None if name == 'structlog' else find(name, *rest)\n"
    "import modelclient.{0} as home; sys.exit(home.main())"
)


def test_a_client_without_the_daemons_packages_says_what_to_install(stand_in: Ctl) -> None:
    stand_in.environ["PATH"] = os.defpath  # an installation that is active here is not the client's
    wanted = "this installation lacks structlog\n"
    for module, arguments, word in (("ctl.fast_path", ["list"], "hint"), ("daemon_entry", [], "modeld")):
        done = subprocess.run(
            [sys.executable, "-c", CLIENT_ONLY.format(module), *arguments],
            env=stand_in.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 9
        what, what_next = done.stderr.splitlines(keepends=True)
        assert what.endswith(wanted)
        assert what_next.startswith(f"{word}: ")
        assert what_next.endswith("`pip install 'modeld[daemon]'`.\n")
    assert started(stand_in) == []


def test_a_client_without_the_daemons_packages_starts_the_modeld_on_path(stand_in: Ctl) -> None:
    """But neither the script of its own installation nor one in a relative directory."""
    for directory in ("bin", "here"):
        script = stand_in.room / directory / "modeld"
        script.parent.mkdir()
        script.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m modeld "$@"\n' if directory == "bin" else "#!/bin/false\n"
        )
        script.chmod(0o755)
    own = os.path.dirname(sys.executable)
    environ = {"PATH": os.pathsep.join(["here", own, str(stand_in.room / "bin"), stand_in.environ["PATH"]])}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT_ONLY.format("ctl.fast_path"), "start", "--json"],
        env=stand_in.environ | environ,
        cwd=stand_in.room,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(done.stdout)["pid"]] == [int(pid) for pid, _, _ in started(stand_in)]


def test_a_client_without_a_home_keeps_the_daemons_words_in_the_store(stand_in: Ctl) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        del stand_in.environ[name]
    stand_in.environ |= {"MODELS_HOME": str(stand_in.room / "store"), "STAND_IN": "dies"}
    assert "the stars are wrong" in stand_in("list").stderr
    kept = stand_in.room / "store" / ".modeld" / "state" / "daemon.log"
    assert kept.read_text() == "something\nthe stars are wrong\n"


def test_a_place_without_rights_leaves_the_daemon_to_say_it(stand_in: Ctl) -> None:
    stand_in.environ["STAND_IN"] = "refuses"
    done = stand_in("start", "--socket", "/proc/nowhere/x.sock")
    assert (done.returncode, len(started(stand_in))) == (13, 1)


def test_the_daemons_standard_error_is_set_aside_when_it_has_grown(
    stand_in: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.log.parent.mkdir(parents=True)
    stand_in.log.write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    stand_in.environ["STAND_IN"] = "dies"
    assert "the stars are wrong" in stand_in("list").stderr
    assert stand_in.log.read_text() == "something\nthe stars are wrong\n"
    assert (stand_in.log.parent / "daemon.log.1").stat().st_size == 4 * 1024 * 1024 + 1


@pytest.mark.parametrize("said_by", ["variable", "configuration"])
def test_the_daemons_standard_error_is_kept_beside_its_state(stand_in: Ctl, said_by: str) -> None:
    state = stand_in.room / "elsewhere"
    stand_in.environ["STAND_IN"] = "dies"
    if said_by == "variable":
        stand_in.environ["MODELD_STATE_DIR"] = str(state)
    else:
        stand_in.environ["MODELD_CONFIG"] = stand_in.file("config.toml", b'state_dir = "%s"\n' % str(state).encode())
    assert "the stars are wrong" in stand_in("list").stderr
    assert (state / "daemon.log").read_text() == "something\nthe stars are wrong\n"
    assert not stand_in.log.parent.exists()


def test_a_relative_state_directory_is_left_to_the_daemon_to_refuse(stand_in: Ctl) -> None:
    stand_in.environ |= {"STAND_IN": "refuses", "MODELD_STATE_DIR": "state-of-none"}
    assert (stand_in("list").returncode, len(started(stand_in))) == (13, 1)
    assert not (stand_in.room / "state-of-none").exists()
