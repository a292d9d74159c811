"""`modelctl set`: what people may write, what the command requests, and what it prints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelwire import errors, requests, values
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import JOB, STATUS, Conversation, ScriptedPeer

Peer = Callable[..., ScriptedPeer]
Run = Callable[..., subprocess.CompletedProcess[str]]


HOSTS = (
    values.HostView(host="https://a", breaker="open", since="T", next_probe_s=13.0),
    values.HostView(host="https://b", breaker="half-open", since="T", next_probe_s=0.0),
    values.HostView(host="https://c", breaker="half-open", since="T", next_probe_s=1.0, probing=True, connections=1),
    values.HostView(host="https://d", connections=16),
)


def answers(talk: Conversation, request: Request) -> None:
    match request:
        case requests.DaemonConfigure():
            change = values.Change(old=None, new=request.max_rate or None, at_start=50_000_000)
            talk.result(request, values.Configured(settings={"max_rate": change}))
        case requests.JobConfigure(job="mine"):
            settings = {"priority": values.Change(old=3, new=1), "max_rate": values.Change(old=5000, new=5000)}
            talk.result(request, values.Configured(settings=settings, lasts_until="end", job="mine"))
        case requests.JobConfigure():
            talk.fail(request, errors.NotFound(f"there is no job {request.job!r}"))
        case requests.DaemonStatus():
            view = values.TransferView(max_rate=20_000_000, max_rate_at_start=50_000_000, hosts=HOSTS)
            talk.result(request, msgspec.structs.replace(STATUS, transfer=view))
        case _:
            talk.result(request, msgspec.structs.replace(JOB, max_rate=5_000_000))


@pytest.fixture
def made(peer: Peer) -> ScriptedPeer:
    return peer(answers)


@pytest.fixture
def run(made: ScriptedPeer, ctl: Ctl) -> Run:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return ctl(*arguments, environ={"MODELD_SOCKET": made.path})

    return call


def test_a_limit_over_all_downloads(run: Run, made: ScriptedPeer) -> None:
    done = run("set", "max_rate=20MB/s")
    assert (done.returncode, done.stdout) == (0, "max_rate  20.0 MB/s (was no limit)\n")
    assert done.stderr == "modelctl: max_rate: it lasts until the daemon stops; the next one starts with 50.0 MB/s\n"
    assert run("set", "max_rate = 50MB").stderr == ""
    assert run("set", "max_rate=none").stdout == "max_rate  no limit (as before)\n"
    assert [request.max_rate for request in made.requests if isinstance(request, requests.DaemonConfigure)] == [
        20_000_000,
        50_000_000,
        0,
    ]


def test_of_one_job(run: Run, made: ScriptedPeer) -> None:
    done = run("set", "priority=1", "max_rate=5kB", "--job", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "priority  1 (was 3)\nmax_rate  5.00 kB/s (as before)\n"
    (sent,) = made.requests
    assert msgspec.structs.replace(sent, id="") == requests.JobConfigure(job="mine", priority=1, max_rate=5000)
    assert run("set", "max_rate=5kB", "--job", "other").returncode == 3


def test_for_programs(run: Run) -> None:
    printed: dict[str, Any] = json.loads(run("set", "max_rate=0", "--json").stdout)
    assert printed == {
        "settings": {"max_rate": {"old": None, "new": None, "at_start": 50_000_000}},
        "lasts_until": "stop",
        "job": None,
    }
    assert json.loads(run("set", "max_rate=0", "--events").stdout) == printed
    done = run("set", "max_rate=1MB", "-q")
    assert (done.stdout, done.stderr) == ("max_rate\n", "")


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("max_rat=20MB", "there is no setting 'max_rat' of the daemon", "Did you mean max_rate?"),
        ("transfer.max_rate=20MB", "there is no setting 'transfer.max_rate'", "Did you mean max_rate?"),
        ("colour=red", "there is no setting 'colour'", "Set one of max_rate"),
        ("max_rate", "'max_rate' is not of the form KEY=VALUE", "modelctl set max_rate=20MB/s"),
        ("max_rate=fast", "max_rate: 'fast' is not a rate", "Set one of max_rate"),
        ("max_rate=1MB max_rate=2MB", "max_rate is given twice", "once"),
        ("priority=1", "there is no setting 'priority' of the daemon", "modelctl set priority=… --job ID"),
        ("running_fetches=many", "running_fetches: 'many' is not a number of jobs", "Set one of "),
        ("running_fetches=2 --job mine", "no setting 'running_fetches' of a job", "Set it for the daemon: "),
        ("priority=9 --job mine", "priority: '9' is not a priority: 1 is the highest, 5 the lowest", "Set one of "),
        ("x=1 --job mine", "there is no setting 'x' of a job", "hint: Set one of max_rate, priority."),
        ("", "the following arguments are required: KEY=VALUE", "modelctl set --help"),
    ],
)
def test_what_cannot_be_set(run: Run, made: ScriptedPeer, line: str, says: str, hint: str) -> None:
    done = run("set", *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert says in first
    assert hint in second
    assert ("--print-config" in second) == (line == "colour=red")
    assert made.requests == []


def test_it_is_shown(run: Run) -> None:
    assert "rate limit  20.0 MB/s until the daemon stops (50.0 MB/s as configured)\n" in run("status").stdout
    assert "rate limit  5.00 MB/s\n" in run("job", "j1").stdout


def test_hosts_that_are_asked_and_that_are_left_alone_are_shown(run: Run) -> None:
    lines = [line.split(maxsplit=1)[1] for line in run("status").stdout.splitlines() if line.startswith("host ")]
    assert lines == [
        "https://a: left alone since T, asked again in 13 s",
        "https://b: left alone since T, now to be asked once by the next who needs it",
        "https://c: 1 connection, left alone since T, now being asked once by one",
        "https://d: 16 connections",
    ]
