"""Commands that are run with standard streams closed, as services and hooks run them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import msgspec
import pytest

from modelwire import errors, requests, values
from modelwire.requests import Request
from rigs.command import COMMAND, Ctl
from rigs.scripted_peer import RESOLVED, VIEW, Conversation, ScriptedPeer


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


Peer = Callable[..., ScriptedPeer]

CLOSED_OUTPUT = "modelctl: the output cannot be written: Bad file descriptor\nhint: Make room, or send it elsewhere.\n"


def answers(talk: Conversation, request: Request) -> None:
    match request:
        case requests.ModelList():
            talk.result(request, values.ModelList(models=(VIEW,)))
        case requests.ModelResolve(name="tiny"):
            talk.result(request, RESOLVED)
        case requests.ModelResolve():
            talk.fail(request, errors.NotFound("no such model"))
        case _:
            talk.result(request, msgspec.structs.replace(VIEW))


@pytest.fixture
def run(peer: Peer, ctl: Ctl) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    made = peer(answers)

    def call(line: str, closed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *line.split()],
            env=ctl.environ | {"MODELD_SOCKET": made.path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


@pytest.mark.parametrize("line", ["list", "list --json", "list -q", "path tiny", "path tiny --json", "version"])
def test_a_closed_output_is_an_error_and_no_traceback(
    run: Callable[[str, str], subprocess.CompletedProcess[str]], line: str
) -> None:
    done = run(line, ">&-")
    assert (done.returncode, done.stderr) == (1, CLOSED_OUTPUT)


def test_nowhere_to_complain_changes_no_exit_code(
    run: Callable[[str, str], subprocess.CompletedProcess[str]],
) -> None:
    assert run("path nope", "2>&-").returncode == 3
    assert run("nonsense", "2>&-").returncode == 2
    done = run("path tiny", "2>&- <&-")
    assert (done.returncode, done.stdout) == (0, "/srv/models/tiny\n")
    done = run("list -q", "2>&- <&-")
    assert (done.returncode, done.stdout) == (0, "tiny\n")


def test_all_of_them_closed(run: Callable[[str, str], subprocess.CompletedProcess[str]]) -> None:
    assert run("path nope", "<&- >&- 2>&-").returncode == 3
    assert run("list", "<&- >&- 2>&-").returncode == 1
