"""One connection over a transport that the test holds: what is read, answered, refused, and when it closes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
import structlog

from modeld.access.handed import Descriptors
from modeld.config import Settings
from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation, TakesTime
from modeld.platform import endpoint
from modeld.server import connection
from modeld.server.connection import PeerConnection
from modeld.server.peer_limits import PeerLimits
from modeld.server.shared import SharedState
from modelwire import requests, values
from modelwire.errors import NotFound
from rigs.waiting import eventually

UID = 1000


class Transport(asyncio.Transport):
    """Keeps what is written. It can stop taking it, like that of a peer that does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = False
        self.socket, self._other = socket.socketpair()

    def write(self, data: Any) -> None:
        assert not self.closed, "nothing is written after the end"
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def let_go(self) -> None:
        self.socket.close()
        self._other.close()


class Resolve(QuickOperation[requests.ModelResolve, values.Resolved]):
    """Knows one model; another one takes time."""

    def answer(self, caller: Caller, request: requests.ModelResolve, /) -> values.Resolved:
        if request.name == "slow":
            raise TakesTime
        if request.name == "bug":
            raise RuntimeError("unforeseen")
        if request.name != "m":
            raise NotFound(f"no model {request.name}")
        return values.Resolved(name="m", path="/m", blob="sha256:00", state="ready")


class Held(SlowOperation[Any, Any]):
    """Answers when the test lets it."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.began = 0

    async def run(self, call: Call, request: Any, /) -> Any:
        self.began += 1
        await self.go.wait()
        return values.Done(target=request.id)


@pytest.fixture(autouse=True)
def unhurried_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not cut a turn short."""
    monkeypatch.setattr(connection, "_TURN_SECONDS", 60.0)


class Leases:
    """Stands for those of the store."""

    def __init__(self) -> None:
        self.of_left: list[object] = []

    def left(self, connection: object) -> None:
        self.of_left.append(connection)


class Case:
    def __init__(self, shared: SharedState, held: Held, role: Any) -> None:
        self.held, self.limits, self.leases = held, shared.peer_limits, cast("Any", shared.leases)
        self.transport = Transport()
        self.closed = 0
        self.limits.enter(UID)
        self.arrived = deque[endpoint.Arrived]()
        """The descriptors that came with the next bytes."""
        self.connection = PeerConnection(shared, self, Caller(UID, UID, role), 7, lambda _: None, self._on_closed)
        self.connection.connection_made(self.transport)

    def sees_same_files(self) -> bool:
        return True

    def _on_closed(self, _: PeerConnection) -> None:
        self.closed += 1

    def ask(self, *lines: dict[str, Any] | str) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
        data = "".join(texts).encode()
        while data:
            buffer = self.connection.get_buffer(-1)
            size = min(len(data), len(buffer))
            buffer[:size], data = data[:size], data[size:]
            self.connection.buffer_updated(size)

    def take(self) -> list[dict[str, Any]]:
        """The replies since the last look."""
        taken, self.transport.writes = b"".join(self.transport.writes), []
        return [json.loads(line) for line in taken.splitlines()]


def resolve(request_id: str, name: str = "m") -> dict[str, Any]:
    return {"id": request_id, "op": "model.resolve", "name": name}


@asynccontextmanager
async def connected(
    role: str = "write", *, requests_per_peer: int = 64, read_stall: float = 30.0
) -> AsyncIterator[Case]:
    services: Any = SimpleNamespace(
        settings=Settings(),
        store=SimpleNamespace(layout=SimpleNamespace(root="/models"), leases=Leases()),
        daemon=SimpleNamespace(server="modeld/test", instance="i"),
        activity=SimpleNamespace(record=lambda *_, **__: None),
        handed=Descriptors(),
        is_own=lambda uid: uid == 0,
    )
    held = Held()
    operations: Any = SimpleNamespace(
        quick={requests.ModelResolve: Resolve(services).answer},
        slow={
            requests.ModelResolve: held.run,
            requests.ModelShow: held.run,
            requests.EventsSubscribe: held.run,
            requests.StoreSweep: held.run,
        },
        lookups=frozenset({requests.ModelShow}),
    )
    async with anyio.create_task_group() as tasks:
        limits = PeerLimits(connections_per_peer=8, requests_per_peer=requests_per_peer)
        shared = SharedState(services, operations, limits, tasks)
        shared.read_stall = read_stall
        case = Case(shared, held, role)
        try:
            with anyio.fail_after(20):
                yield case
        finally:
            if not case.closed:
                case.connection.connection_lost(None)
            case.transport.let_go()
            tasks.cancel_scope.cancel()
    assert case.closed == 1


async def test_the_server_speaks_first_and_says_what_the_peer_may() -> None:
    async with connected("read") as case:
        (hello,) = case.take()
        assert (hello["type"], hello["store"], hello["peer"]["role"]) == ("hello", "/models", "read")


async def test_what_is_quick_is_answered_in_the_call_that_brought_it_and_in_one_write() -> None:
    async with connected() as case:
        case.take()
        case.ask(*[resolve(str(number)) for number in range(10)])
        assert len(case.transport.writes) == 1
        assert [reply["id"] for reply in case.take()] == [str(number) for number in range(10)]
        assert case.limits._in_flight == {}


async def test_one_share_of_requests_is_answered_and_then_others_have_their_turn() -> None:
    async with connected() as case:
        case.take()
        case.ask(*[resolve(str(number)) for number in range(200)])
        assert 0 < len(case.take()) <= 64
        assert not case.transport.reading
        await eventually(lambda: case.transport.reading)


async def test_errors_have_the_id_of_their_request_and_the_connection_lives_on() -> None:
    async with connected("read") as case:
        case.take()
        with structlog.testing.capture_logs():
            case.ask(
                resolve("1", "none"),
                resolve("2", "bug"),
                {"id": "3", "op": "store.sweep"},
                {"id": "4", "op": "model.resolve", "nam": "m"},
                {"id": "5", "op": "no.such"},
                resolve("6"),
            )
        replies = case.take()
        codes = [reply.get("code") for reply in replies]
        assert codes == ["not_found", "internal", "unauthorized", "invalid_request", "unknown_operation", None]
        assert [reply["id"] for reply in replies] == [*"123456"]
        assert "unforeseen" not in json.dumps(replies).replace("did not foresee", "")


async def test_a_line_that_is_not_json_ends_the_connection() -> None:
    async with connected() as case:
        case.take()
        case.ask(resolve("1"), "no json\n", resolve("2"))
        first, fatal = case.take()
        assert (first["id"], fatal["code"], fatal.get("id")) == ("1", "invalid_request", None)
        assert case.transport.closed


async def test_what_takes_time_is_in_flight_until_it_has_its_reply() -> None:
    async with connected() as case:
        case.take()
        case.ask(resolve("1", "slow"), {"id": "2", "op": "events.subscribe"}, resolve("3"))
        assert [reply["id"] for reply in case.take()] == ["3"]
        assert case.limits._in_flight == {UID: 2}
        case.ask({"id": "2", "op": "events.subscribe"})
        (in_use,) = case.take()
        assert (in_use["code"], in_use.get("id")) == ("invalid_request", None), "it must not end the first one"
        await eventually(lambda: case.held.began == 2)
        case.held.go.set()
        await eventually(lambda: not case.connection.busy)
        assert {reply["id"] for reply in case.take()} == {"1", "2"}
        assert case.limits._in_flight == {}


async def test_over_the_limit_of_requests_in_flight_each_is_refused_by_itself() -> None:
    async with connected(requests_per_peer=1) as case:
        case.take()
        case.ask({"id": "1", "op": "events.subscribe"}, {"id": "2", "op": "events.subscribe"}, resolve("3"))
        refused, answered = case.take()
        assert (refused["id"], refused["code"], answered["id"]) == ("2", "queue_full", "3")


async def test_looks_come_one_after_the_other_and_nothing_is_read_meanwhile() -> None:
    async with connected(requests_per_peer=0) as case:
        case.take()
        case.ask(
            {"id": "1", "op": "model.show", "name": "m"}, {"id": "2", "op": "model.show", "name": "m"}, resolve("3")
        )
        assert case.take() == []
        assert not case.transport.reading
        await eventually(lambda: case.held.began == 1)
        case.held.go.set()
        await eventually(lambda: case.transport.reading)
        assert [reply["id"] for reply in case.take()] == ["1", "2", "3"]


async def test_a_cancel_ends_its_target_which_still_has_its_reply() -> None:
    async with connected() as case:
        case.take()
        case.ask({"id": "1", "op": "events.subscribe"})
        await eventually(lambda: case.held.began)
        case.ask({"id": "2", "op": "cancel", "target": "1"}, {"id": "3", "op": "cancel", "target": "none"})
        await eventually(lambda: not case.connection.busy)
        codes = {reply["id"]: reply.get("code") for reply in case.take()}
        assert codes == {"1": "cancelled", "2": None, "3": "invalid_request"}


async def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    async with connected() as case:
        case.take()
        case.connection.pause_writing()
        assert not case.transport.reading
        case.ask(resolve("1"))
        assert case.take() == []
        case.connection.resume_writing()
        assert [reply["id"] for reply in case.take()] == ["1"]
        await eventually(lambda: case.transport.reading)


async def test_a_peer_that_has_said_all_gets_its_replies_and_then_the_end() -> None:
    async with connected() as case:
        case.take()
        case.ask({"id": "1", "op": "events.subscribe"}, json.dumps(resolve("2")))
        assert case.connection.eof_received()
        assert [reply["id"] for reply in case.take()] == ["2"], "its last line counts without a newline"
        assert not case.transport.closed
        await eventually(lambda: case.held.began)
        case.held.go.set()
        await eventually(lambda: case.transport.closed)
        assert [reply["id"] for reply in case.take()] == ["1"]


async def test_half_a_request_is_waited_for_only_so_long() -> None:
    async with connected(read_stall=0.01) as case:
        case.take()
        case.ask('{"id":')
        await eventually(lambda: case.transport.closed)
        (fault,) = case.take()
        assert fault["code"] == "timeout"


async def test_what_runs_when_the_peer_goes_is_ended_without_a_reply() -> None:
    async with connected() as case:
        case.ask({"id": "1", "op": "events.subscribe"})
        await eventually(lambda: case.held.began)
        case.take()
        case.connection.connection_lost(None)
        await eventually(lambda: not case.connection.busy)
        assert case.take() == []
        assert case.limits._in_flight == {}
        assert case.leases.of_left == [case.connection], "its leases end with it"


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"protocol": 1, "required": ["jobs"], "optional": ["none"]}, None),
        ({"protocol": 99}, "unsupported"),
        ({"protocol": 1, "required": ["none"]}, "unsupported"),
    ],
    ids=repr,
)
async def test_a_client_that_needs_a_missing_capability_is_refused(hello: dict[str, Any], code: str | None) -> None:
    async with connected() as case:
        case.take()
        case.ask({"id": "1", "op": "hello", **hello})
        (reply,) = case.take()
        assert reply.get("code") == code
        if code is None:
            assert reply["value"]["capabilities"] == ["jobs"]
