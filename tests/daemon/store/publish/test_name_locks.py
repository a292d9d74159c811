"""A name belongs to one program at a time, and to all work of that program; a tool that keeps it is named."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from modeld.progress import Stopped
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import NameLock
from modeld.store.disk.root import prepare_root
from modeld.store.names import ModelName
from modeld.store.publish.name_locks import NameLocks
from modelwire.errors import InUse, WireError
from rigs.lock_holder import HOLD_FILE, other_process
from rigs.waiting import eventually

pytestmark = pytest.mark.anyio

NAME = ModelName.parse("llama:8b")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def program(layout: Layout, wait_seconds: float = 30, threads: int = 4) -> NameLocks:
    """The locks of one daemon: two of them keep each other out as two programs do."""
    return NameLocks(layout, wait_seconds, anyio.CapacityLimiter(threads))


def is_free(layout: Layout, name: ModelName = NAME) -> bool:
    lock = NameLock.take(layout.name_lock(name))
    if lock is not None:
        lock.release()
    return lock is not None


async def test_a_name_is_had_by_one_program_at_a_time(layout: Layout) -> None:
    inside = 0

    async def hold() -> None:
        nonlocal inside
        async with program(layout).held(NAME):
            inside += 1
            assert inside == 1
            await checkpoint()
            inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(hold)
    assert os.path.exists(layout.name_lock(NAME))


async def test_the_work_of_one_program_shares_a_name_until_the_last_has_left(layout: Layout) -> None:
    locks = program(layout)
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(locks.held(NAME))
        await second.enter_async_context(locks.held(NAME))
        assert not is_free(layout)
        await first.aclose()
        assert not is_free(layout)
        async with locks.held(NAME):
            await second.aclose()
            assert not is_free(layout)
    assert is_free(layout)
    async with locks.held(NAME):
        assert not is_free(layout)


async def test_all_who_wait_in_one_program_have_the_name_when_it_comes_free(layout: Layout) -> None:
    locks, inside = program(layout), 0
    leave = anyio.Event()

    async def hold() -> None:
        nonlocal inside
        async with locks.held(NAME):
            inside += 1
            await leave.wait()

    with other_process(HOLD_FILE, layout.name_lock(NAME)) as holder:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(hold)
            await checkpoint()
            assert inside == 0
            holder.kill()
            await eventually(lambda: inside == 5)
            leave.set()
    assert is_free(layout)


async def test_other_names_do_not_wait(layout: Layout) -> None:
    locks = program(layout, 0)
    async with locks.held(NAME), locks.held(ModelName.parse("llama")):
        assert not is_free(layout)
        assert not is_free(layout, ModelName.parse("llama"))


async def test_another_tool_is_named_when_it_takes_too_long(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(1)
    locks = NameLocks(layout, 0.05, limiter)
    with other_process(HOLD_FILE, layout.name_lock(NAME)) as holder:
        with pytest.raises(InUse, match="'llama:8b' is being written by") as caught:
            async with locks.held(NAME):
                pytest.fail("two holders")
        assert "waited" in caught.value.message
        if os.path.exists("/proc/locks"):
            assert f"pid {holder.pid}" in caught.value.message
        assert limiter.borrowed_tokens == 0
        holder.kill()
        holder.wait()
    async with program(layout).held(NAME):
        pass


async def test_whom_it_waits_for_is_said_once_while_it_waits(layout: Layout) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def tell(holder: str) -> AsyncIterator[None]:
        told.append(holder)
        yield
        assert not had.is_set()
        told.append("over")

    with other_process(HOLD_FILE, layout.name_lock(NAME)) as holder:
        async with anyio.create_task_group() as group:
            had = anyio.Event()

            async def wait() -> None:
                async with program(layout).held(NAME, on_wait=tell):
                    had.set()

            group.start_soon(wait)
            await eventually(lambda: told)
            assert not had.is_set()
            if os.path.exists("/proc/locks"):
                assert f"pid {holder.pid}" in told[0]
            holder.kill()
            with anyio.fail_after(20):
                await had.wait()
    assert told[1:] == ["over"]


async def test_a_request_that_is_stopped_after_its_wait_leaves_the_lock(layout: Layout) -> None:
    """What is around the wait may take its time, and raise: the lock is taken by then."""

    waiting = anyio.Event()

    @asynccontextmanager
    async def stopped_at_its_end(_: str) -> AsyncIterator[None]:
        waiting.set()
        yield
        raise Stopped

    with other_process(HOLD_FILE, layout.name_lock(NAME)) as holder:
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(Stopped):
                    async with program(layout).held(NAME, on_wait=stopped_at_its_end):
                        pytest.fail("it was stopped")

            group.start_soon(wait)
            await waiting.wait()
            holder.kill()
    async with program(layout, 0).held(NAME):
        pass


async def test_nobody_is_waited_for_when_the_name_is_free(layout: Layout) -> None:
    locks = program(layout)
    async with locks.held(NAME, on_wait=pytest.fail), locks.held(NAME, on_wait=pytest.fail):
        pass


async def test_our_own_hold_says_since_when(layout: Layout) -> None:
    async with program(layout, 0).held(NAME):
        with pytest.raises(InUse, match=f"modeld with pid {os.getpid()}, for"):
            async with program(layout, 0).held(NAME):
                pytest.fail("two holders")


async def test_a_cancelled_waiter_holds_nothing(layout: Layout) -> None:
    locks = program(layout)
    descriptor = os.open(layout.name_lock(NAME), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with anyio.move_on_after(0.05) as scope:
            async with locks.held(NAME):
                pytest.fail("two holders")
        assert scope.cancelled_caught
    finally:
        os.close(descriptor)
    assert is_free(layout)
    async with locks.held(NAME):
        pass


async def test_an_error_inside_lets_go(layout: Layout) -> None:
    locks = program(layout, 0)
    with pytest.raises(ValueError, match="inside"):
        async with locks.held(NAME):
            raise ValueError("inside")
    assert is_free(layout)


@pytest.mark.parametrize("kind", ["link", "directory", "no place"])
async def test_a_lock_that_cannot_be_made_is_a_typed_error(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = layout.name_lock(NAME)
    if kind == "link":
        os.symlink(tmp_path / "elsewhere", path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.rmdir(layout.quarantine_dir)
        os.rmdir(layout.locks_dir)
        Path(layout.locks_dir).write_text("")
    with pytest.raises(WireError):
        async with program(layout, 0).held(NAME):
            pytest.fail("held what is no file")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_waiter_for_a_name_sees_its_stop_sign(layout: Layout) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with other_process(HOLD_FILE, layout.name_lock(NAME)):
        with anyio.fail_after(20), pytest.raises(Stopped):
            async with program(layout, 3600, 1).held(NAME, stopped=stopped):
                pytest.fail("two holders")


async def test_a_slow_disk_under_the_locks_does_not_hold_the_loop(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking and releasing wait in threads: the loop turns meanwhile."""
    real, releasing, turned = NameLock.release, threading.Event(), threading.Event()
    waited = list[bool]()

    def slow(lock: NameLock) -> None:
        releasing.set()
        waited.append(turned.wait(20))
        real(lock)

    monkeypatch.setattr(NameLock, "release", slow)

    async def turn() -> None:
        await eventually(releasing.is_set)
        turned.set()

    async with anyio.create_task_group() as group:
        group.start_soon(turn)
        async with program(layout).held(NAME):
            pass
    assert waited == [True]
