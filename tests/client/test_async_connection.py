"""The async client under asyncio's own cancellation, which respects no shield."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import modelclient
from modelwire import replies, requests, values
from modelwire.encoding import encode
from modelwire.requests import Request
from rigs.scripted_peer import STATUS, Conversation, ScriptedPeer, good, hello_of
from rigs.waiting import wait_until


class Deaf:
    """A daemon that reads nothing until the test lets it; then it answers `daemon.status`."""

    def __init__(self, path: str) -> None:
        self.may_read = threading.Event()
        self.operations: list[str] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(path)
        self._door.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._door, self._door.accept()[0] as peer:
            peer.sendall(encode(hello_of()))
            self.may_read.wait(30)
            for line in peer.makefile("rb"):
                request = json.loads(line)
                self.operations.append(request["op"])
                if request["op"] == "daemon.status":
                    peer.sendall(encode(replies.Result(id=request["id"], value=STATUS)))

    def close(self) -> None:
        self.may_read.set()
        self._thread.join(30)


async def test_a_sender_that_is_cancelled_leaves_no_half_frame(room: Path) -> None:
    daemon = Deaf(str(room / "s"))
    try:
        async with modelclient.connect(str(room / "s")) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.verify(*["n" * 100] * 9000).result(), 0.1)  # more than a socket holds
            waiting = asyncio.ensure_future(client.status())
            daemon.may_read.set()
            assert await asyncio.wait_for(waiting, 20) == STATUS
        assert daemon.operations == ["model.verify", "daemon.status"]
    finally:
        daemon.close()


def slow(talk: Conversation, request: Request) -> None:
    if isinstance(request, requests.ModelAdd | requests.EventsSubscribe):
        talk.accepted(request)
        talk.progress(request)
    elif isinstance(request, requests.JobConfigure):
        talk.result(request, values.Configured(lasts_until="end"))
    elif not isinstance(request, requests.Cancel):
        good(talk, request)


Waits = Callable[[Any], Awaitable[object]]


async def iterates(exchange: Any) -> None:
    async for _ in exchange:
        pass


async def loops_inside_with(exchange: Any) -> None:
    async with exchange:
        async for _ in exchange:
            await anyio.sleep_forever()


WAITS: dict[str, Waits] = {
    "await": lambda exchange: exchange,
    "result": lambda exchange: exchange.result(),
    "accepted": lambda exchange: iterates_accepted(exchange),
    "async for": iterates,
    "async with": loops_inside_with,
}


async def iterates_accepted(exchange: Any) -> None:
    while True:  # the second waits for ever: there is one job and one `accepted`
        await exchange.accepted()


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
@pytest.mark.parametrize("wait", WAITS)
async def test_work_ends_with_the_task_that_waits_for_it(
    peer: Callable[..., ScriptedPeer], wait: str, native: bool
) -> None:
    """The connection lives on for the other tasks, so the daemon would not notice."""
    made = peer(slow)
    async with modelclient.connect(made.path) as client:
        work = client.add("/x")
        with anyio.CancelScope() as scope:

            async def waiting() -> None:
                await WAITS[wait](work)

            task = asyncio.ensure_future(waiting())
            await anyio.to_thread.run_sync(made.saw, requests.ModelAdd)
            await anyio.to_thread.run_sync(wait_until, lambda: work.job is not None)
            if native:
                task.cancel()
            else:
                scope.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        cancel = await anyio.to_thread.run_sync(made.saw, requests.Cancel)
        assert isinstance(cancel, requests.Cancel)
        assert cancel.target == made.requests[0].id
        assert await client.status() == STATUS


async def test_a_subscription_ends_with_the_task_that_reads_it(peer: Callable[..., ScriptedPeer]) -> None:
    made = peer(slow)
    async with modelclient.connect(made.path) as client:
        with anyio.move_on_after(0.05):
            await iterates(client.subscribe(progress=True))
        await anyio.to_thread.run_sync(made.saw, requests.Cancel)


async def test_work_that_was_detached_outlives_the_task_that_waits_for_it(peer: Callable[..., ScriptedPeer]) -> None:
    made = peer(slow)
    async with modelclient.connect(made.path) as client:
        work = client.add("/x")
        with anyio.move_on_after(0.05):
            async for _ in work:
                work.detach()
                await anyio.sleep_forever()
        assert await client.status() == STATUS
    assert [type(request) for request in made.requests if not isinstance(request, requests.DaemonStatus)] == [
        requests.ModelAdd,
        requests.JobConfigure,
    ]


async def test_a_client_that_is_cancelled_still_hands_over_what_was_detached(peer: Callable[..., ScriptedPeer]) -> None:
    made = peer(slow)
    with anyio.fail_after(20), anyio.CancelScope() as scope:
        async with modelclient.connect(made.path) as client:
            work = client.add("/x")
            await work.accepted()
            work.detach()
            scope.cancel()
            await anyio.sleep_forever()
    assert [type(request) for request in made.requests] == [requests.ModelAdd, requests.JobConfigure]
