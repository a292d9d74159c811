"""The clients of the soak: each tells the model what it asks and what it is answered, or that it left before."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from modelclient import AsyncClient, AsyncWork
from modelwire.errors import ConnectionLost, ModeldError, NoDaemon, TimedOut, WireError
from modelwire.vocabulary import COMING
from rigs.soak_model import Content, Lie, Write
from rigs.soak_world import NAMES, SETTLE_SECONDS, START_SECONDS, World, blob_of, content_of

T = TypeVar("T")

LEAVE = ("wait",) * 7 + ("cancel", "detach", "drop")
"""What a client does about its work; `drop` is a scope that is cancelled, `close` a connection that is closed."""


class Gone(Exception):
    """The connection ended while the daemon did."""


class Worker:
    def __init__(self, world: World, seed: str, *, ways: tuple[str, ...] = LEAVE, patience: float = 0.4) -> None:
        self.world = world
        self.model = world.model
        self.chance = random.Random(seed)
        self.client: AsyncClient | None = None
        self._ways = ways
        self._patience = patience
        self._exit = AsyncExitStack()
        self._connected_at = 0
        self._token = 0
        self._cancelled: AsyncWork[Any] | None = None
        self._seed = seed
        self.actions: dict[Callable[[], Awaitable[None]], int] = {}
        """What it does, and how often."""

    async def run(self, enough: Callable[[], bool]) -> None:
        try:
            while not enough():
                if self.world.resting is not None:
                    await self.world.resting.wait()
                    continue
                with self.world.acting():
                    await self.act()
        finally:
            await self.disconnect()

    async def act(self) -> None:
        [action] = self.chance.choices([*self.actions], [*self.actions.values()])
        self.world.counts[action.__name__] += 1
        try:
            await action()
        except Gone:
            await self.disconnect()

    async def connected(self) -> AsyncClient:
        """The daemon may be away for as long as it starts."""
        began, deadline = self.model.now(), time.monotonic() + START_SECONDS
        while self.client is None:
            self._connected_at = self.model.now()
            try:
                # Outside of any scope with a deadline: the client's tasks live on.
                self.client = await self._exit.enter_async_context(self.world.client())
            except (NoDaemon, ConnectionLost) as fault:
                if not self.world.broke(began) or time.monotonic() > deadline:
                    raise Lie(f"the daemon was not reached: {fault}") from None
                await anyio.sleep(0.02)
        return self.client

    async def disconnect(self) -> None:
        self.client = None
        await self._exit.aclose()

    async def ask(self, question: Callable[[AsyncClient], Awaitable[T]], allowed: Collection[str] = ()) -> T | None:
        """A question without consequences: its answer, None for an error that the caller allows."""
        client, began = await self.connected(), self.model.now()
        try:
            return await question(client)
        except (ConnectionLost, NoDaemon) as fault:
            self._only_by_a_break(fault)
            raise Gone from None
        except WireError as fault:
            if fault.code in ("draining", "interrupted") and self.world.broke(began):
                raise Gone from None
            if fault.code not in allowed:
                raise Lie(f"{fault.code}: {fault} {fault.details}") from fault
            self.world.counts[f"answer {fault.code}"] += 1
            return None

    def _only_by_a_break(self, fault: ModeldError) -> None:
        """A client may notice late, when it next asks for something."""
        if not self.world.broke(self._connected_at):
            raise Lie(f"the connection ended while the daemon ran: {fault}") from fault

    async def work(
        self,
        start: Callable[[AsyncClient, dict[str, Any]], AsyncWork[Any]],
        writes: list[Write],
        allowed: Callable[[], Collection[str]],
        *,
        wrote: Callable[[Any], Content | str] = lambda value: value.blob,
        source: str | None = None,
        ways: tuple[str, ...] | None = None,
    ) -> Any:
        """Submits it and waits, cancels or leaves; after a kill it may ask again with the same token. Returns the value
        of work that was done and answered."""
        began, known_before = self.model.now(), False
        self._token += 1
        options: dict[str, Any] = {"token": f"{self._seed}-{self._token}", "priority": self.chance.randrange(1, 6)}
        if self.chance.random() < 0.3:
            options["on_disconnect"] = "continue"
        way = self.chance.choice(ways or self._ways)
        while True:
            client = await self.connected()
            work = start(client, options)
            try:
                value = await self._follow(work, way)
            except (ConnectionLost, NoDaemon) as fault:
                self._only_by_a_break(fault)
                await self.disconnect()
                self.world.learn(work.job, writes, told=None, source=source)
                if self.chance.random() < 0.5:
                    return None
                known_before = True
                continue
            except WireError as fault:
                self._refused(fault, work, began, writes, allowed(), known_before=known_before, source=source)
                return None
            if value is None:
                self.world.learn(work.job, writes, told=None, source=source)
                if way == "close":
                    await self.disconnect()
                return None
            self.world.counts["done"] += 1
            self.world.finish(writes, wrote(value))
            self.world.learn(work.job, writes, told="done", source=source)
            if source is not None and os.path.lexists(source):
                raise Lie(f"{source} was moved into the store, and is still there")
            return value

    async def _follow(self, work: AsyncWork[Any], way: str) -> Any:
        """The value, or None for work that was left before its end."""
        if way == "wait":
            return await work
        if way == "detach":
            if await work.accepted() is None:
                return await work.result()
            work.detach()
            return None
        seconds, value = self.chance.expovariate(1 / self._patience), None
        if way == "cancel":
            try:
                return await work.result(seconds)
            except TimedOut:
                self._cancel_asked(work)
                await work.cancel()
                return await work.result(SETTLE_SECONDS)
        with anyio.move_on_after(seconds):
            try:
                value = await work
            finally:
                self._cancel_asked(work)
        return value

    def _cancel_asked(self, work: AsyncWork[Any]) -> None:
        self._cancelled = work
        if work.job is not None:
            self.world.cancelled.add(work.job)

    def _refused(
        self,
        fault: WireError,
        work: AsyncWork[Any],
        began: int,
        writes: list[Write],
        allowed: Collection[str],
        *,
        known_before: bool,
        source: str | None,
    ) -> None:
        code, world = fault.code, self.world
        world.counts[f"answer {code}"] += 1
        if code == "cancelled" and (work is self._cancelled or work.job in world.cancelled):
            world.learn(work.job, writes, told=None, source=source)
        elif code in ("draining", "interrupted") and world.broke(began):
            if code == "draining" and not known_before and work.job is None:
                self._undo(writes, code)
            world.learn(work.job, writes, told=None, source=source)
        elif code == "queue_full":
            if not known_before and work.job is None:
                self._undo(writes, code)
            world.learn(work.job, writes, told=None, source=source)
        elif code in allowed:
            self._undo(writes, code)
            world.learn(work.job, [], told=code, source=source)
            if source is not None and not os.path.exists(source):
                raise Lie(f"{source} was not moved ({code}), and is gone")
        else:
            what = "; ".join(map(str, writes)) or "no change"
            try:
                self.model.lie(writes[0].name if writes else "?", f"{what} since {began} ends with {code}: {fault}")
            except Lie as lie:
                raise Lie(f"{lie}\n  details: {fault.details}, job {work.job}") from fault

    def _undo(self, writes: list[Write], why: str) -> None:
        for write in writes:
            self.model.undone(write, why)

    def name(self) -> str:
        return self.chance.choice(NAMES)

    async def _read(self, name: str, began: int, path: str, blob: str) -> None:
        """The bytes at a path that was given out: what its digest says, unless the model has been removed since."""
        try:
            seen = await to_thread.run_sync(_digests, path)
        except (FileNotFoundError, NotADirectoryError):
            contents = {content for content in self.model.possible(name, began) if content and blob in content}
            if not any(self.model.may_differ(name, began, content) for content in contents) and not (
                self.model.may_be_absent(name, began)
            ):
                self.model.lie(name, f"{path} is gone")
            return
        possible = [content for content in self.model.possible(name, began) if content and blob in content]
        whole = any(seen == content for content in possible)
        if not whole and not self.model.may_be_absent(name, began) and len(self.model.possible(name, began)) == 1:
            self.model.lie(name, f"{path} has the bytes of {seen}")
        if os.path.isfile(path) and seen != (blob,):
            self.model.lie(name, f"{path} has the bytes of {seen}, {blob} was said")

    def judge_list(self, began: int, found: dict[str, tuple[str, ...]]) -> None:
        if strange := found.keys() - set(NAMES):
            raise Lie(f"nobody made {strange}")
        for name in NAMES:
            self.model.saw(name, began, found.get(name), "list")

    async def list(self) -> None:
        with self.model.step() as began:
            listed = await self.ask(lambda client: client.list_models(sort=self.chance.choice((None, "-size", "used"))))
            assert listed is not None
            self.judge_list(began, {view.name: content_of(view) for view in listed.models if view.state not in COMING})
            if strange := [name for name in listed.damaged if "junk" not in name and "not a name" not in name]:
                raise Lie(f"damaged: {strange}")

    def agrees(self, job: str, state: str, code: str | None) -> None:
        """The state of a job that has ended, and what a client was told of its end."""
        told = self.world.jobs[job].told
        if (told == "done" and state != "done") or (told not in (None, "done") and (state, code) != ("failed", told)):
            raise Lie(f"job {job} is {state} {code}, a client was told {told}")


def _digests(path: str) -> tuple[str, ...]:
    """Of all files at a path that was given out."""
    if os.path.isfile(path):
        return (blob_of(path),)
    if not os.path.isdir(path):
        raise FileNotFoundError(path)
    return tuple(sorted(blob_of(each) for each in Path(path).rglob("*") if each.is_file() or each.is_symlink()))
