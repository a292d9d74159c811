"""What stops the work of a verb and what does not: Ctrl-C, a second one, `--detach`, leaving an attachment."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelwire import errors, requests, values
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import ADDED, JOB, Conversation, ScriptedPeer

Peer = Callable[..., ScriptedPeer]


def as_now(**changes: Any) -> values.JobView:
    return msgspec.structs.replace(JOB, **changes)


def held(talk: Conversation, request: Request) -> None:
    """Work that ends only when it is cancelled."""
    if isinstance(request, requests.Cancel):
        target = talk.wire.open[request.target]
        talk.result(request, values.Done(target=request.target))
        talk.fail(target, errors.Cancelled("as asked"))
    elif isinstance(request, requests.JobShow):
        talk.result(request, as_now(state="cancelled"))
    else:
        talk.accepted(request)
        talk.progress(request)


def test_ctrl_c_stops_the_work_and_says_how_to_go_on(peer: Peer, ctl: Ctl) -> None:
    made = peer(held)
    with ctl.open("add", "some file", "--name", "n", "--socket", made.path) as process:
        made.saw(requests.ModelAdd)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "modelctl: interrupted: job j1 was stopped, and n was not added\n"
        "hint: To go on, run `modelctl add 'some file' --name n` again.\n"
    )
    assert isinstance(made.requests[1], requests.Cancel)


@pytest.mark.parametrize("line", ["add f", "pull hf:a/b"])
def test_ctrl_c_before_the_daemon_has_answered_names_no_job(peer: Peer, ctl: Ctl, line: str) -> None:
    def late(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            talk.fail(talk.wire.open[request.target], errors.Cancelled("as asked"))

    made = peer(late)
    with ctl.open(*line.split(), "--socket", made.path) as process:
        made.saw(requests.ModelAdd if line == "add f" else requests.ModelPull)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("modelctl: interrupted: the request was taken back")


FOLLOW = "hint: Follow it with `modelctl attach j1`, or end it with `modelctl cancel j1`.\n"
SEE = "hint: See `modelctl job j1`.\n"


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ([{"state": "running", "watchers": 1}], "job j1, which another client wants, goes on\n" + FOLLOW),
        (
            [{"state": "running", "watchers": 1, "on_disconnect": "continue"}],
            "job j1, which waits for no client, goes on\n" + FOLLOW,
        ),
        ([{"state": "queued", "on_disconnect": "continue"}], "job j1, which waits for no client, goes on\n" + FOLLOW),
        (
            [{"state": "paused", "on_disconnect": "continue"}],
            "job j1, which waits for no client, stays paused\n"
            "hint: Go on with it with `modelctl resume j1`, or end it with `modelctl cancel j1`.\n",
        ),
        ([{"state": "running"}], "job j1 is being stopped\n" + SEE),
        ([{"state": "done"}], "job j1 had ended before that\n" + SEE),
        ([], "nothing is known of what became of job j1\n" + SEE),
        (
            [{"state": "running"}, {"state": "running", "watchers": 1}, {"state": "cancelled"}],
            "job j1 was stopped; what has arrived is kept\n"
            "hint: To go on from there, run `modelctl pull hf:a/b` again.\n",
        ),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_ctrl_c_says_what_became_of_the_job(
    peer: Peer, ctl: Ctl, views: list[dict[str, Any]], words: str, joined: bool
) -> None:
    coming = list(views)

    def shared(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            talk.fail(talk.wire.open[request.target], errors.Cancelled("the request was cancelled by its client"))
        elif isinstance(request, requests.JobShow):
            if coming:
                talk.result(request, as_now(**(coming.pop(0) if len(coming) > 1 else coming[0])))
        else:
            talk.accepted(request, joined=joined)
            talk.progress(request)

    made = peer(shared)
    with ctl.open("pull", "hf:a/b", "--events", "--socket", made.path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, f"modelctl: interrupted: {words}")


def test_a_second_ctrl_c_does_not_wait(peer: Peer, ctl: Ctl) -> None:
    def deaf(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            talk.accepted(request)

    made = peer(deaf)
    with ctl.open("add", "f", "--socket", made.path) as process:
        made.saw(requests.ModelAdd)
        process.send_signal(signal.SIGINT)
        made.saw(requests.Cancel)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_work_that_ended_first_is_reported_as_done(peer: Peer, ctl: Ctl) -> None:
    def too_late(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            target = talk.wire.open[request.target]
            talk.result(target, ADDED)
        else:
            talk.accepted(request)

    made = peer(too_late)
    with ctl.open("add", "f", "-q", "--socket", made.path) as process:
        made.saw(requests.ModelAdd)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "tiny\n")


def test_detached_work_prints_its_job(peer: Peer, ctl: Ctl) -> None:
    made = peer(held)
    done = ctl("add", "f", "--detach", "--socket", made.path)
    assert (done.returncode, done.stdout) == (0, "j1\n")
    assert json.loads(ctl("add", "f", "--detach", "--json", "--socket", made.path).stdout) == {
        "job": "j1",
        "position": 0,
        "joined": False,
    }
    assert {getattr(request, "on_disconnect", None) for request in made.requests} == {"continue"}


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (
            "model.pull",
            "Run the `modelctl pull` that asked for it again. It goes on from what has arrived, which is kept.",
        ),
        ("model.add", "Run the `modelctl add` that asked for it again."),
    ],
)
def test_an_attachment_to_a_cancelled_job_says_what_to_ask_for(peer: Peer, ctl: Ctl, kind: str, hint: str) -> None:
    ended = as_now(state="cancelled", kind=kind, error=values.Failure(code="cancelled", message="cancelled by uid 5"))
    made = peer(lambda talk, request: talk.result(request, ended))
    done = ctl("attach", "j1", "--socket", made.path)
    assert (done.returncode, done.stderr) == (1, f"modelctl: cancelled by uid 5\nhint: {hint}\n")


def test_leaving_an_attachment_does_not_cancel_its_job(peer: Peer, ctl: Ctl) -> None:
    made = peer(held)
    with ctl.open("attach", "j1", "--socket", made.path) as process:
        made.saw(requests.JobAttach)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "modelctl: left job j1, which goes on without you\n" in err
    assert not any(isinstance(request, requests.Cancel | requests.JobCancel) for request in made.requests)
