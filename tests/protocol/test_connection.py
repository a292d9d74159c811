"""The state table on the server's side and between both: which replies an id allows, what ends it, whose fault."""

from __future__ import annotations

import msgspec
import pytest

from modelwire import limits, replies, requests
from modelwire.client import ClientConnection
from modelwire.connection import ServerConnection
from modelwire.decoding import BadRequest
from modelwire.encoding import encode, splice
from modelwire.errors import Internal, LocalError, NotFound
from rigs.frames import HELLO, allowed_before_the_end, client_with, frame, terminals


def server_with(*ids: str) -> ServerConnection:
    server = ServerConnection()
    for request_id in ids:
        server.feed(frame(id=request_id, op="daemon.status"))
        assert server.next_request() == requests.DaemonStatus(id=request_id)
    return server


def refusal(server: ServerConnection) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        server.next_request()
    return caught.value


# -- the server: requests


def test_requests_come_out_in_order_and_are_open() -> None:
    server = ServerConnection()
    assert server.next_request() is None
    server.feed(frame(id="1", op="daemon.status") + frame(id="2", op="model.list"))
    assert server.next_request() == requests.DaemonStatus(id="1")
    assert server.next_request() == requests.ModelList(id="2")
    assert server.next_request() is None
    assert list(server.open) == ["1", "2"]


def test_a_request_may_come_one_byte_at_a_time() -> None:
    server = ServerConnection()
    whole = frame(id="1", op="model.show", name="größe 🦙")
    for byte in whole[:-1]:
        server.feed(bytes([byte]))
        assert server.next_request() is None
        assert server.partial
    server.feed(whole[-1:])
    assert server.next_request() == requests.ModelShow(id="1", name="größe 🦙")
    assert not server.partial


def test_empty_lines_mean_nothing() -> None:
    server = ServerConnection()
    server.feed(b"\n\r\n   \n\t\n" + frame(id="1", op="daemon.status") + b"\n")
    assert server.next_request() == requests.DaemonStatus(id="1")
    assert server.next_request() is None


def test_an_unterminated_last_line_counts() -> None:
    server = ServerConnection()
    server.feed(frame(id="1", op="daemon.status")[:-1])
    assert server.next_request() is None
    assert server.finish() == requests.DaemonStatus(id="1")
    assert "1" in server.open
    assert server.finish() is None


@pytest.mark.parametrize("rest", [b"", b" \t\r"])
def test_nothing_at_the_end_is_no_request(rest: bytes) -> None:
    server = ServerConnection()
    server.feed(rest)
    assert server.next_request() is None
    assert server.finish() is None


@pytest.mark.parametrize("rest", [b'{"id":"1","op":"daemon.st', b"\xff"])
def test_half_a_request_at_the_end_is_refused(rest: bytes) -> None:
    server = ServerConnection()
    server.feed(rest)
    assert server.next_request() is None
    with pytest.raises(BadRequest) as caught:
        server.finish()
    assert caught.value.fatal
    assert server.finish() is None


def test_bad_content_leaves_the_next_line_readable() -> None:
    server = ServerConnection()
    server.feed(frame(id="1", op="nope") + b"[]\n" + frame(op="daemon.status") + frame(id="2", op="daemon.status"))
    assert refusal(server).id == "1"
    assert refusal(server).id is None
    assert refusal(server).id is None
    assert server.next_request() == requests.DaemonStatus(id="2")
    assert list(server.open) == ["2"]


# -- the server: the end of a connection


def test_the_cap_holds_while_bytes_arrive() -> None:
    server = ServerConnection(max_request=100)
    server.feed(b'{"id":"1","op":"model.show","name":"')
    assert server.next_request() is None
    server.feed(b"x" * 65)
    bad = refusal(server)
    assert bad.fatal
    assert bad.id is None
    assert bad.fault.code == "frame_too_large"
    assert bad.fault.details == {"max_request": 100}


def test_the_cap_holds_for_the_last_line() -> None:
    server = ServerConnection(max_request=10)
    server.feed(b"x" * 11)
    with pytest.raises(BadRequest) as caught:
        server.finish()
    assert caught.value.fault.code == "frame_too_large"
    assert caught.value.fatal


def test_a_request_of_exactly_the_cap_is_served() -> None:
    line = frame(id="1", op="daemon.status")
    server = ServerConnection(max_request=len(line) - 1)
    server.feed(line)
    assert server.next_request() == requests.DaemonStatus(id="1")


@pytest.mark.parametrize("garbage", [b"hello\n", b"\xff\n", b"[" * 100_000 + b"\n", b"x" * (limits.MAX_REQUEST + 1)])
def test_nothing_behind_a_fatal_line_is_read(garbage: bytes) -> None:
    server = ServerConnection()
    server.feed(garbage + b"\n" + frame(id="1", op="daemon.drain"))
    assert refusal(server).fatal
    assert server.next_request() is None
    server.feed(frame(id="2", op="daemon.drain"))
    assert server.next_request() is None
    assert server.finish() is None
    assert not server.partial
    assert not server.open


def test_what_is_in_flight_gets_its_reply_also_after_a_fatal_line() -> None:
    server = server_with("1")
    server.feed(b"garbage\n")
    assert refusal(server).fatal
    assert server.reply(replies.Result(id="1", value=None)) == frame(type="result", id="1", value=None)


# -- the server: ids


def test_a_second_live_use_of_an_id_is_refused_without_ending_the_first() -> None:
    server = server_with("1")
    server.feed(frame(id="1", op="model.list"))
    bad = refusal(server)
    assert bad.fault.code == "invalid_request"
    assert bad.fault.details == {"id": "1"}
    assert bad.id is None
    assert not bad.fatal
    assert server.open == {"1": requests.DaemonStatus(id="1")}
    server.reply(replies.Result(id="1", value=None))


@pytest.mark.parametrize("fields", [{"op": "nope"}, {"op": "daemon.status", "zzz": 1}, {"op": "model.show"}, {}])
def test_a_bad_request_with_a_live_id_does_not_end_the_first_either(fields: dict[str, object]) -> None:
    server = server_with("1")
    server.feed(frame(id="1", **fields))
    bad = refusal(server)
    assert bad.id is None
    assert not bad.fatal
    assert "1" in server.open


@pytest.mark.parametrize("terminal", terminals("1"), ids=["result", "error"])
def test_an_id_may_be_used_again_after_its_terminal_reply(terminal: replies.Reply) -> None:
    server = server_with("1")
    server.reply(terminal)
    server.feed(frame(id="1", op="model.list"))
    assert server.next_request() == requests.ModelList(id="1")


# -- the server: replies


@pytest.mark.parametrize("terminal", terminals("1"), ids=["result", "error"])
@pytest.mark.parametrize("late", [*allowed_before_the_end("1"), *terminals("1")], ids=lambda late: type(late).__name__)
def test_exactly_one_terminal_reply_and_nothing_after_it(terminal: replies.Reply, late: replies.Reply) -> None:
    server = server_with("1", "2")
    for reply in allowed_before_the_end("1") * 2:
        assert server.reply(reply).endswith(b"\n")
    assert "1" in server.open
    server.reply(terminal)
    assert list(server.open) == ["2"]
    with pytest.raises(LocalError):
        server.reply(late)
    assert list(server.open) == ["2"]


@pytest.mark.parametrize(
    "reply", [*allowed_before_the_end("9"), *terminals("9")], ids=lambda reply: type(reply).__name__
)
def test_a_reply_to_an_id_that_never_was_is_a_fault_of_this_side(reply: replies.Reply) -> None:
    with pytest.raises(LocalError, match="'9'"):
        server_with("1").reply(reply)


def test_an_id_is_closed_once() -> None:
    server = server_with("1")
    server.close("1")
    with pytest.raises(LocalError, match="'1'"):
        server.close("1")


def test_what_belongs_to_no_request_needs_none() -> None:
    server = server_with("1")
    assert b'"id"' not in server.reply(HELLO)
    assert b'"id"' not in server.reply(replies.Error.of(None, Internal("a fault of the connection")))
    assert "1" in server.open


def test_a_reply_that_cannot_be_encoded_leaves_its_request_open() -> None:
    server = server_with("1")
    with pytest.raises(TypeError):
        server.reply(replies.Result(id="1", value=object()))
    assert "1" in server.open
    server.reply(replies.Error.of("1", Internal("incident 1")))


def test_a_reply_over_the_cap_leaves_its_request_open() -> None:
    server = server_with("1")
    around = len(encode(replies.Result(id="1", value=""))) - 1
    with pytest.raises(LocalError, match=str(limits.MAX_REPLY)):
        server.reply(replies.Result(id="1", value="x" * (limits.MAX_REPLY - around + 1)))
    assert "1" in server.open
    largest = server.reply(replies.Result(id="1", value="x" * (limits.MAX_REPLY - around)))
    client = client_with("1")
    client.feed(largest)
    assert isinstance(client.next_reply(), replies.RawResult)


def test_text_from_the_disk_that_is_no_utf8_still_leaves() -> None:
    """A file's path, or what another tool wrote into a manifest, may hold a lone surrogate."""
    server = server_with("1", "2")
    client = client_with("1", "2")
    fault = NotFound("/srv/\udcff.gguf is gone", hint="look at \ud800", details={"\udc80": ["/srv/\udcff.gguf"]})
    client.feed(server.reply(replies.Error.of("1", fault)))
    error = client.next_reply()
    assert isinstance(error, replies.Error)
    assert error.message == "/srv/\\udcff.gguf is gone"
    assert error.details == {"\\udc80": ["/srv/\\udcff.gguf"]}
    client.feed(server.reply(replies.Result(id="2", value={"größe": "\ud800", "n": (1, None)})))
    result = client.next_reply()
    assert isinstance(result, replies.RawResult)
    assert msgspec.json.decode(result.value) == {"größe": "\\ud800", "n": [1, None]}


def test_an_event_is_spliced_from_a_line_that_was_encoded_once() -> None:
    line = b'{"seq":7,"time":"t","event":"job.done","model":"a","of a newer daemon":[1]}'
    client = client_with("1")
    client.feed(splice(b"event", b'"1"', line))
    event = client.next_reply()
    assert isinstance(event, replies.Event)
    assert (event.id, event.seq, event.event, event.model) == ("1", 7, "job.done", "a")
    assert event.fields == {"seq": 7, "time": "t", "event": "job.done", "model": "a", "of a newer daemon": [1]}


# -- both


def test_both_roles_agree_on_a_whole_conversation() -> None:
    server, client = ServerConnection(), ClientConnection()
    client.feed(server.reply(HELLO))
    assert client.next_reply() == HELLO
    sent: list[requests.Request] = [requests.DaemonStatus(), requests.ModelShow(name="a"), requests.ModelList(limit=5)]
    for request in sent:
        server.feed(client.request(request)[1])
    received = [server.next_request() for _ in sent]
    assert [type(request) for request in received] == [type(request) for request in sent]
    assert set(server.open) == set(client.open) == {"1", "2", "3"}
    for request_id in ("2", "3", "1"):
        for reply in [*allowed_before_the_end(request_id), *terminals(request_id)[:1]]:
            client.feed(server.reply(reply))
            answer = client.next_reply()
            assert answer is not None
            assert answer.id == request_id
    assert not server.open
    assert not client.open
