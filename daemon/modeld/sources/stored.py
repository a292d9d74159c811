"""Names of models in the store. They have no source: a pull of one returns the model that is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from modeld.sources.kind import Kind
from modeld.sources.reference import NotAReference, Reference, Written
from modeld.store.names import ModelName
from modelwire.errors import InvalidName


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReference(Reference):
    network: ClassVar[bool] = False
    name: ModelName

    @property
    def text(self) -> str:
        return self.name.text

    @property
    def name_hint(self) -> str:
        return self.name.base

    @property
    def fixed_name(self) -> ModelName:
        return self.name

    @property
    def is_single(self) -> bool:
        """A name of the store that has no manifest can only get the one file of an expected digest."""
        return True

    @property
    def suggested_name(self) -> ModelName:
        return self.name


def read(written: Written) -> StoredReference | None:
    if "://" in written.text:
        return None
    try:
        return StoredReference(name=ModelName.parse(written.text))
    except InvalidName as fault:
        reason = str(fault.details.get("reason", "it breaks a rule for names"))
        raise NotAReference(f"it is not a valid name in the store: {reason}", rule="name") from None


KIND: Final = Kind(
    name="stored",
    reference=StoredReference,
    forms=("name[:tag]",),
    read=read,
)
