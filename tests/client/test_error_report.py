"""Each code of the wire, through a real socket: the class that both clients raise, and what `modelctl` makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modelwire import errors, replies, requests
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import Conversation, ScriptedPeer

Peer = Callable[..., ScriptedPeer]

EXITS = {
    "not_found": 3,
    "source_not_found": 3,
    "source_unauthorized": 4,
    "already_exists": 5,
    "in_use": 5,
    "digest_mismatch": 6,
    "corrupt": 6,
    "untrusted": 6,
    "queue_full": 7,
    "draining": 7,
    "no_space": 8,
    "quota_exceeded": 8,
    "source_unavailable": 10,
    "offline": 10,
    "permission_denied": 13,
    "unauthorized": 13,
    "invalid_name": 2,
    "invalid_digest": 2,
    "invalid_request": 2,
}
"""What a script may rely on; every other code is 1."""


def failing(fault: errors.WireError) -> Callable[[Conversation, Request], None]:
    return lambda talk, request: talk.fail(request, fault)


@pytest.mark.parametrize("code", errors.BY_CODE)
def test_both_clients_raise_the_class_of_the_code(peer: Peer, open_client: Callable[..., Any], code: str) -> None:
    fault = errors.BY_CODE[code]("what, which, why", hint="do this", retry_after_ms=70, details={"a": [1]})
    with open_client(peer(failing(fault)).path) as client:
        with pytest.raises(errors.BY_CODE[code]) as read:
            client.resolve("tiny")
        with pytest.raises(errors.BY_CODE[code]) as written:
            client.add("/x").result()
    for caught in (read.value, written.value):
        assert type(caught) is errors.BY_CODE[code]
        assert (caught.message, caught.hint, caught.details) == ("what, which, why", "do this", {"a": [1]})
        assert caught.retryable is errors.BY_CODE[code].retryable_by_default
        assert caught.retry_after_ms == 70


def test_a_code_of_a_newer_daemon_is_internal_and_named(peer: Peer, open_client: Callable[..., Any]) -> None:
    def newer(talk: Conversation, request: Request) -> None:
        talk.send(replies.Error(id=request.id, code="too_new", message="odd", retryable=False))

    with open_client(peer(newer).path) as client:
        with pytest.raises(errors.Internal, match=r"odd \(unknown error code 'too_new'\)"):
            client.status()


@pytest.mark.parametrize("code", errors.BY_CODE)
def test_the_command_says_what_and_what_next(peer: Peer, ctl: Ctl, code: str) -> None:
    made = peer(failing(errors.BY_CODE[code](f"the thing is {code}")))
    done = ctl("--socket", made.path, "path", "tiny")
    assert done.returncode == EXITS.get(code, 1)
    what, what_next = done.stderr.splitlines()
    assert what == f"modelctl: the thing is {code}"
    assert what_next.startswith("hint: ")
    assert len(what_next) > len("hint: ") + 8
    assert done.stdout == ""


def test_the_daemons_hint_wins_and_json_has_it_all(peer: Peer, ctl: Ctl) -> None:
    fault = errors.QueueFull("64 jobs wait", hint="come back", retry_after_ms=250, details={"depth": 64})
    made = peer(failing(fault))
    done = ctl("add", ctl.file("f", b"x"), "--json", "--socket", made.path)
    assert done.returncode == 7
    assert done.stderr == "modelctl: 64 jobs wait\nhint: come back\n"
    assert json.loads(done.stdout) == {
        "error": {
            "code": "queue_full",
            "message": "64 jobs wait",
            "hint": "come back",
            "retryable": True,
            "retry_after_ms": 250,
            "details": {"depth": 64},
        }
    }


def test_a_message_cannot_play_with_the_terminal(peer: Peer, ctl: Ctl) -> None:
    made = peer(failing(errors.NotFound("no\x1b[2J\nmodel", hint="a\rb")))
    done = ctl("show", "x", "--socket", made.path)
    assert done.stderr == "modelctl: no\\x1b[2J\\x0amodel\nhint: a\\x0db\n"


def test_a_daemon_that_dies_is_one_more_sentence(peer: Peer, ctl: Ctl) -> None:
    made = peer(lambda talk, request: talk.hang_up())
    done = ctl("status", "--socket", made.path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"modelctl: the daemon at {made.path} went away before it answered daemon.status\nhint: "
    )


def test_a_priority_beyond_the_range_is_a_usage_error(ctl: Ctl) -> None:
    done = ctl("add", "x", "--priority", "9")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


def test_usage_errors_are_json_too(ctl: Ctl) -> None:
    done = ctl("--json", "lst")
    assert done.returncode == 2
    assert (
        done.stderr
        == "modelctl: there is no verb 'lst'\nhint: Did you mean list? See `modelctl --help` for all verbs.\n"
    )
    assert json.loads(done.stdout)["error"]["code"] == "invalid_request"


def test_the_request_is_what_the_arguments_say(peer: Peer, ctl: Ctl) -> None:
    made = peer(failing(errors.Cancelled("enough")))
    ctl("--socket", made.path, "add", "some/file", "--name", "n", "--sha256", "ab", "--replace", "--license", "mit")
    assert made.requests == [
        requests.ModelAdd(id="1", path=str(ctl.room / "some/file"), name="n", sha256="ab", replace=True, license="mit")
    ]
