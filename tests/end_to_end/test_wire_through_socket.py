"""The rules of the wire as a peer without any library meets them, at the socket of a real daemon."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import MIB, everything_until_close, exchange, held_name, line, send_unwelcome


def test_the_daemon_speaks_first(daemon: RealDaemon) -> None:
    with daemon.connect(hello=False) as wire:
        hello = wire.read()
    assert hello["type"] == "hello"
    assert hello["protocol"] == {"min": 1, "max": 1}
    assert hello["server"].startswith("modeld/")
    assert hello["store"] == daemon.root
    assert hello["max_request"] == MIB
    assert hello["max_reply"] == 8 * MIB
    assert {"core", "add", "models", "jobs", "events"} <= set(hello["capabilities"])
    assert hello["peer"] == {"uid": os.geteuid(), "gid": os.getegid(), "role": "admin"}
    assert hello["instance"] == daemon.ask("daemon.status")["value"]["instance"]
    assert "id" not in hello or hello["id"] is None


# -- frames


def test_a_request_of_exactly_the_cap_is_read(daemon: RealDaemon) -> None:
    frame = line("model.resolve", "1", name="")
    frame = line("model.resolve", "1", name="x" * (MIB - len(frame)))
    assert len(frame) == MIB
    with daemon.connect() as wire:
        wire.send(frame + b"\n")
        assert wire.read()["code"] == "invalid_name"
        assert wire.ask("daemon.status")["type"] == "result"


def test_one_byte_over_the_cap_is_one_error_and_the_end(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        send_unwelcome(wire, b"x" * (MIB + 1) + b"\n" + line("daemon.status", "after") + b"\n")
        replies = everything_until_close(wire)
    assert [reply.get("code") for reply in replies] == ["frame_too_large"]
    assert replies[0].get("id") is None
    assert str(MIB) in replies[0]["message"]
    assert replies[0]["details"] == {"max_request": MIB}


def test_the_cap_holds_while_the_bytes_arrive(daemon: RealDaemon) -> None:
    """A line that never ends is not waited for."""
    with daemon.connect() as wire:
        send_unwelcome(wire, b'{"id":"1","op":"model.resolve","name":"' + b"x" * (3 * MIB))
        assert [reply["code"] for reply in everything_until_close(wire)] == ["frame_too_large"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1",
        b'{"id":"1","op":"daemon.status"',
        b'{"id":"1","op":"daemon.status"} {"id":"2","op":"daemon.status"}',
        b'{"id":"1","op":"daemon.status","x":NaN}',
        b'{"id":"1","op":"model.resolve","name":"\xff"}',
        b'{"id":"1","op":"model.resolve","name":"\xed\xa0\x80"}',
        b"\x00",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"'id'",
    ],
    ids=["http", "unclosed", "two", "nan", "latin1", "surrogate-bytes", "nul", "bom", "deep", "quotes"],
)
def test_what_is_not_json_in_utf8_is_one_error_and_the_end(daemon: RealDaemon, rubbish: bytes) -> None:
    with daemon.connect() as wire:
        send_unwelcome(wire, rubbish + b"\n" + line("daemon.status", "after") + b"\n")
        replies = everything_until_close(wire)
    assert [reply.get("code") for reply in replies] == ["invalid_request"]
    assert replies[0].get("id") is None
    assert "closed" in replies[0]["hint"]


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        ({"id": "7", "op": "model.resolv", "name": "x"}, "unknown_operation", "model.resolv"),
        ({"id": "7", "op": "model.resolve"}, "invalid_request", "$.name"),
        ({"id": "7", "op": "model.resolve", "name": 3}, "invalid_request", "$.name"),
        ({"id": "7", "op": "model.resolve", "name": None}, "invalid_request", "$.name"),
        ({"id": "7", "op": "model.resolve", "name": "x", "color": "red"}, "invalid_request", "$.color"),
        ({"id": "7", "op": "model.add", "path": "/x", "priority": "high"}, "invalid_request", "$.priority"),
        ({"id": "7", "op": "model.add", "path": "/x", "priority": 1e400}, "invalid_request", "$.priority"),
        ({"id": "7", "op": "model.add", "path": "/x", "on_disconnect": "maybe"}, "invalid_request", "$.on_disconnect"),
        ({"id": "7", "op": "job.list", "limit": -1}, "invalid_request", "$.limit"),
        ({"id": "7", "op": 12}, "invalid_request", "$.op"),
        ({"id": "7"}, "invalid_request", "$.op"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_bad_content_is_refused_by_name_and_the_connection_lives_on(
    daemon: RealDaemon, content: dict[str, Any], code: str, named: str
) -> None:
    with daemon.connect() as wire:
        wire.send(json.dumps(content).replace("Infinity", "1e400").encode() + b"\n")
        error = wire.read()
        assert (error["type"], error["id"], error["code"]) == ("error", "7", code)
        assert named in error["message"]
        assert error["hint"]
        assert wire.ask("daemon.status", id="7")["type"] == "result", "the id is free again"


@pytest.mark.parametrize("found", ["", "x" * 65, "ä" * 33, None, 5, ["1"]], ids=repr)
def test_a_request_without_a_usable_id_is_refused_without_one(daemon: RealDaemon, found: object) -> None:
    with daemon.connect() as wire:
        wire.send(json.dumps({"id": found, "op": "daemon.status"}).encode() + b"\n")
        error = wire.read()
        assert error["code"] == "invalid_request"
        assert error.get("id") is None
        assert "$.id" in error["message"]
        assert wire.ask("daemon.status", id="ä" * 32)["id"] == "ä" * 32, "64 bytes are allowed"


def test_one_byte_at_a_time_is_a_request_too(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        for byte in line("model.list", "slow") + b"\r\n":
            wire.send(bytes([byte]))
        assert wire.read()["id"] == "slow"


def test_empty_lines_are_nothing(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(b"\n \n\r\n\t\n" + line("daemon.status", "1") + b"\n\n")
        assert wire.terminal("1")["type"] == "result"
        assert wire.ask("daemon.status", id="2")["type"] == "result"


def test_an_unterminated_last_line_counts(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(line("daemon.status", "1") + b"\n" + line("model.list", "2"))
        wire.end_sending()
        assert [reply["id"] for reply in everything_until_close(wire)] == ["1", "2"]


def test_an_unterminated_last_line_of_rubbish_is_one_error(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(b'{"id":"1","op":')
        wire.end_sending()
        assert [reply["code"] for reply in everything_until_close(wire)] == ["invalid_request"]


def test_a_half_closed_peer_still_gets_the_end_of_its_job(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"a" * 1000)
    with daemon.connect() as wire:
        with held_name(daemon, "half"):
            wire.request("model.add", path=path, name="half", id="1")
            assert wire.until("1", "accepted")["position"] == 0
            wire.end_sending()
        replies = everything_until_close(wire)
    assert [reply["type"] for reply in replies if reply["type"] != "progress"] == ["result"]


def test_a_thousand_requests_in_one_write_are_answered_in_order(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        asked = [line("model.resolve" if n % 3 else "daemon.status", str(n), **({"name": "x"} if n % 3 else {}))
                 for n in range(1000)]  # fmt: skip
        replies = exchange(wire, asked)
    assert [reply["id"] for reply in replies] == [str(n) for n in range(1000)]
    assert {reply.get("code", "result") for reply in replies} == {"result", "not_found"}


def test_a_thousand_requests_and_then_a_half_close(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(b"\n".join(line("daemon.status", str(n)) for n in range(1000)))
        wire.end_sending()
        assert [reply["id"] for reply in everything_until_close(wire)] == [str(n) for n in range(1000)]


# -- ids and cancelling


def test_a_second_live_use_of_an_id_is_refused_and_the_first_goes_on(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"a" * 1000)
    with daemon.connect() as wire:
        with held_name(daemon, "twice"):
            wire.request("model.add", path=path, name="twice", id="same")
            assert wire.until("same", "accepted")["position"] == 0
            for second in (line("daemon.status", "same"), line("nonsense", "same"), line("model.show", "same")):
                wire.send(second + b"\n")
                refused = wire.until(None, "error")
                assert refused["code"] in ("invalid_request", "unknown_operation")
            assert wire.ask("daemon.status", id="other")["type"] == "result"
        assert wire.terminal("same")["value"]["name"] == "twice"
        assert wire.ask("daemon.status", id="same")["type"] == "result"


def test_the_refusal_of_a_second_use_says_which_id(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.request("events.subscribe", id="watch")
        wire.request("daemon.status", id="watch")
        refused = wire.until(None, "error")
        assert refused["details"] == {"id": "watch"}
        assert "'watch'" in refused["message"]
        assert refused["hint"]


def test_cancel_ends_a_request_of_this_connection(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"a" * 1000)
    with daemon.connect() as wire, held_name(daemon, "unwanted"):
        wire.request("model.add", path=path, name="unwanted", id="add")
        accepted = wire.until("add", "accepted")
        wire.request("cancel", target="add", id="stop")
        replies = {reply["id"]: reply for reply in (wire.until("stop", "result"), wire.terminal("add"))}
        assert replies["stop"]["value"]["target"] == "add"
        assert replies["add"]["code"] == "cancelled"
        assert not replies["add"]["retryable"]
        assert accepted["job"]
        wire.request("events.subscribe", id="add")
        wire.request("cancel", target="add", id="stop")
        wire.until("stop", "result")
        assert wire.terminal("add")["code"] == "cancelled", "also a subscription, and under the same id again"


def test_cancel_of_nothing_says_so(daemon: RealDaemon) -> None:
    with daemon.connect() as wire, daemon.connect() as other:
        other.request("events.subscribe", id="theirs")
        other.request("daemon.status", id="open")
        other.terminal("open")
        for target in ("theirs", "never", ""):
            error = wire.ask("cancel", target=target)
            assert error["code"] == "invalid_request"
            assert repr(target) in error["message"]
            assert "job.cancel" in error["hint"]


# -- hello


def test_hello_is_answered_with_what_both_sides_have(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        value = wire.ask(
            "hello", protocol=1, client="test/1", required=["jobs"], optional=["teleport", "events"], id="0"
        )["value"]
        assert value == {"protocol": 1, "capabilities": ["events", "jobs"]}


@pytest.mark.parametrize("wanted", [0, 2, -1, 2**40])
def test_a_foreign_version_is_unsupported_and_names_both_sides(daemon: RealDaemon, wanted: int) -> None:
    with daemon.connect() as wire:
        error = wire.ask("hello", protocol=wanted)
        assert error["code"] == "unsupported"
        assert f"protocol {wanted}" in error["message"]
        assert "1 to 1" in error["message"]
        assert error["details"] == {"min": 1, "max": 1, "wanted": wanted}
        assert error["hint"]
        assert wire.ask("hello", protocol=1)["type"] == "result", "the connection lives on"


def test_a_missing_capability_is_unsupported_and_names_both_sides(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        error = wire.ask("hello", protocol=1, required=["jobs", "teleport"])
        assert error["code"] == "unsupported"
        assert "teleport" in error["message"]
        assert error["details"]["missing"] == ["teleport"]
        assert "jobs" in error["details"]["capabilities"]
        assert wire.ask("daemon.status")["type"] == "result"


def test_describe_tells_each_operation(daemon: RealDaemon) -> None:
    value = daemon.ask("daemon.describe")["value"]
    assert value["protocol"] == 1
    assert {"hello", "cancel", "model.add", "events.subscribe", "daemon.drain"} <= value["operations"].keys()
    reference = value["operations"]["model.add"]["request"]["$ref"].rpartition("/")[2]
    assert "path" in value["schema"]["$defs"][reference]["required"]
