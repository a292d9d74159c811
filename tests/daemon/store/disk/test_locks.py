"""The error names the holder of a store or a name; a dead holder releases its lock; only a regular file is a lock."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from modeld.progress import Stopped
from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock, name_lock
from modeld.store.disk.root import RootUnusable, prepare_root
from modeld.store.names import ModelName
from modelwire.errors import Internal, InUse, WireError

NAME = ModelName.parse("llama:8b")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


@contextmanager
def other_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs until its standard input ends; has said one line by the time it is handed out."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


HOLD_STORE = """
    import sys
    from modeld.store.disk.layout import Layout
    from modeld.store.disk.locks import StoreLock
    lock = StoreLock.take(Layout(sys.argv[1]), endpoint="/run/other.sock")
    print("held", flush=True)
    sys.stdin.read()
"""

HOLD_NAME = """
    import fcntl, os, sys
    descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


# -- the store


def test_a_second_daemon_reports_the_holder_of_the_store(layout: Layout) -> None:
    with other_process(HOLD_STORE, layout.root) as holder:
        with pytest.raises(InUse, match=re.escape(layout.root)) as caught:
            StoreLock.take(layout)
        assert f"pid {holder.pid}" in caught.value.message
        assert "/run/other.sock" in caught.value.message
        assert "since" in caught.value.message
        assert caught.value.details["pid"] == holder.pid
        holder.kill()
        holder.wait()
    StoreLock.take(layout).close()


def test_also_within_one_process(layout: Layout) -> None:
    lock = StoreLock.take(layout, endpoint="/run/a.sock")
    with pytest.raises(InUse, match=r"/run/a\.sock"):
        StoreLock.take(layout)
    lock.close()
    lock.close()
    assert os.path.exists(layout.lock)
    StoreLock.take(layout).close()


def test_a_holder_that_has_not_said_its_name_yet_is_found_all_the_same(layout: Layout) -> None:
    Path(layout.lock).write_text('{"pid": 1, "endpoint": "/run/dead.sock", "since": 5}')
    with other_process(HOLD_NAME, layout.lock) as holder:
        with pytest.raises(InUse) as caught:
            StoreLock.take(layout)
        if os.path.exists("/proc/locks"):
            assert f"pid {holder.pid}" in caught.value.message
            assert "dead.sock" not in caught.value.message


@pytest.mark.parametrize("words", ["", "no json", '{"pid": "x"}', "[" * 4000, "\0" * 5000])
def test_nonsense_in_the_lock_file_is_no_obstacle(layout: Layout, words: str) -> None:
    Path(layout.lock).write_text(words)
    lock = StoreLock.take(layout)
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        StoreLock.take(layout)
    lock.close()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory"])
def test_only_a_regular_file_is_a_lock(layout: Layout, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "link":
        target.write_text("precious")
        os.symlink(target, layout.lock)
    elif kind == "dangling":
        os.symlink(target, layout.lock)
    elif kind == "pipe":
        os.mkfifo(layout.lock)
    else:
        os.mkdir(layout.lock)
    with pytest.raises(RootUnusable, match="not a regular file"):
        StoreLock.take(layout)
    assert kind == "link" or not target.exists()
    assert kind != "link" or target.read_text() == "precious"


def test_a_root_that_was_replaced_is_noticed(layout: Layout) -> None:
    lock = StoreLock.take(layout)
    lock.check()
    os.rename(layout.root, layout.root + ".away")
    with pytest.raises(WireError, match="cannot look at"):
        lock.check()
    prepare_root(layout.root)
    StoreLock.take(layout).close()
    with pytest.raises(Internal, match="is not the store that this daemon has locked"):
        lock.check()
    lock.close()


# -- a name


async def test_a_name_is_had_by_one_at_a_time(layout: Layout) -> None:
    limiter, inside = anyio.CapacityLimiter(4), 0

    async def hold() -> None:
        nonlocal inside
        async with name_lock(layout, NAME, 30, limiter):
            inside += 1
            assert inside == 1
            await checkpoint()
            inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(hold)
    assert os.path.exists(layout.name_lock(NAME))


async def test_other_names_do_not_wait(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(4)
    async with name_lock(layout, NAME, 0, limiter), name_lock(layout, ModelName.parse("llama"), 0, limiter):
        pass


async def test_another_tool_is_named_when_it_takes_too_long(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(1)
    with other_process(HOLD_NAME, layout.name_lock(NAME)) as holder:
        with pytest.raises(InUse, match="'llama:8b' is being written by") as caught:
            async with name_lock(layout, NAME, 0.05, limiter):
                pytest.fail("two holders")
        assert "waited" in caught.value.message
        if os.path.exists("/proc/locks"):
            assert f"pid {holder.pid}" in caught.value.message
        assert limiter.borrowed_tokens == 0
        holder.kill()
        holder.wait()
        async with name_lock(layout, NAME, 30, limiter):
            pass


async def test_a_waiter_has_the_name_as_soon_as_it_is_free(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(4)
    with other_process(HOLD_NAME, layout.name_lock(NAME)) as holder:
        async with anyio.create_task_group() as group:
            had = anyio.Event()

            async def wait() -> None:
                async with name_lock(layout, NAME, 30, limiter):
                    had.set()

            group.start_soon(wait)
            await checkpoint()
            assert not had.is_set()
            holder.kill()
            with anyio.fail_after(20):
                await had.wait()


async def test_our_own_hold_says_since_when(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(4)
    async with name_lock(layout, NAME, 0, limiter):
        with pytest.raises(InUse, match=f"modeld with pid {os.getpid()}, since"):
            async with name_lock(layout, NAME, 0, limiter):
                pytest.fail("two holders")


async def test_a_cancelled_waiter_holds_nothing(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(4)
    descriptor = os.open(layout.name_lock(NAME), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with anyio.move_on_after(0.05) as scope:
            async with name_lock(layout, NAME, 30, limiter):
                pytest.fail("two holders")
        assert scope.cancelled_caught
    finally:
        os.close(descriptor)
    async with name_lock(layout, NAME, 0, limiter):
        pass


async def test_an_error_inside_lets_go(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(4)
    with pytest.raises(ValueError, match="inside"):
        async with name_lock(layout, NAME, 0, limiter):
            raise ValueError("inside")
    async with name_lock(layout, NAME, 0, limiter):
        pass


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
        async with name_lock(layout, NAME, 0, anyio.CapacityLimiter(1)):
            pytest.fail("held what is no file")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_waiter_for_a_name_sees_its_stop_sign(layout: Layout) -> None:
    limiter = anyio.CapacityLimiter(1)
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with other_process(HOLD_NAME, layout.name_lock(NAME)):
        with anyio.fail_after(20), pytest.raises(Stopped):
            async with name_lock(layout, NAME, 3600, limiter, stopped=stopped):
                pytest.fail("two holders")
