"""The value of a pull, made of what the store added."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from modeld.store.publish.name_changes import Notes
from modelwire.values import Added, Pulled


@dataclass(frozen=True, kw_only=True)
class PullOutcome:
    """As the notes of a publication it passes on what the store announces as added, in the shape of a pull."""

    source: str
    revision: str | None = None
    current: bool = False
    note: str | None = None
    served: dict[str, int] = field(default_factory=dict)
    notes: Notes[Pulled]

    def pulled(self, added: Added) -> Pulled:
        values = msgspec.structs.asdict(added)
        return Pulled(
            **values,
            source=self.source,
            revision=self.revision,
            current=self.current,
            note=self.note,
            served=self.served,
        )

    async def about_to_publish(self, value: Added, /) -> None:
        await self.notes.about_to_publish(self.pulled(value))

    async def published(self, value: Added, /) -> None:
        await self.notes.published(self.pulled(value))
