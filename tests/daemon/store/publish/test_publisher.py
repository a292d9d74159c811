"""One at a time, in the order of admission, and no turn is ever lost."""

from __future__ import annotations

import random

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from modeld.store.publish.publisher import Publisher


class Watched:
    """A publisher whose overlapping turns are an error, and whose order is kept."""

    def __init__(self) -> None:
        self.publisher = Publisher()
        self.inside = 0
        self.order: list[int] = []

    async def publish(self, order: int, pauses: int = 3) -> None:
        async with self.publisher.turn(order):
            assert self.inside == 0, "two turns at once"
            self.inside += 1
            try:
                self.order.append(order)
                for _ in range(pauses):
                    await checkpoint()
            finally:
                self.inside -= 1


def waiting(publisher: Publisher) -> int:
    return sum(not waiter.gone for waiter in publisher._waiting)


async def until_waiting(publisher: Publisher, count: int) -> None:
    with anyio.fail_after(10):
        while waiting(publisher) < count:
            await checkpoint()


async def hold(group: TaskGroup, publisher: Publisher) -> anyio.Event:
    """Somebody has the turn until the event is set."""
    release, taken = anyio.Event(), anyio.Event()

    async def holder() -> None:
        async with publisher.turn(0):
            taken.set()
            await release.wait()

    group.start_soon(holder)
    await taken.wait()
    return release


async def test_the_lowest_order_among_the_waiting_comes_first() -> None:
    watched = Watched()
    async with anyio.create_task_group() as group:
        release = await hold(group, watched.publisher)
        for order in (5, 3, 9, 1, 7):
            group.start_soon(watched.publish, order)
        await until_waiting(watched.publisher, 5)
        release.set()
    assert watched.order == [1, 3, 5, 7, 9]
    assert not watched.publisher._taken


async def test_equals_come_in_the_order_of_arrival() -> None:
    publisher, arrived = Publisher(), []

    async def publish(tag: str) -> None:
        async with publisher.turn(1):
            arrived.append(tag)

    async with anyio.create_task_group() as group:
        release = await hold(group, publisher)
        for count, tag in enumerate("abc", 1):
            group.start_soon(publish, tag)
            await until_waiting(publisher, count)
        release.set()
    assert arrived == ["a", "b", "c"]


async def test_a_free_turn_is_had_at_once() -> None:
    watched = Watched()
    await watched.publish(9)
    await watched.publish(1)
    assert watched.order == [9, 1]


async def test_a_cancelled_waiter_leaves() -> None:
    watched = Watched()
    async with anyio.create_task_group() as group:
        release = await hold(group, watched.publisher)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(watched.publish, 1)
            await until_waiting(watched.publisher, 1)
            impatient.cancel_scope.cancel()
        assert waiting(watched.publisher) == 0
        group.start_soon(watched.publish, 2)
        await until_waiting(watched.publisher, 1)
        release.set()
    assert watched.order == [2]


async def test_a_holder_that_fails_or_is_cancelled_gives_the_turn_on() -> None:
    publisher = Publisher()
    with pytest.raises(ValueError, match="broken"):
        async with publisher.turn(1):
            raise ValueError("broken")
    with anyio.move_on_after(0):
        async with publisher.turn(1):
            await anyio.sleep_forever()
    assert not publisher._taken
    with anyio.fail_after(10):
        async with publisher.turn(1):
            pass


async def test_a_turn_that_arrives_with_the_cancellation_is_passed_on() -> None:
    watched = Watched()
    async with anyio.create_task_group() as group:
        release = await hold(group, watched.publisher)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(watched.publish, 1)
            await until_waiting(watched.publisher, 1)
            group.start_soon(watched.publish, 2)
            await until_waiting(watched.publisher, 2)
            release.set()
            await checkpoint()  # the holder leaves and gives the turn to the first ...
            impatient.cancel_scope.cancel()  # ... which may not have noticed yet
    assert watched.order in ([2], [1, 2])
    assert not watched.publisher._taken


@pytest.mark.parametrize("seed", range(20))
async def test_turns_survive_any_mixture_of_cancellations(seed: int) -> None:
    chance = random.Random(seed)
    watched = Watched()
    scopes: list[anyio.CancelScope] = []

    async def one(order: int) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await watched.publish(order, chance.randrange(4))

    async with anyio.create_task_group() as group:
        for order in range(40):
            group.start_soon(one, order)
        for _ in range(60):
            await checkpoint()
            if scopes and chance.random() < 0.4:
                chance.choice(scopes).cancel()
    assert not watched.publisher._taken
    assert waiting(watched.publisher) == 0
    with anyio.fail_after(10):
        await watched.publish(99)
