"""What is said to whoever started the daemon, and what is taken from them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.observe import notify
from modeld.observe.notify import ReadyPipe, passed_sockets


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(30)
        self.environ = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[str]:
        return self.socket.recv(65536).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract addresses exist on Linux only")
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        made = Manager(f"{directory}/n" if request.param == "path" else f"@modeld-test{directory}")
        with made.socket:
            yield made


def test_what_systemd_is_told(manager: Manager) -> None:
    assert notify.ready(environ=manager.environ)
    assert manager.heard() == ["READY=1"]
    assert notify.ready("serving /srv", environ=manager.environ)
    assert manager.heard() == ["READY=1", "STATUS=serving /srv"]
    assert notify.status("3 jobs", environ=manager.environ)
    assert manager.heard() == ["STATUS=3 jobs"]
    assert notify.stopping("SIGTERM", environ=manager.environ)
    assert manager.heard() == ["STOPPING=1", "STATUS=SIGTERM"]


def test_a_status_cannot_smuggle_in_another_message(manager: Manager) -> None:
    assert notify.status("model x\nSTOPPING=1\r\n\tFDSTORE=1 \udcff", environ=manager.environ)
    assert manager.heard() == ["STATUS=model x STOPPING=1 FDSTORE=1 ?"]


def test_the_environment_of_the_process_is_the_default(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    assert notify.ready()
    assert manager.heard() == ["READY=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1", "/nowhere/at/all", "@", "/" + "x" * 200])
def test_silence_where_nobody_listens(address: str | None) -> None:
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert not notify.ready("fine", environ=environ)


def test_a_full_queue_does_not_stop_the_daemon(manager: Manager) -> None:
    for _ in range(10_000):
        if not notify.status("again", environ=manager.environ):
            break
    else:
        pytest.fail("the queue never filled")


def test_nothing_is_sent_for_an_empty_status(manager: Manager) -> None:
    assert not notify.status("", environ=manager.environ)


# --- sockets ---

PASSED = """
import json, os, sys
from modeld.observe.notify import inherited_socket, passed_sockets
os.environ["LISTEN_PID"] = os.environ.get("LISTEN_PID") or str(os.getpid())
found = passed_sockets(os.environ)
print(json.dumps({
    "found": [[each.fd, each.name, os.get_inheritable(each.fd)] for each in found],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": inherited_socket(),
}))
"""


def in_child(environ: dict[str, str], sockets: int) -> dict[str, object]:
    """Runs PASSED with so many sockets from descriptor 3 on, as systemd would."""
    made = [socket.socket(socket.AF_UNIX) for _ in range(sockets)]
    moves = "".join(f"os.dup2({each.fileno()}, {3 + place + 100});" for place, each in enumerate(made))
    moves += "".join(f"os.dup2({3 + place + 100}, {3 + place});" for place in range(sockets))
    moves += f"os.closerange({3 + sockets}, 300);"
    exec_it = f"import os, sys; {moves} os.execv(sys.executable, [sys.executable, '-c', {PASSED!r}])"
    try:
        run = subprocess.run(
            [sys.executable, "-c", exec_it],
            env={**os.environ, **environ},
            pass_fds=[each.fileno() for each in made],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    finally:
        for each in made:
            each.close()
    told: dict[str, object] = json.loads(run.stdout)
    return told


def test_takes_the_sockets_that_were_passed() -> None:
    told = in_child({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "modeld.socket:other", "LISTEN_PIDFDID": "9"}, 2)
    assert told == {"found": [[3, "modeld.socket", False], [4, "other", False]], "left": [], "again": None}


def test_takes_sockets_without_names_and_skips_what_is_not_open() -> None:
    told = in_child({"LISTEN_FDS": "3"}, 2)
    assert told["found"] == [[3, "", False], [4, "", False]]


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "x"},
        {"LISTEN_FDS": "0"},
        {"LISTEN_FDS": "-1"},
        {"LISTEN_FDS": "many"},
        {"LISTEN_FDS": "100000"},
        {"LISTEN_FDS": "9" * 30},
    ],
)
def test_takes_nothing_that_was_not_meant_for_it(environ: dict[str, str]) -> None:
    assert in_child(environ, 1) == {"found": [], "left": [], "again": None}


def test_a_stranger_to_the_service_manager_takes_nothing() -> None:
    environ: dict[str, str] = {"HOME": "/"}
    assert passed_sockets(environ) == []
    assert environ == {"HOME": "/"}


# --- the pipe of a waiting client ---


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def heard(reading: int) -> str:
    """Everything up to the end of file."""
    text = b""
    while chunk := os.read(reading, 65536):
        text += chunk
    return text.decode()


def test_the_client_reads_one_line_and_the_end(pipe: tuple[int, int]) -> None:
    told = ReadyPipe(pipe[1], environ={})
    assert not os.get_inheritable(pipe[1])
    told.ready({"socket": "/run/x", "pid": 7})
    told.error({"message": "too late"})
    told.close()
    line = heard(pipe[0])
    assert line.startswith("READY ")
    assert line.endswith("}\n")
    assert json.loads(line[6:]) == {"socket": "/run/x", "pid": 7}


def test_an_error_is_one_line_whatever_it_says(pipe: tuple[int, int]) -> None:
    ReadyPipe(pipe[1], environ={}).error({"code": "in_use", "message": "a\nb", "hint": None})
    line = heard(pipe[0])
    assert line.count("\n") == 1
    assert json.loads(line.removeprefix("ERROR ")) == {"code": "in_use", "message": "a\nb", "hint": None}


def test_saying_nothing_is_the_end_of_file(pipe: tuple[int, int]) -> None:
    ReadyPipe(pipe[1], environ={}).close()
    assert heard(pipe[0]) == ""


def test_the_variable_counts_without_a_flag_and_is_taken_away(pipe: tuple[int, int]) -> None:
    environ = {"MODELD_READY_FD": str(pipe[1])}
    ReadyPipe(environ=environ).ready({})
    assert environ == {}
    assert heard(pipe[0]) == "READY {}\n"


def test_a_client_that_left_is_no_fault_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ReadyPipe(writing, environ={}).ready({})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


def no_pipe(directory: Path) -> int:
    return os.open(directory / "file", os.O_RDWR | os.O_CREAT)


@pytest.mark.parametrize("fd", [lambda _: -1, lambda _: 1, lambda _: 2, lambda _: 100_000, lambda _: 1 << 70, no_pipe])
def test_no_line_goes_where_no_client_waits(fd: Callable[[Path], int], tmp_path: Path) -> None:
    number = fd(tmp_path)
    told = ReadyPipe(number, environ={})
    told.ready({"socket": "x"})
    told.close()
    if (tmp_path / "file").exists():
        assert (tmp_path / "file").read_bytes() == b""
        os.close(number)


@pytest.mark.parametrize("value", ["", "x", "-3", "3.5", "9" * 40])
def test_a_damaged_variable_is_ignored(value: str) -> None:
    ReadyPipe(environ={"MODELD_READY_FD": value}).ready({})
