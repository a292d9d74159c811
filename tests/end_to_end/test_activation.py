"""Under a service manager: a socket that was passed, and readiness that is told when it is true."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.socket_activation import listens
from rigs.waiting import wait_until

ACTIVATE = shutil.which("systemd-socket-activate")
HAS_ACTIVATE = pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")


class Notified:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(20)

    def next(self) -> dict[str, str]:
        lines = self._socket.recv(65536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def silent(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(65536, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(20)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notified(room: Path) -> Iterator[Notified]:
    made = Notified(str(room / "notify"))
    yield made
    made.close()


def test_readiness_is_told_when_it_answers_and_the_stop_when_it_begins(held: HeldDaemon, notified: Notified) -> None:
    held.environ["NOTIFY_SOCKET"] = notified.path
    held.start()
    ready = notified.next()
    assert ready["READY"] == "1"
    assert held.root in ready["STATUS"]
    with held.connect() as wire:
        assert wire.ask("daemon.status")["value"]["state"] == "ready"
        number = wire.request("model.add", path=held.file("a", b"GGUF weights"), name="a")
        wire.until(number, "accepted")
        assert notified.silent()
        assert held.process is not None
        held.process.terminate()
        assert notified.next()["STOPPING"] == "1"
        # Told at the beginning: what runs has its time from here.
        assert held.process.poll() is None
        held.release()
        assert wire.terminal(number)["type"] == "result"
    assert held.wait() == 0


def test_a_daemon_that_cannot_start_says_why_and_never_that_it_is_ready(
    stopped: RealDaemon, notified: Notified
) -> None:
    stopped.environ["NOTIFY_SOCKET"] = notified.path
    with open(stopped.socket, "x", encoding="ascii"):
        pass
    stopped.spawn()
    assert stopped.wait() == 1
    told = notified.next()
    assert "READY" not in told
    assert "regular file" in told["STATUS"]
    assert notified.silent()


def test_a_notify_socket_that_nobody_reads_keeps_nobody_from_serving(stopped: RealDaemon) -> None:
    stopped.environ["NOTIFY_SOCKET"] = "/nowhere/at/all"
    stopped.start()
    assert stopped.terminate() == 0


class Activated:
    """`systemd-socket-activate` listens, and becomes the daemon at the first connection."""

    def __init__(self, daemon: RealDaemon, *flags: str) -> None:
        assert ACTIVATE is not None
        self.daemon = daemon
        environ = {name: value for name, value in daemon.environ.items() if name != "MODELD_SOCKET"}
        # It passes only what it is told to.
        kept = [f"--setenv={name}={value}" for name, value in environ.items()]
        with open(daemon.log_path, "ab") as log:
            daemon.process = subprocess.Popen(
                [ACTIVATE, "-l", daemon.socket, *kept, sys.executable, "-m", "modeld", *flags],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: listens(daemon.socket), what="the socket unit")


@HAS_ACTIVATE
def test_a_socket_that_was_passed_is_served_and_stays(stopped: RealDaemon) -> None:
    Activated(stopped)
    before = os.lstat(stopped.socket)
    with stopped.connect() as wire:
        status = wire.ask("daemon.status")["value"]
        assert status["pid"] == stopped.pid
        assert status["socket"] == stopped.socket
        assert wire.ask("model.add", path=stopped.file("a", b"GGUF weights"), name="a")["type"] == "result"
    assert stopped.terminate() == 0
    # Its path belongs to the service manager, which would start the next daemon with it.
    assert os.lstat(stopped.socket).st_ino == before.st_ino
    assert not os.path.exists(f"{stopped.socket}.lock")
    os.unlink(stopped.socket)


@HAS_ACTIVATE
def test_a_daemon_that_was_activated_is_told_apart_from_a_second_for_its_store(stopped: RealDaemon, room: Path) -> None:
    Activated(stopped)
    assert stopped.ask("daemon.status")["type"] == "result"
    elsewhere = room / "2"
    elsewhere.mkdir()
    second = RealDaemon(str(elsewhere), {"MODELS_HOME": stopped.root})
    assert f"pid {stopped.pid}" in second.spawn()
    assert second.wait() == 5
    assert stopped.terminate() == 0


@HAS_ACTIVATE
def test_an_activated_daemon_goes_on_with_what_a_killed_one_left(stopped: RealDaemon) -> None:
    Activated(stopped)
    with stopped.connect() as wire:
        number = wire.request("model.add", path=stopped.file("a", b"GGUF" * 99), name="a", on_disconnect="continue")
        wire.until(number, "accepted")
        stopped.kill()
    os.unlink(stopped.socket)
    Activated(stopped)
    wait_until(lambda: stopped.ask("model.resolve", name="a")["type"] == "result")
    assert stopped.terminate() == 0


def test_a_descriptor_that_is_no_listening_socket_is_refused(stopped: RealDaemon, room: Path) -> None:
    """As if a unit passed a file: LISTEN_PID must be the daemon's own, which a shell knows before it becomes it."""
    script = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "{sys.executable}" -m modeld 3<"{stopped.config_path}"'
    run = subprocess.run(["sh", "-c", script], env=stopped.environ, capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert "cannot listen on descriptor 3" in run.stderr
    assert "Traceback" not in run.stderr


def test_sockets_for_another_process_are_not_ours(stopped: RealDaemon) -> None:
    stopped.environ |= {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    stopped.start()
    assert stopped.ask("daemon.status")["value"]["socket"] == stopped.socket
