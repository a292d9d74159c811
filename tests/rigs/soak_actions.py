"""What a client of the soak does, at random, and what the model allows as the answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from modelclient import AsyncClient, AsyncWork
from modelwire.errors import ConnectionLost, NoDaemon, WireError
from modelwire.vocabulary import COMING, GIVEN_OUT
from rigs.soak_clients import LEAVE, Gone, Worker
from rigs.soak_model import Lie
from rigs.soak_world import NAMES, Item, World, content_of, jobs_in

PULLS = {"address": 20, "changing": 4, "path": 3, "offline": 3, "missing": 2, "unreachable": 1}


class SoakClient(Worker):
    def __init__(self, world: World, seed: str, *, ways: tuple[str, ...] = LEAVE, patience: float = 0.4) -> None:
        super().__init__(world, seed, ways=ways, patience=patience)
        self.actions = {
            self.add: 14,
            self.pull: 12,
            self.copy: 7,
            self.move: 6,
            self.remove: 8,
            self.resolve: 14,
            self.show: 6,
            self.list: 3,
            self.pull_name: 3,
            self.verify: 3,
            self.sweep: 3,
            self.control: 7,
            self.attach: 3,
            self.look_round: 4,
            self.configure: 1,
            self.refused: 2,
        }

    async def add(self) -> None:
        item, name, replace = self.chance.choice(self.world.items), self.name(), self.chance.random() < 0.5
        how = self.chance.choices(("copy", "move", "link"), (6, 3, 2))[0]
        path = item.path if how == "copy" else await to_thread.run_sync(self.world.copy_of, item)
        digest = self._digest(item)
        kinds = {"move": how == "move", "link": how == "link"}
        single = os.path.isdir(path) or len(item.content) == 1
        start = partial(_added, path, name, digest, replace, kinds)
        source = path if how == "move" and single else None
        await self._bring(f"add, {how}", name, item.content, start, digest, replace=replace, item=item, source=source)
        if how == "link" and self.chance.random() < 0.3 and os.path.isfile(path):
            os.unlink(path)

    def _digest(self, item: Item) -> str | None:
        if item.digest is None:
            return None
        return self.chance.choices((None, item.digest, f"{self.chance.getrandbits(256):064x}"), (6, 2, 1))[0]

    async def _bring(
        self,
        what: str,
        name: str,
        content: tuple[str, ...],
        start: Callable[[AsyncClient, dict[str, Any]], AsyncWork[Any]],
        digest: str | None,
        *,
        replace: bool,
        item: Item,
        source: str | None = None,
        also: Collection[str] = (),
    ) -> None:
        with self.model.step() as began:
            wrong = digest not in (None, item.digest)

            def allowed() -> set[str]:
                codes = {"digest_mismatch"} if wrong else set()
                if not replace and self.model.may_differ(name, began, None if wrong else content):
                    codes.add("already_exists")
                return codes | set(also)

            write = self.model.begin(name, () if wrong else {content}, f"{what} {item.path} {name}")
            await self.work(start, [write], allowed, wrote=content_of, source=source)

    async def pull(self) -> None:
        name, replace = self.name(), self.chance.random() < 0.5
        item = self.chance.choice([item for item in self.world.items if item.address])
        assert item.address is not None
        [kind] = self.chance.choices([*PULLS], [*PULLS.values()])
        digest, offline, ref, also = self._digest(item), kind == "offline", item.address, set[str]()
        if kind == "changing":
            await self._pull_changing(name, replace)
            return
        if kind == "address":
            also = self.world.faults_of(item.address)
        elif kind == "path":
            ref = item.path
        elif kind == "offline":
            also = {"offline"}
        elif kind in ("missing", "unreachable"):
            ref = f"{self.world.web.plain}/none.gguf" if kind == "missing" else "http://127.0.0.1:9/none.gguf"
            also = {"source_not_found"} if kind == "missing" else {"source_unavailable"}
            item, digest = Item(ref, ("sha256:none",)), None
        rate = self.chance.choice((None, None, 3_000_000, 12_000_000))
        start = partial(_pulled, ref, name, digest, replace, offline, rate, None)
        await self._bring(f"pull, {kind}", name, item.content, start, digest, replace=replace, item=item, also=also)

    async def _pull_changing(self, name: str, replace: bool) -> None:
        """What the address stands for at some moment of the pull."""
        address, place = self.chance.choice([*self.world.changing.items()])
        with self.model.step() as began:
            write = self.model.begin(name, (), f"pull {address}", source=place)

            def allowed() -> set[str]:
                return set() if replace or self.model.possible(name, began) == {None} else {"already_exists"}

            # A license of its own keeps it from sharing the job of a pull that began before.
            start = partial(_pulled, address, name, None, replace, False, None, f"l-{self._seed}-{began}")
            await self.work(start, [write], allowed, wrote=content_of)
        if self.chance.random() < 0.5:
            self.world.change(address)

    async def copy(self) -> None:
        await self._rename("cp")

    async def move(self) -> None:
        await self._rename("mv")

    async def _rename(self, verb: str) -> None:
        source, destination = self.name(), self.name()
        with self.model.step() as began:
            writes = [self.model.begin(destination, (), f"{verb} {source} {destination}", source=source)]
            if verb == "mv":
                writes.append(self.model.begin(source, {None}, f"mv {source} {destination}"))

            def allowed() -> set[str]:
                codes = {"not_found"} if self.model.may_be_absent(source, began) else set()
                exists = source == destination or self.model.possible(destination, began) != {None}
                return codes | ({"already_exists"} if exists else set())

            if verb == "cp":
                await self.work(
                    lambda client, options: client.copy(source, destination, **options),
                    writes,
                    allowed,
                    wrote=lambda value: tuple(sorted(value.blobs)),
                )
            else:
                await self.work(lambda client, options: client.move(source, destination, **options), writes, allowed)

    async def remove(self) -> None:
        name, now = self.name(), self.chance.random() < 0.4
        with self.model.step() as began:
            write = self.model.begin(name, {None}, f"rm {name}")
            await self.work(
                lambda client, options: client.remove(name, now=now, **options),
                [write],
                lambda: {"not_found"} if self.model.may_be_absent(name, began) else (),
                wrote=lambda _: None,
            )

    async def resolve(self) -> None:
        name = self.name()
        with self.model.step() as began:
            found = await self.ask(lambda client: client.resolve(name), ("not_found",))
            if found is None:
                self.model.saw(name, began, None, "resolve")
                return
            if found.state not in GIVEN_OUT:
                raise Lie(f"{name} was resolved while it is {found.state}")
            self.model.saw_blob(name, began, found.blob, "resolve")
            await self._read(name, began, found.path, found.blob)

    async def show(self) -> None:
        name = self.name()
        with self.model.step() as began:
            view = await self.ask(lambda client: client.show(name), ("not_found",))
            here = view is not None and view.state not in COMING
            self.model.saw(name, began, content_of(view) if here else None, "show")

    async def pull_name(self) -> None:
        """A pull of a name that is here looks at it, and fetches nothing."""
        name = self.name()
        with self.model.step() as began:
            value = await self.work(
                lambda client, options: client.pull(name, **options),
                [],
                lambda: {"not_found"} if self.model.may_be_absent(name, began) else (),
                wrote=content_of,
            )
            if value is not None:
                self.model.saw(name, began, content_of(value), "pull of the name")

    async def verify(self) -> None:
        names = self.chance.sample(NAMES, self.chance.randrange(3))
        with self.model.step() as began:
            value = await self.work(
                lambda client, options: client.verify(*names, **options),
                [],
                lambda: {"not_found"} if any(self.model.may_be_absent(name, began) for name in names) else (),
                wrote=lambda _: None,
            )
            for row in () if value is None else value.models:
                if not row.ok and not self.model.may_be_absent(row.name, began):
                    self.model.lie(row.name, f"verify: {row}")

    async def sweep(self) -> None:
        grace = self.chance.choice((None, 0.0))
        dry, partials = self.chance.random() < 0.3, self.chance.random() < 0.3

        def start(client: AsyncClient, options: dict[str, Any]) -> AsyncWork[Any]:
            return client.sweep(grace=grace, dry_run=dry, partials=partials, **options)

        if grace is None:
            await self.work(start, [], lambda: (), wrote=lambda _: None)
            return
        async with self.world.exclusive:
            if await self.work(start, [], lambda: (), wrote=lambda _: None) is None:
                self.world.sweep_unknown = True

    async def control(self) -> None:
        """Somebody's job is cancelled, paused for a while, or given another priority."""
        client = await self.connected()
        jobs = await self.ask(lambda client: jobs_in(client, "queued", "running"))
        if not jobs:
            return
        job = self.chance.choice(jobs).id
        what = self.chance.choice(("cancel", "discard", "pause", "pause", "prioritize"))
        if what in ("cancel", "discard"):
            self.world.cancelled.add(job)
            await self.ask(lambda client: client.cancel_job(job, discard=what == "discard"))
        elif what == "prioritize":
            await self.ask(lambda client: client.prioritize(job, self.chance.randrange(1, 6)), ("invalid_request",))
        else:
            await self.ask(lambda client: client.pause(job), ("invalid_request", "queue_full"))
            await anyio.sleep(self.chance.random() * self._patience)
            if self.client is client:
                await self.ask(lambda client: client.resume(job), ("invalid_request", "queue_full"))

    async def attach(self) -> None:
        if not self.world.jobs:
            return
        job = self.chance.choice([*self.world.jobs])
        client, began = await self.connected(), self.model.now()
        work, view = client.attach(job), None
        try:
            with anyio.move_on_after(self.chance.random()):
                view = await work
        except (ConnectionLost, NoDaemon) as fault:
            self._only_by_a_break(fault)
            raise Gone from None
        except WireError as fault:
            if fault.code not in ("draining", "interrupted") or not self.world.broke(began):
                raise Lie(f"attach {job}: {fault.code}: {fault}") from fault
            return
        if view is not None:
            self.agrees(job, view.state, None if view.error is None else view.error.code)

    async def look_round(self) -> None:
        await self.ask(lambda client: client.status())
        usage = await self.ask(lambda client: client.usage())
        jobs = await self.ask(lambda client: client.jobs(limit=20))
        quarantine = await self.ask(lambda client: client.quarantine())
        if usage is None or jobs is None or quarantine is None or usage.on_disk_bytes < usage.partial_bytes:
            raise Lie(f"usage: {usage}")
        seen: list[int] = []
        client, began = await self.connected(), self.model.now()
        try:
            async with client.subscribe(last=50, follow=False) as events:
                seen = [getattr(event, "seq", 0) async for event in events]
        except (ConnectionLost, NoDaemon) as fault:
            self._only_by_a_break(fault)
            raise Gone from None
        except WireError as fault:
            if not self.world.broke(began):
                raise Lie(f"log: {fault.code}: {fault}") from fault
        if seen != sorted(set(seen)):
            raise Lie(f"the log has the lines {seen}")

    async def configure(self) -> None:
        settings = {
            "max_rate": self.chance.choice((0, 0, 20_000_000)),
            "running_bytes": self.chance.randrange(1, 5),
            "running_fetches": self.chance.randrange(1, 4),
            "waiting_per_peer": self.chance.choice((6, 16, 64)),
        }
        await self.ask(lambda client: client.configure(**settings))

    async def refused(self) -> None:
        """What is no model, has no good name, or is not there: refused, and nothing is changed."""
        page = os.path.join(self.world.daemon.room, "page.gguf")
        if not os.path.exists(page):
            Path(page).write_bytes(b"<!DOCTYPE html><html></html>")
        kind = self.chance.choice(("page", "page", "name", "absent"))
        path = page if kind != "absent" else f"{page}.absent"
        name = "../up" if kind == "name" else self.name()
        write = self.model.begin(name if kind != "name" else NAMES[0], (), f"add of {kind}")
        codes = {
            "page": {"corrupt", "already_exists"},
            "name": {"invalid_name"},
            "absent": {"source_not_found", "already_exists"},
        }[kind]
        start = partial(_added, path, name, None, self.chance.random() < 0.5, {})
        await self.work(start, [write], lambda: codes, wrote=content_of, ways=("wait",))


def _added(
    path: str, name: str, digest: str | None, replace: bool, kinds: dict[str, bool], client: AsyncClient,
    options: dict[str, Any],
) -> AsyncWork[Any]:  # fmt: skip
    return client.add(path, name=name, sha256=digest, replace=replace, **kinds, **options)  # type: ignore[arg-type]


def _pulled(
    ref: str, name: str, digest: str | None, replace: bool, offline: bool, rate: int | None, licence: str | None,
    client: AsyncClient, options: dict[str, Any],
) -> AsyncWork[Any]:  # fmt: skip
    options = options | {"name": name, "sha256": digest, "replace": replace, "license": licence}
    return client.pull(ref, offline=offline, max_rate=rate, **options)
