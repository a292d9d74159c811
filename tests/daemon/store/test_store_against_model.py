"""The store against a dict: whatever is added, renamed, held, removed and swept, in any order, with a kill in between.

No manifest ever names a missing blob, nothing that is leased or pinned ever goes, and after a sweep past the grace
period nothing is left that nothing holds. The torture takes 10,000 steps.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modeld.progress import FileProgress, JobProgress
from modeld.store.catalog.history import THE_DAEMON
from modeld.store.digest import Digest
from modeld.store.ingest.copying import Source, stage_copy
from modeld.store.ingest.ingest import ReadyFile
from modeld.store.ingest.trusted import Origin
from modeld.store.names import ModelName
from modeld.store.publish.leases import Applicant, Lease
from modeld.store.publish.publishing import PublishRequest
from modelwire.errors import AlreadyExists, InUse, NotFound, WireError
from modelwire.values import Swept
from rigs.maintain_rig import Bench, later
from rigs.rough_peers import scaled
from rigs.waiting import eventually

T = TypeVar("T")

NAMES = ("a", "b", "c", "d:tag")

HOUR = 3600.0

ORIGIN = Origin(reference="there", spellings=("there",))

ITEMS: dict[str, dict[str, bytes]] = {
    "one": {"": b"GGUF one"},
    "two": {"": b"GGUF two"},
    "empty": {"": b"not empty"},
    "both": {"one.bin": b"GGUF one", "two.bin": b"GGUF two"},
    "twice": {"x/a.bin": b"GGUF two", "b.bin": b"GGUF two", "c.bin": b"GGUF three"},
}
"""Single files, and directories that share their contents."""

Blobs = frozenset[str]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blobs_of(item: str) -> Blobs:
    return frozenset(map(digest, ITEMS[item].values()))


@dataclass
class Model:
    item: str
    pinned: bool = False


@dataclass
class Held:
    lease: Lease
    name: str
    item: str
    ends: float | None
    """Of a detached one, by the machine's clock."""


names = st.sampled_from(NAMES)
items = st.sampled_from([*ITEMS])
singles = st.sampled_from([item for item, files in ITEMS.items() if "" in files])


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = Path(tempfile.mkdtemp(prefix="modeld-model-"))
        self.bench = Bench(self.room)
        self.loop = asyncio.Runner()
        self.models: dict[str, Model] = {}
        self.held: list[Held] = []
        self.there: set[str] = set()
        """The blobs that no sweep has taken yet."""
        self.now = 0.0
        self._begin()

    def _begin(self) -> None:
        leases = self.bench.store.leases
        leases._clock = leases._elapsed = lambda: self.now
        self.expiring = self.run_soon(leases.keep)

    def teardown(self) -> None:
        self._end()
        self.loop.close()
        shutil.rmtree(self.room)

    def _end(self) -> None:
        self.run(self._cancel())
        self.bench.close()

    async def _cancel(self) -> None:
        self.expiring.cancel()
        await asyncio.wait([self.expiring])

    # -- helpers

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def run_soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        async def begin() -> asyncio.Task[None]:
            return asyncio.create_task(work())

        return self.run(begin())

    def refused(self, work: Coroutine[Any, Any, object], *errors: type[WireError]) -> None:
        with pytest.raises(errors):
            self.run(work)

    @property
    def store(self) -> Any:
        return self.bench.store

    @property
    def kept(self) -> set[str]:
        """The blobs that something holds."""
        leased = [held.item for held in self.held]
        return set().union(*map(blobs_of, [*(model.item for model in self.models.values()), *leased]))

    def on_disk(self) -> set[str]:
        return {os.path.basename(os.path.dirname(path)) for path in self.bench.blobs()}

    def leased(self, name: str) -> bool:
        return any(held.name == name for held in self.held)

    def source(self, item: str) -> str:
        """Written anew each time: a move takes it away."""
        path = self.room / f"source-{item}"
        if path.is_dir():
            shutil.rmtree(path)
        for file, content in ITEMS[item].items():
            (path / file if file else path).parent.mkdir(parents=True, exist_ok=True)
            (path / file if file else path).write_bytes(content)
        return str(path)

    def stands(self, name: str, item: str) -> None:
        self.models[name] = Model(item, name in self.models and self.models[name].pinned)
        self.there |= blobs_of(item)

    # -- what makes models

    @rule(name=names, item=items, how=st.sampled_from(["copy", "move"]), replace=st.booleans())
    def add(self, name: str, item: str, how: Any, replace: bool) -> None:
        known = self.models.get(name)
        work = self.store.add(self.source(item), name=name, how=how, replace=replace)
        if known is not None and known.item != item and not replace:
            self.refused(work, AlreadyExists)
            return
        added = self.run(work)
        assert Blobs({added.blob.removeprefix("sha256:"), *(_hex(file.blob) for file in added.files)}) == blobs_of(item)
        self.stands(name, item)

    @rule(name=names, item=singles)
    def pull(self, name: str, item: str) -> None:
        """As a pull does: the bytes are committed alone, before a manifest names them."""
        known = self.models.get(name)
        work = self._pull(name, item)
        if known is not None and known.item != item:
            self.refused(work, AlreadyExists)
            self.there |= blobs_of(item)
            return
        self.run(work)
        self.stands(name, item)

    async def _pull(self, name: str, item: str) -> None:
        ingest, wanted = self.store.ingest, Digest(digest(ITEMS[item][""]))
        with ExitStack() as held:
            blob = await ingest.find(wanted, held, FileProgress(), THE_DAEMON, ingest.space)
            new = blob is None
            if blob is None:
                descriptor = os.open(self.source(item), os.O_RDONLY)
                try:
                    source = Source.of(descriptor, item)
                    stage = partial(stage_copy, self.bench.layout, source, space=ingest.space, progress=FileProgress())
                    blob = await ingest.commit(await ingest.in_thread(stage))
                finally:
                    os.close(descriptor)
            request = PublishRequest(name=ModelName.parse(name), progress=JobProgress(), provenance="there", order=0)
            ready = ReadyFile(path=f"{item}.bin", content=blob, role=None, new=new, read=new)
            await ingest.publish(request, [ready], {"registry": "here"}, origin=ORIGIN, alone=True)

    @rule(source=names, destination=names)
    def copy(self, source: str, destination: str) -> None:
        work = self.store.renaming.copy(source, destination)
        if source not in self.models:
            self.refused(work, NotFound)
        elif destination in self.models:
            self.refused(work, AlreadyExists)
        else:
            self.run(work)
            self.models[destination] = Model(self.models[source].item)

    @rule(source=names, destination=names)
    def move(self, source: str, destination: str) -> None:
        work = self.store.renaming.move(source, destination)
        if source not in self.models:
            self.refused(work, NotFound)
        elif destination in self.models or self.leased(source):
            self.refused(work, AlreadyExists, InUse)
        else:
            self.run(work)
            self.models[destination] = self.models.pop(source)

    @rule(name=names, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        work = self.store.renaming.remove(name, force=force)
        model = self.models.get(name)
        if model is None:
            self.refused(work, NotFound)
        elif not force and (model.pinned or self.leased(name)):
            self.refused(work, InUse)
        else:
            self.run(work)
            del self.models[name]

    @rule(name=names, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        work = self.store.pinning.pin(name, pinned=pinned)
        if name in self.models:
            self.run(work)
            self.models[name].pinned = pinned
        else:
            self.refused(work, NotFound)

    # -- leases

    @rule(name=names, ttl=st.sampled_from([None, 10.0, 1000.0]))
    def lease(self, name: str, ttl: float | None) -> None:
        work = self._lease(name, ttl)
        if name not in self.models:
            self.refused(work, NotFound)
            return
        lease = self.run(work)
        self.held.append(Held(lease, name, self.models[name].item, None if ttl is None else self.now + ttl))

    async def _lease(self, name: str, ttl: float | None) -> Lease:
        resolved = await self.store.resolver.resolve(name)
        applicant = Applicant(uid=1, user=1, pid=7, purpose="engine", connection="one")
        lease: Lease | None = await self.store.leases.take(resolved, applicant, ttl)
        assert lease is not None
        return lease

    @precondition(lambda self: self.held)
    @rule(chance=st.randoms(use_true_random=False))
    def release(self, chance: Any) -> None:
        held = self.held.pop(chance.randrange(len(self.held)))
        self.run(self.store.leases.release(self.store.leases.find(held.lease.id)))

    @rule(seconds=st.sampled_from([5.0, 20.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.held = [held for held in self.held if held.ends is None or held.ends > self.now]
        self.run(self._expire())

    async def _expire(self) -> None:
        leases = self.store.leases
        await eventually(lambda: leases._news is not None)
        leases._news.set()
        await eventually(lambda: len(leases) == len(self.held))

    # -- sweeps

    def sweep(self, **options: Any) -> Swept:
        swept: Swept = self.run(self.store.sweeper.sweep(**options))
        assert list(swept.notes) == []
        return swept

    @rule(ago=st.booleans())
    def sweep_past_grace(self, ago: bool) -> None:
        if ago:
            later(self.bench, 2 * HOUR)
            self.sweep(grace=HOUR)
            self.store.sweeper._clock = self.store.sweeper._unnamed._clock
        else:
            self.sweep(grace=0.0)
        self.there &= self.kept
        assert self.on_disk() == self.there == self.kept

    @rule()
    def sweep_within_grace(self) -> None:
        swept = self.sweep(grace=HOUR)
        assert [victim for victim in swept.victims if victim.kind == "blob"] == []
        assert swept.waiting == len(self.there - self.kept)

    @rule()
    def dry_run(self) -> None:
        swept = self.sweep(grace=0.0, dry_run=True)
        victims = {victim.path.split("/")[-2]: victim for victim in swept.victims if victim.kind == "blob"}
        assert set(victims) == self.there - self.kept
        for victim in victims.values():
            assert (victim.size_bytes, victim.reason != "") == (os.stat(victim.path).st_size, True)

    # -- the rest

    @rule()
    def verify(self) -> None:
        verification = self.run(self.store.verifier.verify())
        assert (verification.ok, verification.checked) == (True, len(self.models))

    @rule()
    def kill(self) -> None:
        """What was answered is durable; what waits to be written is lost. Leases of connections end, detached ones are
        kept."""
        self._end()
        self.held = [held for held in self.held if held.ends is not None]
        self.bench.open()
        self._restored()
        self._begin()

    def _restored(self) -> None:
        """The leases were loaded by the clocks of the system, which have nothing to do with the machine's."""
        leases = self.store.leases
        for held in self.held:
            kept = leases._live[held.lease.id]
            object.__setattr__(kept, "ends", held.ends)
            held.lease = kept

    # -- what always holds

    @invariant()
    def every_name_has_its_bytes(self) -> None:
        listed = self.store.index.page(None, None)
        assert {view.name: view.state for view in listed.models} == dict.fromkeys(self.models, "ready")
        assert not listed.damaged
        for name, model in self.models.items():
            view = self.store.models.view(name)
            assert view.pinned == model.pinned
            assert {_hex(view.blob), *(_hex(file.blob) for file in view.files)} == blobs_of(model.item)

    @invariant()
    def what_is_held_is_there(self) -> None:
        assert self.kept <= self.on_disk() == self.there
        assert len(self.store.leases) == len(self.held)

    @invariant()
    def nothing_is_left_behind(self) -> None:
        assert self.bench.staged() == []
        assert self.store.reserved_bytes == 0


def _hex(blob: str) -> str:
    return blob.removeprefix("sha256:")


class StoreAgainstModelForLong(StoreAgainstModel):
    """The same; each machine has one test."""


def steps(count: int, each: int) -> settings:
    return settings(
        max_examples=count // each,
        stateful_step_count=each,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = steps(400, 40)
TestForLong = pytest.mark.torture(StoreAgainstModelForLong.TestCase)
TestForLong.settings = steps(scaled(10_000, 1_000), 50)
