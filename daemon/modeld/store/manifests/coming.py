"""Models without a manifest, because their bytes are not here yet. They have no path, and a manifest of the name hides
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from modeld.store.names import ModelName
from modelwire.knowledge.document import ModelDocument
from modelwire.values import ModelView


@dataclass(frozen=True, slots=True)
class ComingModel:
    name: ModelName
    view: ModelView
    read_document: Callable[[], ModelDocument]
    """Makes the document anew: a thousand of the longest kind would take 360 MB."""

    def of_registered(self, registered: ComingModel) -> ComingModel:
        """The state of this one, and the rest of one that was registered."""
        here, size = self.view, self.view.size_bytes or registered.view.size_bytes
        view = msgspec.structs.replace(
            registered.view, state=here.state, reason=here.reason, progress=here.progress, size_bytes=size
        )
        return ComingModel(registered.name, view, registered.read_document)

    def failing(self, why: str) -> ComingModel:
        """One whose bytes could not be fetched."""
        view = msgspec.structs.replace(self.view, state="failed", reason=why)
        return ComingModel(self.name, view, self.read_document)

    def described(self) -> ModelView:
        return msgspec.structs.replace(self.view, model=msgspec.to_builtins(self.read_document()))


def fetched_again(view: ModelView, models: Iterable[ComingModel]) -> ModelView:
    """A model whose bytes are bad or gone is downloading while a job fetches them. What was wrong with it stays."""
    if view.state != "failed":
        return view
    again = next((each for each in models if each.name.text.lower() == view.name.lower()), None)
    if again is None or again.view.state != "downloading":
        return view
    return msgspec.structs.replace(view, state="downloading", progress=again.view.progress or 0.0)


def named(text: str, models: Iterable[ComingModel]) -> ComingModel | None:
    """The one that a client means, by the rules for models that have a manifest."""
    by_key = {each.name.key: each for each in models}
    name = ModelName.parse(text)
    tagged = name.with_default_tag
    return by_key.get(name.key) or (None if tagged is None else by_key.get(tagged.key))
