"""What goes wrong between a program and the daemon, reported the same way by both clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelwire import errors, replies, requests, values
from modelwire.encoding import encode
from modelwire.requests import Request
from rigs.scripted_peer import ADDED, STATUS, VIEW, Conversation, ScriptedPeer, good, hello_of

Peer = Callable[..., ScriptedPeer]
Open = Callable[..., Any]


def test_silence_ends_with_a_typed_timeout_and_the_connection_lives_on(peer: Peer, open_client: Open) -> None:
    held: list[Request] = []

    def first_is_late(talk: Conversation, request: Request) -> None:
        held.append(request)
        if len(held) > 1:
            talk.result(held[0], STATUS)  # the tail of what was given up
            good(talk, request)

    with open_client(peer(first_is_late).path, timeout=0.2) as client:
        with pytest.raises(errors.TimedOut, match=r"daemon\.status within 0\.2 s"):
            client.status()
        assert client.show("tiny") == VIEW


def test_waiting_for_work_can_time_out_and_go_on(peer: Peer, open_client: Open) -> None:
    opened: list[Request] = []

    def late(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            opened.append(request)
            talk.accepted(request)
        else:
            talk.result(opened[0], ADDED)
            good(talk, request)

    with open_client(peer(late).path) as client:
        adding = client.add("/x")
        with pytest.raises(errors.TimedOut):
            adding.result(timeout=0.1)
        client.status()
        assert adding.result(timeout=10) == ADDED


def test_a_silent_daemon_has_an_error_of_its_own(peer: Peer, open_client: Open) -> None:
    made = peer(good, hello=b"")
    with pytest.raises(errors.TimedOut, match="says nothing"), open_client(made.path, timeout=0.2):
        pass


def test_a_daemon_that_always_goes_away_is_not_asked_for_ever(room: Path, open_client: Open) -> None:
    path, knocks = str(room / "s"), 0

    def serve() -> None:
        nonlocal knocks
        with suppress(OSError):
            while True:
                door.accept()[0].close()
                knocks += 1

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(errors.ConnectionLost, match="went away"), open_client(path):
                pass
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join(30)
    assert knocks == 3


def test_another_protocol_is_refused_with_both_sides_named(peer: Peer, open_client: Open) -> None:
    made = peer(good, hello=encode(hello_of(protocol=replies.ProtocolRange(min=7, max=8))))
    with pytest.raises(errors.Unsupported, match="protocol 7 to 8, this client 1 to 1"), open_client(made.path):
        pass


def test_work_learns_that_the_daemon_went_away(peer: Peer, open_client: Open) -> None:
    def dies(talk: Conversation, request: Request) -> None:
        talk.accepted(request)
        talk.hang_up()

    with open_client(peer(dies).path) as client:
        adding = client.add("/x")
        with pytest.raises(errors.ConnectionLost, match=r"before it answered model\.add") as caught:
            adding.result()
        assert "modelctl job j1" in (caught.value.hint or "")
        with pytest.raises(errors.ConnectionLost):
            client.status()


def test_what_came_before_the_end_is_still_read(peer: Peer, open_client: Open) -> None:
    def last_words(talk: Conversation, request: Request) -> None:
        talk.accepted(request)
        talk.result(request, ADDED)
        talk.hang_up()

    with open_client(peer(last_words).path) as client:
        assert client.add("/x").result() == ADDED


def test_a_fault_of_the_connection_reaches_all(peer: Peer, open_client: Open) -> None:
    def dies(talk: Conversation, request: Request) -> None:
        talk.send(replies.Error.of(None, errors.FrameTooLarge("far too long")))
        talk.hang_up()

    with open_client(peer(dies).path) as client:
        with pytest.raises(errors.FrameTooLarge, match="far too long"):
            client.status()
        with pytest.raises(errors.FrameTooLarge, match="far too long"):
            client.status()


def test_a_refusal_instead_of_a_hello_is_reported(peer: Peer, open_client: Open) -> None:
    made = peer(good, hello=encode(replies.Error.of(None, errors.QueueFull("64 connections are enough"))))
    with pytest.raises(errors.QueueFull, match="are enough"), open_client(made.path):
        pass


@pytest.mark.parametrize("junk", [b"not json\n", b"[]\n", b'{"type":"result"}\n', b'{"id":5}\n', b"\xff\n"])
def test_junk_from_the_daemon_is_its_fault(peer: Peer, open_client: Open, junk: bytes) -> None:
    made = peer(lambda talk, request: talk.raw(junk))
    with open_client(made.path) as client, pytest.raises(errors.RemoteError):
        client.status()


def test_a_value_of_another_shape_is_the_daemons_fault(peer: Peer, open_client: Open) -> None:
    made = peer(lambda talk, request: talk.result(request, values.Done(state="odd")))
    with open_client(made.path) as client:
        with pytest.raises(errors.RemoteError, match="no Status"):
            client.status()
        with pytest.raises(errors.RemoteError, match="no Status"):
            client.status()  # the frame was good: the connection is


def test_a_closed_client_says_so(peer: Peer, open_client: Open) -> None:
    with open_client(peer(good).path) as client:
        client.status()
    with pytest.raises((errors.ConnectionLost, RuntimeError)):
        client.status()
