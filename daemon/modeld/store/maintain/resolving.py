"""Resolves names that take time: a tree has to be made, or bytes that may have changed have to be verified.

`Index.resolve` answers when a few stats decide. A request that takes more waits here, while all others are answered: no
path is given out for bytes that were not verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from modeld.progress import JobProgress, Stopped
from modeld.store.blobs.blobs import stat_blob
from modeld.store.catalog.records import Records
from modeld.store.catalog.uses import Uses
from modeld.store.maintain.checking import IN_FULL, Manner
from modeld.store.maintain.verify import Verifier
from modeld.store.manifests.entries import Entry, cannot_be_used
from modeld.store.manifests.sites import Site, Sites
from modeld.store.manifests.states import Answer
from modeld.store.publish.holds import Holds
from modeld.store.publish.name_changes import NameChanges
from modelwire.errors import Corrupt
from modelwire.values import Resolved, Verification

MAX_ATTEMPTS: Final = 3
"""For a model that changes at each attempt."""


@dataclass(slots=True)
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0


class Resolver:
    """For the event loop."""

    def __init__(
        self, name_changes: NameChanges, records: Records, uses: Uses, verifier: Verifier, holds: Holds, sites: Sites
    ) -> None:
        self._name_changes = name_changes
        self._index = name_changes.index
        self._trees = name_changes.index.trees
        self._records = records
        self._uses = uses
        self._verifier = verifier
        self._holds = holds
        self._sites = sites
        self._turns: dict[str, _Turn] = {}
        """By the blob that a name resolves to, and its site: a hundred requests for one model, or for all names of a
        blob, cause one look at it."""

    async def resolve(
        self,
        name: str,
        file: str | None = None,
        manner: Manner = IN_FULL,
    ) -> Resolved:
        """As `Store.resolve`, but waits until the path can be given out."""
        for _attempt in range(MAX_ATTEMPTS):
            entry = await self._sites.find(name)
            with self._turn_at(entry) as turn, self._holds.relying_on(self._name_changes.layout.staging):
                async with turn.lock:
                    resolved = await self._prepared(entry, manner)
                    if resolved is not None:
                        self._uses.note(resolved.name)
                        return resolved if file is None else entry.resolved_file(file)
        raise Corrupt(
            f"'{name}' changes each time it is looked at",
            hint="Find the program that writes to its files, then try again.",
            details={"name": name},
        )

    async def _prepared(self, entry: Entry, manner: Manner) -> Resolved | None:
        """The answer, after the verification and the tree that it needs; None when the model has changed meanwhile.
        Raises when the model cannot be used."""
        if (site := self._sites.of(entry)) is not None:
            return await self._prepared_at_site(site, entry)
        look = await self._index.in_thread(entry.look)
        resolved = entry.checked(look)
        if look.state.answer is Answer.VERIFY and await self._not_verified_since(entry):
            await self._verify(entry, manner)
            if await self._not_verified_since(entry):
                return None
        if entry.tree is not None:
            ensure = partial(self._trees.ensure, entry.name, entry.usable().files)
            # In the publisher's turn: a move of the store, which has it, would leave a new tree behind.
            async with self._name_changes.publisher.turn(0):
                _, relinked = await self._name_changes.in_thread(ensure)
                await self._records.record_relinked(relinked)
        return resolved

    async def _prepared_at_site(self, site: Site, entry: Entry) -> Resolved:
        look = await site.look(entry.look)
        resolved = entry.checked(look)
        if look.state.answer is Answer.VERIFY:
            await site.check(entry)
        if entry.tree is not None:
            await site.in_time(partial(site.index.trees.ensure, entry.name, entry.usable().files))
        return resolved

    async def _not_verified_since(self, entry: Entry) -> bool:
        """Whether some bytes may have changed since a verification or an add last hashed them."""
        suspects = await self._index.in_thread(entry.suspects)
        for digest, signature in (await self._records.verified_signatures(suspects)).items():
            blob = await self._name_changes.in_thread(partial(stat_blob, self._name_changes.layout, digest))
            if blob is not None and signature.is_unchanged(blob.signature):
                self._records.remember(digest, blob.signature)
                if digest in self._trees.linked:
                    await self._name_changes.in_thread(partial(self._trees.linked.good, digest, blob.signature))
        return bool(await self._index.in_thread(entry.suspects))

    async def _verify(self, entry: Entry, manner: Manner) -> None:
        verification = await self._verification(entry, manner)
        if not verification.ok:
            bad = next(model for model in verification.models if not model.ok)
            raise cannot_be_used(entry, bad.reason or "its bytes are not what they were")

    async def _verification(self, entry: Entry, manner: Manner) -> Verification:
        progress, names = JobProgress(), [entry.name.text]
        fault: Exception
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_when_cancelled, progress)
            try:
                return await self._verifier.verify(names, manner, progress=progress)
            except Stopped:
                fault = Corrupt(f"'{entry.name.text}' was not verified: the daemon is stopping", retryable=True)
            except Exception as error:  # noqa: BLE001 - raised below, out of the task group
                fault = error
            finally:
                tasks.cancel_scope.cancel()
        raise fault

    @contextmanager
    def _turn_at(self, entry: Entry) -> Iterator[_Turn]:
        key = f"{entry.site or ''} {entry.blobs[0].digest.hex if entry.blobs else entry.name.text}"
        turn = self._turns.setdefault(key, _Turn())
        turn.waiting += 1
        try:
            yield turn
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(key, None)


async def _stop_when_cancelled(progress: JobProgress) -> None:
    """Stops the hashing thread when the request is cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        progress.stop_reason = "cancel"
