"""When an idle daemon stops: not while a client is connecting."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from modeld.access.accounts import Accounts
from modeld.access.handed import Descriptors
from modeld.access.roles import Access
from modeld.app.lifetime import LONGEST_STAY_SECONDS, Lifetime
from modeld.config import Settings
from modeld.server import Server
from modeld.server.peer_limits import PeerLimits
from rigs.waiting import eventually


@asynccontextmanager
async def quiet_daemon(
    path: str, sweep_in: Callable[[], float | None] = lambda: None
) -> AsyncIterator[tuple[Server, Lifetime]]:
    """One whose event loop has accepted no connection yet: its server was never opened."""
    accounts = Accounts()
    services: Any = SimpleNamespace(
        settings=Settings(),
        activity=None,
        store=SimpleNamespace(layout=SimpleNamespace(root="/models"), leases=SimpleNamespace(left=lambda _: None)),
        daemon=SimpleNamespace(server="modeld/test", instance="instance"),
        handed=Descriptors(),
        is_own=lambda _uid: True,
    )
    operations: Any = SimpleNamespace(quick={}, slow={}, lookups=frozenset())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        async with anyio.create_task_group() as tasks:
            limits = PeerLimits(connections_per_peer=8, requests_per_peer=8)
            access = Access({}, {}, os.getuid(), accounts)
            server = Server(listener, services, operations, limits, access, tasks)
            lifetime = Lifetime(0)
            board: Any = SimpleNamespace(has_work=False, runner=SimpleNamespace(last_end=0.0))
            tasks.start_soon(lifetime.stop_when_idle, server, board, 0.01, sweep_in)
            with anyio.fail_after(20):
                yield server, lifetime
            tasks.cancel_scope.cancel()


async def test_who_came_in_the_moment_in_which_it_would_have_ended_is_let_in(room: Path) -> None:
    path = str(room / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        async with quiet_daemon(path) as (server, lifetime):
            client.connect(path)
            await eventually(lambda: server.shared.peer_limits.count)
            loop = server.shared.loop
            assert (await loop.sock_recv(client, 1 << 16)).startswith(b'{"type":"hello"')
            assert not lifetime.reason
            client.close()
            await lifetime.until_stop()
            assert "idle for" in lifetime.reason


async def test_who_comes_after_that_is_not_let_in_to_be_sent_away(room: Path) -> None:
    path = str(room / "s")
    async with quiet_daemon(path) as (server, lifetime):
        server.open()
        await lifetime.until_stop()
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(path)
            for _turn in range(10):  # of the loop, in which the daemon ends its rooms
                await anyio.lowlevel.checkpoint()
            assert server.shared.peer_limits.count == 0


async def test_it_stays_until_a_sweep_that_is_due_soon(room: Path) -> None:
    """Else the space of a model that was just removed would come back with the next start only."""
    seconds: float | None = 60.0
    asked = 0

    def sweep_in() -> float | None:
        nonlocal asked
        asked += 1
        return seconds

    async with quiet_daemon(str(room / "s"), sweep_in) as (server, lifetime):
        server.open()
        await eventually(lambda: asked)
        assert not lifetime.reason
    seconds = LONGEST_STAY_SECONDS + 1
    async with quiet_daemon(str(room / "t"), sweep_in) as (server, lifetime):
        server.open()
        await lifetime.until_stop()
    assert "idle for" in lifetime.reason


def test_a_stop_without_a_thread_for_its_time_limit_goes_on_in_good_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    Lifetime(0).end_in_time()
