"""The state table read from the client's side: what it may send, what each reply does, whose fault garbage is."""

from __future__ import annotations

import msgspec
import pytest

from modelwire import limits, replies, requests
from modelwire.client import ClientConnection
from modelwire.connection import ServerConnection
from modelwire.encoding import encode
from modelwire.errors import Internal, LocalError, RemoteError
from rigs.frames import HELLO, allowed_before_the_end, client_with, frame, terminals

# -- the client: requests


def test_a_request_without_an_id_is_numbered() -> None:
    client = ClientConnection()
    first, sent = client.request(requests.DaemonStatus())
    second, _ = client.request(requests.DaemonStatus())
    assert (first, second) == ("1", "2")
    assert msgspec.json.decode(sent) == {"op": "daemon.status", "id": "1"}
    assert set(client.open) == {"1", "2"}


def test_numbering_steps_around_ids_that_the_caller_has_chosen() -> None:
    client = client_with("1", "2", "mine")
    assert client.request(requests.DaemonStatus())[0] == "3"


def test_a_client_refuses_to_use_a_live_id_twice() -> None:
    client = client_with("1")
    with pytest.raises(LocalError, match="'1'"):
        client.request(requests.ModelList(id="1"))
    assert client.open == {"1": requests.DaemonStatus(id="1")}


@pytest.mark.parametrize("bad", ["x" * 65, "é" * 33, "\ud800"])
def test_a_client_refuses_an_id_that_the_daemon_could_not_answer_to(bad: str) -> None:
    client = ClientConnection()
    with pytest.raises(LocalError):
        client.request(requests.DaemonStatus(id=bad))
    assert not client.open


def test_a_client_refuses_text_that_is_no_utf8() -> None:
    client = ClientConnection()
    with pytest.raises(LocalError, match=r"model\.add.*UTF-8"):
        client.request(requests.ModelAdd(path="/srv/\udcff.gguf"))
    assert not client.open


def test_a_client_refuses_what_the_daemon_would_not_take() -> None:
    client = ClientConnection()
    around = len(encode(requests.ModelShow(id="1", name=""))) - 1
    with pytest.raises(LocalError, match=str(limits.MAX_REQUEST)):
        client.request(requests.ModelShow(id="1", name="x" * (limits.MAX_REQUEST - around + 1)))
    assert not client.open
    _, largest = client.request(requests.ModelShow(id="1", name="x" * (limits.MAX_REQUEST - around)))
    server = ServerConnection()
    server.feed(largest)
    assert server.next_request() is not None


def test_the_daemons_own_cap_counts_once_it_is_known() -> None:
    client = ClientConnection()
    client.feed(encode(msgspec.structs.replace(HELLO, max_request=50)))
    client.next_reply()
    with pytest.raises(LocalError, match="50"):
        client.request(requests.ModelShow(name="x" * 50))


# -- the client: replies


def test_hello_is_recorded() -> None:
    client = ClientConnection()
    assert client.hello is None
    client.feed(encode(HELLO))
    assert client.next_reply() == HELLO
    assert client.hello == HELLO


@pytest.mark.parametrize("terminal", [replies.Result(id="1", value=1), terminals("1")[1]], ids=["result", "error"])
def test_a_client_reads_replies_until_the_terminal_one_and_drops_the_tail(terminal: replies.Reply) -> None:
    client = client_with("1", "2")
    middle = allowed_before_the_end("1")
    client.feed(b"".join(map(encode, [*middle, terminal, *middle, terminal])) + frame(type="result", id="2", value=5))
    kinds = []
    while (reply := client.next_reply()) is not None:
        kinds.append((type(reply), reply.id))
    ends = replies.RawResult if isinstance(terminal, replies.Result) else replies.Error
    assert kinds == [*((type(reply), "1") for reply in middle), (ends, "1"), (replies.RawResult, "2")]
    assert not client.open


def test_an_error_without_id_ends_no_request() -> None:
    client = client_with("1")
    client.feed(encode(replies.Error.of(None, Internal("a fault of the connection"))))
    reply = client.next_reply()
    assert isinstance(reply, replies.Error)
    assert reply.id is None
    assert "1" in client.open


def test_unknown_kinds_and_fields_are_ignored() -> None:
    client = client_with("1")
    client.feed(frame(type="weather", id="1", sky="blue") + frame(type="weather", job=[1]))
    assert client.next_reply() is None
    assert "1" in client.open
    client.feed(frame(type="accepted", id="1", job="j", position=0, joined=False, mood={"a": [1]}))
    assert client.next_reply() == replies.Accepted(id="1", job="j", position=0)
    client.feed(frame(type="error", id="1", code="not_found", message="m", retryable=False, advice=1))
    assert isinstance(client.next_reply(), replies.Error)


def test_a_reply_may_come_one_byte_at_a_time() -> None:
    client = client_with("1")
    whole = encode(replies.Result(id="1", value={"name": "größe 🦙"}))
    for byte in whole[:-1]:
        client.feed(bytes([byte]))
        assert client.next_reply() is None
    client.feed(whole[-1:])
    reply = client.next_reply()
    assert isinstance(reply, replies.RawResult)
    assert msgspec.json.decode(reply.value) == {"name": "größe 🦙"}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"garbage", id="no JSON"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="no type"),
        pytest.param(b'{"type":5}', id="a number as type"),
        pytest.param(b'{"type":"hello"}', id="fields are missing"),
        pytest.param(b'{"type":"accepted","id":"1","job":"j","position":"first"}', id="a wrong type"),
        pytest.param(b'{"type":"result","id":1,"value":1}', id="a number as id"),
        pytest.param(b'{"type":"result","value":1}', id="a result without id"),
        pytest.param(b'{"type":"accepted","job":"j","position":0}', id="accepted without id"),
        pytest.param(b'{"type":"result","id":"1","value":nope}', id="a value that is no JSON"),
        pytest.param(b'{"type":"result","id":"1","value":"\xff"}', id="a value that is no UTF-8"),
        pytest.param(b'{"type":"error","id":"1","message":"\xff"}', id="a message that is no UTF-8"),
        pytest.param(b'{"type":"\xff","id":"1"}', id="a type that is no UTF-8"),
        pytest.param(b'{"type":"result","id":"1","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep value"),
        pytest.param(
            b'{"type":"event","id":"1","seq":1,"time":"t","event":"e","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="deep event",
        ),
        pytest.param(
            b'{"type":"event","id":"1","seq":1,"time":"t","event":"e","x":' + b"9" * 5000 + b"}", id="giant number"
        ),
    ],
)
def test_garbage_is_the_daemons_fault(line: bytes) -> None:
    client = client_with("1")
    client.feed(line + b"\n")
    with pytest.raises(RemoteError, match="the daemon sent"):
        client.next_reply()


def test_a_reply_over_the_cap_is_the_daemons_fault() -> None:
    client = ClientConnection(max_reply=100)
    client.feed(b"x" * 101)
    with pytest.raises(RemoteError, match="100"):
        client.next_reply()
