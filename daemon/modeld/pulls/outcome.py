"""What a pull came to, before and after it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from modeld.store.publish.name_changes import Notes
from modelwire.values import Added, Pulled


def pulled_from(
    added: Added,
    source: str,
    *,
    revision: str | None = None,
    current: bool = False,
    served: Mapping[str, int] | None = None,
) -> Pulled:
    told = msgspec.structs.asdict(added) | {"source": source, "revision": revision, "current": current}
    return Pulled(**told, served=dict(served or {}))


class PullNotes:
    """The store publishes models as added; the ledger records them as pulled."""

    def __init__(self, notes: Notes[Pulled], made: Callable[[Added], Pulled]) -> None:
        self._notes = notes
        self._made = made

    async def about_to_publish(self, value: Added, /) -> None:
        await self._notes.about_to_publish(self._made(value))

    async def published(self, value: Added, /) -> None:
        await self._notes.published(self._made(value))
