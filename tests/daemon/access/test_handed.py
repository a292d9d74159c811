"""Files that clients hand over: each is counted until it is closed, and closed exactly once."""

from __future__ import annotations

import os
import threading

import anyio
import pytest

from modeld.access.handed import Descriptors, HandedFiles
from modelwire.errors import InvalidRequest, QueueFull
from rigs.waiting import eventually

ADA, BEN = 2001, 2002


def opened(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def transfer(of: Descriptors, uid: int = ADA, count: int = 1) -> tuple[HandedFiles, list[int]]:
    descriptors = opened(count)
    of.count(uid, descriptors)
    files = HandedFiles(of, uid, directory=False)
    files.add([f"{number}.bin" for number in range(count)], descriptors)
    return files, descriptors


async def test_closing_closes_all_files_once() -> None:
    of = Descriptors()
    files, descriptors = transfer(of, count=3)
    assert files.paths == ["0.bin", "1.bin", "2.bin"]
    of.remember(files)
    assert of.known(files.id) is files
    files.close()
    files.close()
    await eventually(lambda: not any(map(is_open, descriptors)))
    assert of.known(files.id) is None
    with pytest.raises(OSError, match="has ended"):
        files.open("0.bin")


async def test_a_user_with_too_many_files_is_refused_and_others_are_not() -> None:
    of = Descriptors(limit=4)
    files, _ = transfer(of, count=3)
    more = opened(2)
    with pytest.raises(QueueFull) as caught:
        of.count(ADA, more)
    assert caught.value.details == {"descriptors": 3, "limit": 4}
    await eventually(lambda: not any(map(is_open, more)))
    others, _ = transfer(of, BEN, count=4)
    others.close()
    files.close()

    def counted() -> bool:
        try:
            again, _ = transfer(of, count=4)
        except QueueFull:
            return False
        again.close()
        return True

    await eventually(counted)


async def test_a_file_that_cannot_be_closed_holds_up_its_own_user_alone() -> None:
    of, hangs = Descriptors(limit=2), threading.Event()
    stuck = of.threads.submit(ADA, hangs.wait)
    try:
        mine, my_descriptors = transfer(of, ADA)
        other, descriptors = transfer(of, BEN)
        mine.close()
        other.close()
        await eventually(lambda: not any(map(is_open, descriptors)))
        assert all(map(is_open, my_descriptors))
        of.count(ADA, my_more := opened(1))
        with pytest.raises(QueueFull):
            of.count(ADA, opened(1))  # it counts until it is closed
    finally:
        hangs.set()
    of.close(ADA, my_more)
    await eventually(lambda: stuck.done() and not any(map(is_open, my_descriptors + my_more)))


async def test_a_file_is_examined_through_a_descriptor_of_its_own() -> None:
    of = Descriptors()
    files, descriptors = transfer(of, count=2)
    seen: dict[str, int] = {}
    await files.examine(seen.__setitem__)
    assert list(seen) == ["0.bin", "1.bin"]
    assert not set(seen.values()) & set(descriptors)
    assert not any(map(is_open, seen.values()))

    def refuse(path: str, descriptor: int) -> None:
        seen[path] = descriptor
        raise InvalidRequest(path)

    with pytest.raises(InvalidRequest, match=r"0\.bin"):
        await files.examine(refuse)
    assert not is_open(seen["0.bin"])
    files.close()


async def test_who_leaves_while_a_file_is_examined_closes_it_all_the_same() -> None:
    of, looks, goes_on = Descriptors(), threading.Event(), threading.Event()
    files, descriptors = transfer(of)

    def look(_path: str, _descriptor: int) -> None:
        looks.set()
        goes_on.wait(20)

    async def examine() -> None:
        try:
            await files.examine(look)
        finally:
            files.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(examine)
        await eventually(looks.is_set)
        tasks.cancel_scope.cancel()
    goes_on.set()
    await eventually(lambda: not any(map(is_open, descriptors)))


async def test_the_thread_of_a_user_ends_with_its_work() -> None:
    of = Descriptors()
    of.threads.submit(BEN, lambda: None).result(20)
    await eventually(lambda: f"files-{BEN}" not in {thread.name for thread in threading.enumerate()})
