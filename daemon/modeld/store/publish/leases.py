"""Leases: programs that use a model now. Neither its name nor its bytes are removed under them.

A lease ends with the connection that asked for it, because the kernel closes that whatever becomes of the program. A
detached one outlives connection and daemon, until its time is over; the catalogue keeps it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
import msgspec

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.history import rfc3339
from modeld.store.catalog.tables import Tables
from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modeld.store.publish.holds import Held, Holds, NameHold
from modeld.store.publish.name_changes import NameChanges
from modelwire import limits
from modelwire.errors import NotFound, QueueFull
from modelwire.values import Holder, ModelView, Resolved

ROOM: Final = "leases"

STEPS: Final = (
    """
    CREATE TABLE leases (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, blob TEXT NOT NULL, things TEXT NOT NULL, uid INTEGER NOT NULL,
        pid INTEGER NOT NULL, purpose TEXT NOT NULL, since REAL NOT NULL, expires REAL NOT NULL
    ) WITHOUT ROWID;
    """,
)

SHOWN: Final = 100
"""Holders of one model that an answer or an error lists."""

_DIGEST: Final = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Who asks for a lease: user, process and purpose, and the connection with which it ends. `user` is the uid for
    which it counts."""

    uid: int
    user: int
    pid: int
    purpose: str
    connection: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    id: str
    name: str
    blob: str
    uid: int
    user: int
    pid: int
    purpose: str
    since: float
    expires: float | None = None
    """Of a detached one, by the system's clock."""

    ends: float | None = None
    """The same by the monotonic clock, which no setting of the time changes."""

    blobs: frozenset[str] = frozenset()
    """Of all files, `blob` among them."""

    connection: Hashable = None
    held: ExitStack = field(default_factory=ExitStack, repr=False)

    def shown(self) -> Holder:
        return Holder(
            lease=self.id,
            uid=self.uid,
            pid=self.pid or None,
            purpose=self.purpose or None,
            since=rfc3339(self.since),
            expires_at=None if self.expires is None else rfc3339(self.expires),
        )

    def __str__(self) -> str:
        process = f", pid {self.pid}" if self.pid else ""
        return f"uid {self.uid}{process}{f' ({self.purpose})' if self.purpose else ''}, lease {self.id}"


class Leases:
    """For the event loop. The constructor blocks."""

    def __init__(
        self,
        name_changes: NameChanges,
        holds: Holds,
        catalog: Catalog | None,
        *,
        used: Callable[[str], None] = lambda _name: None,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """The end of a lease calls `used` with the name of its model."""
        self._name_changes = name_changes
        self._layout = name_changes.layout
        self._index = name_changes.index
        self._holds = holds
        self._used = used
        self._clock = clock
        self._elapsed = elapsed
        self._tables = Tables(catalog, ROOM, STEPS)
        self._live: dict[str, Lease] = {}
        self._by_name: defaultdict[str, dict[str, Lease]] = defaultdict(dict)
        self._by_connection: defaultdict[Hashable, set[str]] = defaultdict(set)
        self._by_user: Counter[int] = Counter()
        self._news: anyio.Event | None = None
        holds.register(names=self._hold_on)
        self._load()

    def __len__(self) -> int:
        return len(self._live)

    # -- taking

    async def take(self, resolved: Resolved, applicant: Applicant, ttl: float | None) -> Lease | None:
        """A lease of what the name stands for; None when that is other content by now. Raises QueueFull."""
        if self._by_user[applicant.user] >= limits.LEASES_PER_PEER:
            raise QueueFull(
                f"uid {applicant.user} already has {limits.LEASES_PER_PEER} leases, the most that one user may have",
                hint="Release some of them; `modelctl show NAME` lists those of a model.",
                details={"leases": self._by_user[applicant.user], "limit": limits.LEASES_PER_PEER},
            )
        self._by_user[applicant.user] += 1
        with ExitStack() as undo:
            undo.callback(self._uncount, applicant.user)
            things = await self._name_changes.in_thread(partial(self._things, resolved))
            if things is None:
                return None
            held = undo.enter_context(ExitStack())
            held.enter_context(self._holds.relying_on(*things))
            async with self._name_changes.publisher.turn(0):
                # No name changes and nothing is swept meanwhile: from here on the lease is seen by both.
                if not await self._name_changes.in_thread(partial(self._still, resolved, things)):
                    return None
                lease = self._made(resolved, things, applicant, ttl, held)
                undo.pop_all()
                self._enter(lease)
            if lease.expires is not None:
                with anyio.CancelScope(shield=True):
                    await self._keep(lease, things)
        return lease

    def _things(self, resolved: Resolved) -> tuple[Held, ...] | None:
        if resolved.site is not None:  # of which this daemon removes nothing but the trees that show it
            shown = (resolved.path,) if resolved.path.startswith(f"{self._layout.site_trees}/") else ()
            return (Digest.parse(resolved.blob), *shown)
        entry = self._index.entry(ModelName.parse(resolved.name))
        if entry is None or entry.manifest is None or entry.manifest.digest.text != resolved.blob:
            return None
        return (*entry.manifest.blobs(), *(() if entry.tree is None else (entry.tree,)))

    def _still(self, resolved: Resolved, things: tuple[Held, ...]) -> bool:
        self._holds.until_settled(*things)
        if self._things(resolved) != things:
            return False
        entry = self._index.entry(ModelName.parse(resolved.name))
        return resolved.site is not None or (entry is not None and entry.look().has_bytes)

    def _made(
        self, resolved: Resolved, things: Sequence[Held], applicant: Applicant, ttl: float | None, held: ExitStack
    ) -> Lease:
        now = self._clock()
        return Lease(
            id=secrets.token_hex(8),
            name=resolved.name,
            blob=resolved.blob,
            uid=applicant.uid,
            user=applicant.user,
            pid=applicant.pid,
            purpose=applicant.purpose,
            since=now,
            expires=None if ttl is None else now + ttl,
            ends=None if ttl is None else self._elapsed() + ttl,
            blobs=_blobs(things),
            connection=applicant.connection if ttl is None else None,
            held=held.pop_all(),
        )

    def _enter(self, lease: Lease) -> None:
        self._live[lease.id] = lease
        self._by_name[lease.name][lease.id] = lease
        if lease.connection is not None:
            self._by_connection[lease.connection].add(lease.id)
        if lease.ends is not None and self._news is not None:
            self._news.set()

    # -- ending

    def find(self, lease_id: str) -> Lease:
        lease = self._live.get(lease_id)
        if lease is None:
            raise NotFound(
                f"there is no lease {lease_id[:64]!r}",
                hint="It was released, its time is over, or its connection was closed.",
                details={"lease": lease_id[:64]},
            )
        return lease

    async def release(self, lease: Lease) -> None:
        self._end(lease)
        if lease.expires is not None:
            await self._forget([lease.id])

    def left(self, connection: Hashable) -> None:
        """Ends the leases of a connection that is closed."""
        for lease_id in self._by_connection.pop(connection, ()):
            if lease := self._live.get(lease_id):
                self._end(lease)

    async def keep(self) -> None:
        """Ends detached leases when their time is over, until it is cancelled."""
        while True:
            self._news = news = anyio.Event()
            now = self._elapsed()
            over = [lease for lease in self._live.values() if lease.ends is not None and lease.ends <= now]
            for lease in over:
                self._end(lease)
            if over:
                await self._forget([lease.id for lease in over])
            first = min((lease.ends for lease in self._live.values() if lease.ends is not None), default=None)
            with anyio.move_on_after(None if first is None else max(0.0, first - now)):
                await news.wait()

    def _end(self, lease: Lease) -> None:
        if self._live.pop(lease.id, None) is None:
            return
        same_name = self._by_name[lease.name]
        same_name.pop(lease.id, None)
        if not same_name:
            del self._by_name[lease.name]
        if lease.connection in self._by_connection:
            self._by_connection[lease.connection].discard(lease.id)
        self._uncount(lease.user)
        lease.held.close()
        self._used(lease.name)

    def _uncount(self, uid: int) -> None:
        self._by_user[uid] -= 1
        if not self._by_user[uid]:
            del self._by_user[uid]

    # -- looking; from any thread

    def of(self, name: str, blob: str) -> Sequence[Holder]:
        """The leases of the model of this name that hold this blob."""
        leases = [lease for lease in tuple(self._by_name.get(name, {}).values()) if blob in lease.blobs]
        return [lease.shown() for lease in leases[:SHOWN]]

    def seen(self, view: ModelView) -> ModelView:
        """The model with its holders: a ready one that is leased is `loaded`."""
        holders = self.of(view.name, view.blob)
        if not holders:
            return view
        return msgspec.structs.replace(
            view, state="loaded" if view.state == "ready" else view.state, holders=tuple(holders)
        )

    def resolved(self, resolved: Resolved) -> Resolved:
        """As `seen`."""
        if resolved.state != "ready" or not self.of(resolved.name, resolved.blob):
            return resolved
        return msgspec.structs.replace(resolved, state="loaded")

    def _hold_on(self, name: ModelName) -> NameHold | None:
        leases = tuple(self._by_name.get(name.text, {}).values())
        if not leases:
            return None
        more = f" and {len(leases) - 1} more" if len(leases) > 1 else ""
        return NameHold(f"{leases[0]}{more}", [lease.shown() for lease in leases[:SHOWN]])

    # -- the catalogue

    async def _keep(self, lease: Lease, things: tuple[Held, ...]) -> None:
        texts = [thing.text if isinstance(thing, Digest) else thing[len(self._layout.root) + 1 :] for thing in things]
        row = (
            lease.id,
            lease.name,
            lease.blob,
            json.dumps(texts),
            lease.uid,
            lease.pid,
            lease.purpose,
            lease.since,
            lease.expires,
        )
        await self._tables.write(lambda db: db.execute("INSERT INTO leases VALUES (?,?,?,?,?,?,?,?,?)", row))

    async def _forget(self, ids: Sequence[str]) -> None:
        def forget(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM leases WHERE id = ?", [(each,) for each in ids])

        await self._tables.write(forget)

    def _load(self) -> None:
        now, elapsed = self._clock(), self._elapsed()
        for id_, name, blob, things, uid, pid, purpose, since, expires in self._tables.load("SELECT * FROM leases"):
            # A clock that was set back makes no lease longer than it was.
            left = min(expires - now, expires - since)
            held = ExitStack()
            kept = [self._thing(text) for text in json.loads(things)]
            held.enter_context(self._holds.relying_on(*kept))
            self._by_user[uid] += 1
            self._enter(
                Lease(
                    id=id_,
                    name=name,
                    blob=blob,
                    uid=uid,
                    user=uid,
                    pid=pid,
                    purpose=purpose,
                    since=since,
                    expires=expires,
                    ends=elapsed + left,
                    blobs=_blobs(kept),
                    held=held,
                )
            )

    def _thing(self, text: str) -> Held:
        return Digest.parse(text) if text.startswith(_DIGEST) else f"{self._layout.root}/{text}"


def _blobs(things: Sequence[Held]) -> frozenset[str]:
    return frozenset(thing.text for thing in things if isinstance(thing, Digest))
