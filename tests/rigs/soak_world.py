"""The world of the soak and the storm: one daemon that is killed and started, files, servers, and what is known.

`settled` is the moment of truth: all clients rest, all jobs have ended, and everything that was answered is compared
with the store, the jobs and the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from modelclient import AsyncClient
from modelwire import values
from modelwire.vocabulary import JobState
from rigs.chaos_server import Chaos
from rigs.foreign_producer import Producer
from rigs.pull_rig import MIB, gguf, partials
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx
from rigs.rough_peers import incidents, staging
from rigs.soak_model import OPEN, Content, Lie, Model, Write

NAMES = tuple(f"n{number}" for number in range(18)) + tuple(f"t{number}:q4" for number in range(6))

START_SECONDS = 60.0
"""Until the daemon answers again, on a machine that does much else."""

SETTLE_SECONDS = 240.0
"""Until the last job has ended: many of them wait for slots, and pulls that are slowed down go on."""


@dataclass(frozen=True)
class Item:
    """What can be brought in: its path on this machine, and the model that it becomes."""

    path: str
    content: tuple[str, ...]
    address: str | None = None

    @property
    def digest(self) -> str | None:
        """Of a single file."""
        return self.content[0].removeprefix("sha256:") if len(self.content) == 1 else None


@dataclass
class Known:
    """Of one job: the changes that it is to make, and how it ended as far as a client was answered."""

    writes: list[Write]
    told: str | None = None
    """`done`, or the code of its error."""

    source: str | None = None
    """What a move takes away when it is done, and not before."""


@dataclass
class Life:
    began: int
    ended: int = OPEN


def blob_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def content_of(value: Any) -> tuple[str, ...]:
    """Of a value or view of a model, however it was decoded."""
    plain = value if isinstance(value, dict) else {"blob": value.blob, "files": value.files}
    files = [each["blob"] if isinstance(each, dict) else each.blob for each in plain.get("files", ())]
    return tuple(sorted(files or [plain["blob"]]))


@dataclass
class World:
    daemon: RealDaemon
    web: Nginx
    chaos: Chaos
    chance: random.Random
    seed: int
    model: Model = field(default_factory=Model)
    items: list[Item] = field(default_factory=list)
    changing: dict[str, str] = field(default_factory=dict)
    """By address, the name under which the model keeps what that address stands for."""

    jobs: dict[str, Known] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    breaks: list[Life] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    resting: anyio.Event | None = None
    busy: int = 0
    exclusive: anyio.Lock = field(default_factory=anyio.Lock)
    """Of another tool, between its blob and its manifest, and of sweeps that do not wait for such tools."""

    sweep_unknown: bool = False
    """A sweep of that kind may come at any moment."""

    junk: dict[str, bytes] = field(default_factory=dict)
    _files: int = 0

    @property
    def requests(self) -> int:
        """How many were sent, as far as it is counted: answers are counted beside them."""
        apart = ("answer ", "modelctl exit ", "cancelled in bursts", "done", "burst")
        return sum(count for what, count in self.counts.items() if not what.startswith(apart))

    # -- files and servers

    def furnish(self) -> None:
        source = Path(self.daemon.room, "sources")
        source.mkdir()
        for number in range(16):
            size = (7 * MIB if number % 8 == 7 else 300_000 if number % 2 else 900) + number
            name = f"m{number}.gguf" if number % 3 else f"m{number}.bin"
            content = gguf(size, seed=number)
            (source / name).write_bytes(content)
            (self.web.files / name).write_bytes(content)
            self.items.append(Item(str(source / name), (blob_of(source / name),), f"{self.web.plain}/{name}"))
        for number in range(3):
            directory = source / f"d{number}"
            directory.mkdir()
            (directory / "shared.txt").write_bytes(b"the same in all directories" * 99)
            for part in range(3):
                (directory / f"w{part}.bin").write_bytes(gguf(50_000 * part + 99, seed=100 + number + part))
            self.items.append(Item(str(directory), tuple(sorted(map(blob_of, directory.iterdir())))))
        shards = [source / f"s-0000{part}-of-00002.gguf" for part in (1, 2)]
        for part, path in enumerate(shards):
            path.write_bytes(gguf(200_000, seed=200 + part))
        self.items.append(Item(str(shards[1]), tuple(sorted(map(blob_of, shards)))))
        (self.web.files / "m").mkdir()
        (self.web.files / "m" / "big.gguf").write_bytes(self.chaos.content)
        rough = (f"sha256:{hashlib.sha256(self.chaos.content).hexdigest()}",)
        big = str(self.web.files / "m" / "big.gguf")
        self.items += [Item(big, rough, f"{self.web.plain}/m/big.gguf"), Item(big, rough, f"{self.chaos.url}/c.gguf")]
        for number in range(2):
            address = f"{self.web.plain}/changing-{number}.gguf"
            self.changing[address] = f"at {address}"
            self.change(address)

    def change(self, address: str) -> None:
        """Another version at this address, of another size: its validator is made of size and time."""
        self._files += 1
        path = self.web.files / address.rpartition("/")[2]
        Path(f"{path}.new").write_bytes(gguf(40_000 + self._files, seed=self._files + 10_000))
        write = self.model.begin(self.changing[address], {(blob_of(f"{path}.new"),)}, "the server changes")
        os.replace(f"{path}.new", path)
        self.model.done(write, (blob_of(path),))

    def faults_of(self, address: str) -> set[str]:
        """What a pull of this address may end with, beside its success: a rough server may do without a length, and
        such an answer is not trusted. That of a mirror leads to the next source."""
        return {"source_unavailable"} if address.startswith(self.chaos.url) else set()

    def copy_of(self, item: Item) -> str:
        """Files of its own for a request that takes them away or shares them."""
        self._files += 1
        directory = os.path.join(self.daemon.room, f"own-{self._files}")
        os.mkdir(directory)
        path = os.path.join(directory, os.path.basename(item.path))
        if os.path.isdir(item.path):
            return str(shutil.copytree(item.path, path))
        if len(item.content) > 1:
            for shard in Path(item.path).parent.glob("s-0000*"):
                shutil.copy(shard, directory)
            return path
        return str(shutil.copy(item.path, path))

    async def publish_as_another_tool(self, name: str) -> None:
        """By the steps of the contract, with bytes that no other model has."""
        self._files += 1
        path = os.path.join(self.daemon.room, f"foreign-{self._files}")
        Path(path).write_bytes(gguf(20_000 + self._files, seed=1_000_000 + self._files))
        blob = blob_of(path)
        write = self.model.begin(name, {(blob,)}, "another tool publishes")

        def publish() -> None:
            producer = Producer(self.daemon.root, name, blob.removeprefix("sha256:"), path)
            producer.lock()
            try:
                for step in (producer.begin, producer.finish, producer.name, producer.clear, producer.publish):
                    step()
            finally:
                producer.unlock()

        await to_thread.run_sync(publish)
        self.model.done(write, (blob,))
        os.unlink(path)

    def litter(self, number: int) -> None:
        """What no tool of this layout writes, at places where the daemon looks."""
        root = self.daemon.root
        for path, content in {
            f"{root}/manifests/junk-{number}.json": b"\0\xff{" + os.urandom(40),
            f"{root}/manifests/.junk-{number}": b"{}",
            f"{root}/manifests/not a name {number}.json": b"[1, 2]",
            f"{root}/blobs/sha256/zz-{number}": b"no directory",
            f"{root}/blobs/sha256/00/junk-{number}": b"no blob",
            f"{root}/locks/quarantine/junk-{number}": b"kept by hand",
        }.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(content)
            self.junk[path] = content

    def clear_junk(self) -> None:
        for path, content in self.junk.items():
            if not os.path.exists(path) or Path(path).read_bytes() != content:
                raise Lie(f"{path} is not the daemon's, and was changed or removed")
            os.unlink(path)
        self.junk.clear()

    # -- the daemon's lives

    def broke(self, since: int) -> bool:
        """Whether the daemon was killed, stopped or away at or after this tick."""
        return any(life.ended >= since for life in self.breaks)

    async def restart(self, stop: Callable[[], object]) -> None:
        """Ends the daemon in this way, and starts it with other settings."""
        life = Life(self.model.now())
        self.breaks.append(life)
        await to_thread.run_sync(stop)
        await self.start()
        life.ended = self.model.now()

    def terminate(self) -> None:
        ended = self.daemon.terminate(60)
        if ended != 0:
            raise Lie(f"the daemon was asked to stop and ended with {ended}")

    async def start(self) -> None:
        chance = self.chance
        self.daemon.configure(
            f"""
            [store]
            min_free = "0"
            grace = "{chance.choice((5, 600))}s"
            sweep = "{chance.choice(("auto", "off"))}"
            [limits]
            running_bytes = {chance.choice((1, 2, 4))}
            running_fetches = {chance.choice((1, 3))}
            connections_per_peer = 1024
            requests_per_peer = 4096
            waiting_per_peer = {chance.choice((6, 32))}
            [daemon]
            drain_deadline = "3s"
            [activity]
            max_bytes = "1GiB"
            [[mirror]]
            match = "{self.web.plain}/m/"
            url = "{self.chaos.url}/"
            """
        )
        word = await to_thread.run_sync(self.daemon.spawn)
        if not word.startswith("READY"):
            raise Lie(f"the daemon does not start: {word!r}\n{self.daemon.log()[-4000:]}")

    def client(self) -> AsyncClient:
        return AsyncClient(self.daemon.socket, start=False, timeout=120)

    # -- what becomes known

    def finish(self, writes: list[Write], wrote: Content | str) -> None:
        for write in writes:
            self.model.done(write, None if write.values == {None} else wrote)

    def learn(self, job: str | None, writes: list[Write], *, told: str | None, source: str | None = None) -> None:
        """A client knows this of its job. Several may share one."""
        if job is None:
            return
        known = self.jobs.setdefault(job, Known([]))
        known.writes += writes
        known.source = known.source or source
        if told is not None:
            if known.told not in (None, told):
                raise Lie(f"job {job} ended as {known.told} for one client, and as {told} for another")
            known.told = told

    @contextmanager
    def acting(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = SETTLE_SECONDS) -> None:
        with anyio.move_on_after(seconds):
            while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await anyio.sleep(0.05)
            return
        raise Lie(f"{what} did not come within {seconds:.0f} s")

    def disk_blobs(self) -> set[str]:
        found = Path(self.daemon.root, "blobs", "sha256").glob("*/*/data")
        return {f"sha256:{path.parent.name}" for path in found}

    def named_blobs(self) -> set[str]:
        named: set[str] = set()
        for path in Path(self.daemon.root, "manifests").glob("*.json"):
            named.update(content_of(json.loads(path.read_bytes())))
        return named

    def leftovers(self) -> list[str]:
        return [*staging(self.daemon), *partials(self.daemon)]

    def opened(self) -> list[str]:
        """The files that the daemon has open."""
        found = Path(f"/proc/{self.daemon.pid}/fd")
        return [os.readlink(each) for each in found.iterdir() if os.path.exists(each)]

    def no_incident(self) -> None:
        if found := incidents(self.daemon):
            raise Lie("the daemon's log tells of what nobody foresaw:\n" + "\n".join(found[:20]))


def seeded(daemon: RealDaemon, web: Nginx, chaos: Chaos) -> World:
    """With files and servers, by the seed in the environment or a new one."""
    seed = int(os.environ.get("MODELD_SOAK_SEED") or random.SystemRandom().randrange(10**9))
    world = World(daemon, web, chaos, random.Random(seed), seed)
    world.furnish()
    return world


@contextmanager
def reported(world: World) -> Iterator[None]:
    """Says what was done, and names the seed in what goes wrong."""
    try:
        yield
    except AssertionError as fault:
        raise Lie(f"MODELD_SOAK_SEED={world.seed}: {fault}") from fault
    finally:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(world.counts.items()))
        print(f"MODELD_SOAK_SEED={world.seed}, {world.model.looks} looks, {counts}", file=sys.stderr)


def status_figures(daemon: RealDaemon) -> dict[str, float]:
    """Memory in MiB, threads and descriptors of the daemon."""
    found: dict[str, float] = {}
    with open(f"/proc/{daemon.pid}/smaps_rollup", encoding="ascii") as lines:
        for name, _, rest in (line.partition(":") for line in lines):
            if name in ("Rss", "Pss_Shmem"):
                found[name] = int(rest.split()[0]) / 1024
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as lines:
        found["threads"] = next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))
    found["descriptors"] = daemon.descriptors()
    return found


async def queue_is_empty(client: AsyncClient) -> bool:
    return not any([await client.jobs(state=state, limit=1) for state in ("queued", "running", "paused")])


async def jobs_in(client: AsyncClient, *states: JobState) -> list[values.JobView]:
    return [job for state in states for job in await client.jobs(state=state, limit=200)]
