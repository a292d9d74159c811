"""What is remembered of users, and what happens while the system does not answer."""

from __future__ import annotations

import threading
from typing import Protocol

import anyio
import anyio.lowlevel
import pytest

from modeld.access.accounts import ACCOUNT_ENTRIES, ACCOUNT_SECONDS, MAX_LOOK_UPS, Accounts
from modelwire.errors import TimedOut
from rigs.account_database import AccountDatabase
from rigs.waiting import eventually


class Clock(Protocol):
    now: float

    def __call__(self) -> float: ...


async def test_a_user_is_asked_for_once_a_minute(database: AccountDatabase, clock: Clock) -> None:
    accounts = Accounts(clock=clock)
    assert accounts.known(1000) is None
    for _ in range(5):
        assert (await accounts.account_of(1000)).name == "alice"
    assert database.asked == [1000]
    database.members["alice"] = {1000}
    clock.now += ACCOUNT_SECONDS - 1
    assert (await accounts.account_of(1000)).groups == {1000, 500}
    clock.now += 1
    assert accounts.known(1000) is None
    assert (await accounts.account_of(1000)).groups == {1000}


async def test_the_event_loop_never_asks(database: AccountDatabase) -> None:
    await Accounts().account_of(1000)
    (thread,) = database.by
    assert thread is not threading.main_thread()
    assert thread.daemon, "the process does not wait for it when it ends"
    await eventually(lambda: not thread.is_alive())


async def test_all_who_wait_for_one_user_ask_once(database: AccountDatabase) -> None:
    accounts, names = Accounts(), []
    database.hold()

    async def ask(uid: int) -> None:
        names.append((await accounts.account_of(uid)).name)

    async with anyio.create_task_group() as tasks:
        for uid in (1000, 1001, 1000, 1001):
            tasks.start_soon(ask, uid)
        await eventually(lambda: database.asked)
        assert names == []
        database.release()
    assert sorted(names) == ["alice", "alice", "bob", "bob"]
    assert database.asked == [1000, 1001]
    assert len(set(database.by)) == 1


async def test_an_answer_that_comes_late_is_there_for_the_next_attempt(database: AccountDatabase) -> None:
    accounts = Accounts(timeout=0.01)
    database.hold()
    for _ in range(2):
        with pytest.raises(TimedOut):
            await accounts.account_of(1000)
    database.release()
    await eventually(lambda: accounts.known(1000))
    assert (await accounts.account_of(1000)).name == "alice"
    assert database.asked == [1000]


async def test_who_gives_up_takes_nothing_from_the_others(database: AccountDatabase) -> None:
    accounts, names = Accounts(), []
    database.hold()

    async def ask() -> None:
        names.append((await accounts.account_of(1000)).name)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as given_up:
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(ask)
                tasks.start_soon(ask)
                await eventually(lambda: database.asked)
                given_up.cancel()
        database.release()
    assert names == ["alice"]


async def test_what_waits_is_bounded(database: AccountDatabase) -> None:
    accounts = Accounts()
    database.hold()
    async with anyio.create_task_group() as tasks:
        for uid in range(MAX_LOOK_UPS):
            tasks.start_soon(accounts.account_of, uid)
        await anyio.lowlevel.checkpoint()
        with pytest.raises(TimedOut, match="already"):
            await accounts.account_of(MAX_LOOK_UPS)
        database.release()
    assert len(database.asked) == MAX_LOOK_UPS
    await accounts.account_of(MAX_LOOK_UPS)


async def test_strangers_cannot_fill_the_memory(database: AccountDatabase) -> None:
    accounts = Accounts()
    for uid in range(100_000, 100_000 + ACCOUNT_ENTRIES + 10):
        await accounts.account_of(uid)
    assert len(accounts._known) <= ACCOUNT_ENTRIES


async def test_users_without_an_account_do_not_make_the_others_be_looked_up_again(database: AccountDatabase) -> None:
    accounts = Accounts()
    await accounts.account_of(1000)
    for uid in range(100_000, 100_000 + 2 * ACCOUNT_ENTRIES):
        await accounts.account_of(uid)
    assert accounts.known(1000) is not None
    assert database.asked.count(1000) == 1


async def test_a_machine_without_a_further_thread_is_an_error_and_no_end(
    database: AccountDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    accounts = Accounts()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(TimedOut, match="new thread"):
            await accounts.account_of(1000)
    assert (await accounts.account_of(1000)).name == "alice"


def test_an_answer_after_the_end_of_the_event_loop_is_dropped(database: AccountDatabase) -> None:
    accounts = Accounts(timeout=0.01)
    database.hold()

    async def give_up() -> None:
        with pytest.raises(TimedOut):
            await accounts.account_of(1000)

    anyio.run(give_up)
    database.release()
    for thread in database.by:
        thread.join(60)
        assert not thread.is_alive()
