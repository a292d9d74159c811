"""The moment of truth: all clients rest, and what was said in the soak or the storm is compared with what is there."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import methodcaller

import anyio
from anyio import to_thread

from modelclient import AsyncClient
from modeld.store.manifests.index import LOOKING_THREADS
from rigs.real_daemon import RealDaemon
from rigs.soak_clients import Worker
from rigs.soak_model import Lie
from rigs.soak_world import NAMES, World, blob_of, jobs_in, queue_is_empty, status_figures
from rigs.waiting import wait_until

MEMORY_MIB, SHARED_MIB, THREADS, DESCRIPTORS = 24, 3, LOOKING_THREADS, 8
"""What a daemon may keep of all that it did: some heap, no buffers, the threads that look at manifests."""


class Settling:
    """It has a client of its own, which looks as all others do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = world.model
        self.looker = Worker(world, "the settling")

    @asynccontextmanager
    async def resting(self, clients: int) -> AsyncIterator[None]:
        """No client does anything and no job is under way. So many clients may have a connection."""
        self.world.resting = anyio.Event()
        await self._rest(clients)
        yield
        self.world.resting.set()
        self.world.resting = None

    async def settle(self, clients: int) -> None:
        """The judgement of a round."""
        async with self.resting(clients):
            await self.judge()
            await self.corrupted()
        figures = ", ".join(f"{name} {value:.0f}" for name, value in status_figures(self.world.daemon).items())
        print(f"settled after {self.world.requests} requests, {self.model.looks} looks: {figures}", file=sys.stderr)

    async def fresh(self) -> dict[str, float]:
        """The figures of a daemon that has done each kind of work once, and nothing since."""
        client, item = await self.looker.connected(), self.world.items[7]
        await client.verify()
        await client.pull(str(item.address), name="warm")
        await client.remove("warm", now=True)
        await anyio.sleep(4)
        return status_figures(self.world.daemon)

    async def _rest(self, connected: int) -> None:
        await self.looker.disconnect()  # from a daemon that may have ended since
        client = await self.looker.connected()

        async def quiet() -> bool:
            for job in await jobs_in(client, "paused"):
                await self.looker.ask(methodcaller("resume", job.id), ("invalid_request", "queue_full"))
            if self.world.busy or not await queue_is_empty(client):
                return False
            return (await client.status()).connections <= connected + 1

        try:
            await self.world.until(quiet, "the end of all work")
        except Lie as lie:
            jobs = await jobs_in(client, "queued", "running", "paused")
            rows = "\n".join(f"{job.id} {job.state} {job.kind} {job.model} {job.progress}" for job in jobs)
            raise Lie(f"{lie}; {self.world.busy} clients wait for\n{rows}\n{await client.status()}") from None

    async def judge(self) -> None:
        """While all rest."""
        world = self.world
        await self._jobs(await self.looker.connected())
        for write in self.model.open_writes():
            self.model.over(write, "nobody knows of its job, and none is left")
        await self.looker.list()
        for name in NAMES:
            await self._name(name)
        await self._verified()
        world.clear_junk()
        await self._swept()
        world.no_incident()
        world.sweep_unknown = False

    async def _jobs(self, client: AsyncClient) -> None:
        """Each acknowledged job is known, ended as was told, and did what its end says."""
        for number, known in self.world.jobs.items():
            view = await client.job(number)
            code = None if view.error is None else view.error.code
            self.looker.agrees(number, view.state, code)
            if view.state == "done":
                open_ = [write for write in known.writes if not write.certain]
                if open_:
                    self.world.finish(open_, str(view.value["blob"]))
            elif view.state in ("failed", "cancelled"):
                if known.told == "done" or any(write.certain for write in known.writes):
                    raise Lie(f"job {number} is {view.state} {code}, and a client was told that it did its work")
                # A page that is no model is refused as corrupt; nothing else may be.
                words = "" if view.error is None else view.error.message
                if code == "internal" or (code == "corrupt" and "is no model" not in words):
                    raise Lie(f"job {number} failed: {view.error}")
                for write in known.writes:
                    self.model.undone(write, f"job {number} is {view.state} {code}")
            else:
                raise Lie(f"job {number} is {view.state}, and nothing is under way")
            if known.source is not None and (view.state == "done") == os.path.lexists(known.source):
                there = "is" if os.path.lexists(known.source) else "is not"
                raise Lie(f"job {number} moves {known.source}, which {there} there, and is {view.state}: {view.error}")
        self.world.jobs.clear()

    async def _name(self, name: str) -> None:
        with self.model.step() as began:
            found = await self.looker.ask(lambda client: client.resolve(name), ("not_found",))
            if found is None:
                self.model.saw(name, began, None, "the settling")
            else:
                self.model.saw_blob(name, began, found.blob, "the settling")
                await self.looker._read(name, began, found.path, found.blob)

    async def _verified(self) -> None:
        client, began = await self.looker.connected(), self.model.now()
        verified = await client.verify()
        there = [name for name in NAMES if not self.model.may_be_absent(name, began)]
        if bad := [row for row in verified.models if not row.ok and row.name in NAMES]:
            raise Lie(f"verify: {bad}")
        if set(there) != {row.name for row in verified.models if row.name in NAMES}:
            raise Lie(f"verified {[row.name for row in verified.models]}, there are {there}")

    async def _swept(self) -> None:
        """What nothing needs goes, at once and without a trace; what a name needs stays."""
        client, world = await self.looker.connected(), self.world
        notes: tuple[str, ...] = ()

        async def nothing_left() -> bool:
            nonlocal notes
            # A pull that was cancelled is answered at once, and closes its files a moment later.
            notes = (await client.sweep(grace=0.0, partials=True)).notes
            return not world.leftovers()

        try:
            await world.until(nothing_left, "an empty staging", 30)
        except Lie as lie:
            raise Lie(f"{lie}: {world.leftovers()}, {notes}, open: {world.opened()}") from None
        named, there = world.named_blobs(), world.disk_blobs()
        if named != there:
            raise Lie(f"without a name {there - named}, without bytes {named - there}")
        await client.sweep(quarantine=True)
        if items := (await client.quarantine()).items:
            raise Lie(f"in quarantine after it was emptied: {items}")

    async def corrupted(self) -> None:
        """What the soak itself damages is found, said and mended. While all rest."""
        items = {item.content: item for item in self.world.items}
        now = self.model.now()
        hurt = [name for name in NAMES if any(c in items for c in self.model.possible(name, now) if c and len(c) == 1)]
        if not hurt:
            return
        client, [content] = await self.looker.connected(), self.model.possible(hurt[0], now)
        assert content is not None
        sharing = [name for name in NAMES if content[0] in (next(iter(self.model.possible(name, now))) or ())]
        path = (await client.resolve(hurt[0])).path

        def damage() -> None:
            os.chmod(path, 0o644)
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) - 1)
                last = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([last[0] ^ 1]))

        await to_thread.run_sync(damage)
        verified = await client.verify()
        bad = sorted(row.name for row in verified.models if not row.ok)
        if verified.ok or bad != sorted(sharing):
            raise Lie(f"{path} is damaged, which {sharing} have; verify found {bad}")
        await self.looker.ask(lambda client: client.resolve(hurt[0]), ("corrupt",))
        kept = (await client.quarantine()).items
        if len(kept) != 1 or blob_of(kept[0].path) == content[0]:
            raise Lie(f"the damaged bytes are not in quarantine: {kept}")
        await client.sweep(quarantine=True)
        added = await client.add(items[content].path, name=hurt[0])
        if added.blob != content[0] or blob_of(added.path) != content[0]:
            raise Lie(f"mended with other bytes: {added}")
        await self._verified()

    def log_agrees(self) -> None:
        """Each job has one end in the activity log at most, and no line comes twice."""
        lines = self.world.daemon.activity()
        ends = Counter(line["job"] for line in lines if line["event"] in ("job.done", "job.failed", "job.cancelled"))
        if twice := {job: count for job, count in ends.items() if count > 1}:
            raise Lie(f"ended more than once: {twice}")
        numbers = [line["seq"] for line in lines]
        if numbers != sorted(set(numbers)):
            raise Lie("the log's numbers do not ascend")


def resources_back(daemon: RealDaemon, fresh: dict[str, float], memory_mib: float = MEMORY_MIB) -> None:
    most = {"Rss": memory_mib, "Pss_Shmem": SHARED_MIB, "threads": THREADS, "descriptors": DESCRIPTORS}

    def back() -> bool:
        daemon.ask("store.usage")  # idle threads end when the next work needs one
        now = status_figures(daemon)
        return all(now[name] <= fresh[name] + more for name, more in most.items())

    try:
        wait_until(back, 60, what="the return of memory, threads and descriptors")
    finally:
        print(f"fresh {fresh}\nafter {status_figures(daemon)}", file=sys.stderr)


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first is what is to be read."""
    found = group.exceptions[0]
    return first(found) if isinstance(found, BaseExceptionGroup) else found
