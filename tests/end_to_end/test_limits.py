"""The limits that keep the daemon up, each at its number and one beyond, at the socket of a real daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from rigs.real_daemon import RealDaemon, Start, Wire
from rigs.rough_peers import everything_until_close, exchange, incidents, line, status
from rigs.waiting import wait_until

# -- half a request


def test_half_a_request_that_stalls_is_ended_with_a_reason(start: Start) -> None:
    daemon = start(LIMITS_READ_STALL="1s")
    with daemon.connect() as idle, daemon.connect() as wire:
        wire.send(b'{"id":"1","op":"daemon.sta')
        replies = everything_until_close(wire)
        assert [reply["code"] for reply in replies] == ["timeout"]
        assert replies[0].get("id") is None
        assert "1 s" in replies[0]["message"]
        assert "newline" in replies[0]["hint"]
        assert idle.ask("daemon.status")["type"] == "result", "who has sent nothing is not in anybody's way"


def test_a_trickle_does_not_hold_a_connection_open(start: Start) -> None:
    daemon = start(LIMITS_READ_STALL="1s")
    with daemon.connect() as wire:
        sent = 0

        def one_more_byte() -> bool:
            nonlocal sent
            try:
                wire.send(b"{" if not sent else b" ")
            except (BrokenPipeError, ConnectionResetError):
                return True
            sent += 1
            return False

        wait_until(one_more_byte, 20, "the end of the trickle")
        assert [reply["code"] for reply in everything_until_close(wire)] == ["timeout"]
    assert sent > 10


def test_a_request_that_was_completed_while_the_daemon_was_stopped_is_answered(start: Start) -> None:
    """More of it than a socket holds: the rest comes when the daemon reads again."""
    daemon = start(LIMITS_READ_STALL="1s")
    whole = line("model.show", "1", name="x" * 900_000) + b"\n"
    with daemon.connect() as wire, ThreadPoolExecutor(1) as peer:
        wire.send(whole[:20])
        assert daemon.ask("daemon.status")["type"] == "result", "the half is there"
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            continued = time.monotonic() + 2.5
            sent = peer.submit(wire.send, whole[20:])
            wait_until(lambda: time.monotonic() > continued)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        sent.result(30)
        assert wire.read()["code"] == "invalid_name"


def test_a_busy_peer_whose_requests_come_in_pieces_is_not_taken_for_a_stalled_one(start: Start) -> None:
    """Each piece ends in the middle of the next request: there is always half a request, never the same one."""
    daemon = start(LIMITS_READ_STALL="1s")
    with daemon.connect() as wire:
        wire.send(line("daemon.status", "0")[:5])
        until = time.monotonic() + 2.5
        number = 0
        while time.monotonic() < until:
            wire.send(line("daemon.status", str(number))[5:] + b"\n" + line("daemon.status", str(number + 1))[:5])
            assert wire.read().get("id") == str(number)
            number += 1
        wire.send(line("daemon.status", str(number))[5:] + b"\n")
        assert wire.read()["type"] == "result"


# -- connections


def test_the_connection_after_the_last_allowed_one_is_told_and_closed(daemon: RealDaemon) -> None:
    with ExitStack() as open_ones:
        wires = [open_ones.enter_context(daemon.connect()) for _ in range(64)]
        with daemon.connect(hello=False) as refused:
            replies = everything_until_close(refused)
        assert [reply["code"] for reply in replies] == ["queue_full"]
        assert replies[0].get("id") is None
        assert "64 connections" in replies[0]["message"]
        assert replies[0]["retry_after_ms"] > 0
        assert "connections_per_peer" in replies[0]["hint"]
        assert wires[0].ask("daemon.status")["value"]["connections"] == 64
        for wire in wires:
            assert wire.ask("model.list")["type"] == "result"
        wires[5].close()
        wait_until(lambda: wires[0].ask("daemon.status")["value"]["connections"] == 63)
        with daemon.connect() as allowed:
            assert allowed.ask("daemon.status")["type"] == "result"
    assert [event["event"] for event in daemon.activity()].count("peer.refused") == 1


def test_a_daemon_out_of_descriptors_goes_on_when_some_are_free_again(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_LIMITS_CONNECTIONS_PER_PEER"] = "1000"
    daemon = stopped.start(prefix=("prlimit", "--nofile=48:48"))
    path = daemon.file("a.bin", b"a")
    with ExitStack() as open_ones:
        served = open_ones.enter_context(daemon.connect())
        for _ in range(60):
            # The kernel's backlog takes them; the daemon has no descriptor for all of them.
            open_ones.enter_context(Wire(daemon.socket))
        wait_until(lambda: "no descriptor left" in daemon.log(), 20, "the daemon runs out of descriptors")
        assert served.ask("daemon.status")["type"] == "result"
        refused = served.ask("model.add", path=path, name="one")
        assert refused["type"] == "error"
        assert "Too many open files" in refused["message"]
    assert daemon.ask("model.add", path=path, name="one")["type"] == "result"
    wait_until(lambda: status(daemon)["connections"] == 1)
    assert "unforeseen" not in daemon.log()


# -- requests in flight


def test_requests_in_flight_are_counted_over_all_connections_of_a_user(start: Start) -> None:
    daemon = start(LIMITS_REQUESTS_PER_PEER="4")
    with daemon.connect() as one, daemon.connect() as two:
        for number in ("a", "b", "c"):
            one.request("events.subscribe", id=number)
        two.request("events.subscribe", id="d")
        wait_until(lambda: two.ask("daemon.status")["value"]["watchers"] == 4)
        refused = two.ask("events.subscribe", id="e")
        assert refused["code"] == "queue_full"
        assert refused["retryable"]
        assert "4 requests in flight" in refused["message"]
        assert refused["retry_after_ms"] > 0
        assert "requests_per_peer" in refused["hint"]
        assert two.ask("model.list")["type"] == "result", "reads that are answered at once never count"
        one.request("cancel", target="b", id="x")
        assert one.terminal("b")["code"] == "cancelled"
        two.request("events.subscribe", id="e")
        wait_until(lambda: two.ask("daemon.status")["value"]["watchers"] == 4)


def test_looks_never_count_however_many_are_asked_for_at_once(start: Start) -> None:
    daemon = start(LIMITS_REQUESTS_PER_PEER="1")
    asked = [line(op, f"{op}-{n}") for n in range(200) for op in ("model.list", "daemon.status", "job.list")]
    with daemon.connect() as watching, daemon.connect() as wire:
        watching.request("events.subscribe", id="takes the only place")
        wire.send(b"\n".join(asked))
        wire.end_sending()
        replies = everything_until_close(wire)
    assert {reply["type"] for reply in replies} == {"result"}
    assert [reply["id"] for reply in replies] == [json.loads(each)["id"] for each in asked], "and in order"


def test_sixty_four_requests_in_flight_and_no_more(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(b"".join(line("events.subscribe", str(number)) + b"\n" for number in range(65)))
        assert wire.until("64", "error")["code"] == "queue_full"
        assert wire.ask("daemon.status", id="s")["value"]["watchers"] == 64


# -- texts


@pytest.mark.parametrize(
    ("field", "longest"), [("path", 4095), ("license", 1024), ("token", 128)], ids=["path", "license", "token"]
)
def test_a_text_that_would_be_stored_is_bounded(daemon: RealDaemon, field: str, longest: int) -> None:
    """Each of them ends up in the ledger, the log or a manifest, and from there in everybody's lists."""
    path = daemon.file("a.bin", b"a")
    for length, fine in ((longest, True), (longest + 1, False), (900_000, False)):
        text = path.rjust(length, "/") if field == "path" else "x" * length
        fields = {"path": path, "name": "a", "replace": True} | {field: text}
        reply = daemon.ask("model.add", **fields)
        if fine:
            assert reply["type"] == "result", reply
        else:
            assert reply["code"] == "invalid_request"
            assert f"$.{field}" in reply["message"]
            assert str(longest) in reply["message"]
            assert len(reply["message"]) < 500
            assert reply["hint"]
    assert daemon.ask("job.list")["type"] == "result"


def test_a_list_that_is_too_long_for_one_reply_is_paged(daemon: RealDaemon) -> None:
    """Other tools write manifests too, and need not be brief."""
    path = daemon.file("a.bin", b"a")
    daemon.ask("model.add", path=path, name="m000")
    manifests = os.path.join(daemon.root, "manifests")
    with open(os.path.join(manifests, "m000.json"), encoding="utf-8") as file:
        manifest = file.read()
    long_license = "l" * 900_000
    for number in range(1, 13):
        grown = manifest.replace('"m000"', f'"m{number:03}"').replace('"license": null', f'"license": "{long_license}"')
        with open(os.path.join(manifests, f"m{number:03}.json"), "w", encoding="utf-8") as file:
            file.write(grown)
    seen: list[str] = []
    after = None
    with daemon.connect() as wire:
        while True:
            value = wire.ask("model.list", after=after)["value"]
            seen += [model["name"] for model in value["models"]]
            after = value["next"]
            if after is None:
                break
    assert seen == [f"m{number:03}" for number in range(13)]
    assert not incidents(daemon)


def test_requests_of_rubbish_do_not_keep_others_waiting(daemon: RealDaemon) -> None:
    """Finding out what was meant takes longer than to answer: the share of a turn is one of time."""
    with daemon.connect() as rude, daemon.connect() as polite:
        rude.send(b"".join(line("x" * 100, str(number)) + b"\n" for number in range(500)))
        assert polite.ask("daemon.status")["type"] == "result"
        replies = [rude.read() for _ in range(500)]
    assert {reply["code"] for reply in replies} == {"unknown_operation"}


def test_replies_to_one_write_come_in_the_order_asked_also_when_each_is_large(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        replies = exchange(wire, [line("daemon.describe", str(number)) for number in range(200)])
    assert [reply["id"] for reply in replies] == [str(number) for number in range(200)]


def test_a_connection_closed_just_before_makes_room_for_the_next(start: Start) -> None:
    daemon = start(LIMITS_CONNECTIONS_PER_PEER="1")
    for _ in range(200):
        with daemon.connect():  # says hello, not queue_full
            pass
