"""model.list: the models of the store, page by page."""

from __future__ import annotations

from functools import partial

import msgspec

from modeld.operations.described import in_both_words
from modeld.operations.operation import Call, SlowOperation
from modelwire import limits, requests, values
from modelwire.knowledge.requirements import fits

_PAGE = 200
"""Models of one reply: 1000 would keep the event loop for 6 to 15 ms; the client requests the next page."""

_PAGE_BYTES = limits.MAX_REPLY // 2
"""Bytes of the models of one reply, by an estimate that is rather too high. The other half is for its other fields."""


class List(SlowOperation[requests.ModelList, values.ModelList]):
    request, value = requests.ModelList, values.ModelList
    is_lookup = True

    async def run(self, call: Call, request: requests.ModelList, /) -> values.ModelList:
        await call.until_writable()
        suits = None
        if request.fits:
            call.takes_long()
            suits = partial(fits, machine=await self._services.machine.now())
        page = await self._services.store.models.page(
            request.filter, request.sort, suits=suits, after=request.after, limit=min(request.limit or _PAGE, _PAGE)
        )
        cut = _cut_to_size(page)
        models = await in_both_words(cut.models, self._services.store.history)
        return msgspec.structs.replace(cut, models=models)


def _cut_to_size(page: values.ModelList) -> values.ModelList:
    """As many of the models as fit into one reply, and always one: other tools write manifests of up to 1 MiB."""
    room = _PAGE_BYTES
    for number, view in enumerate(page.models):
        room -= _bytes_of(view)
        if room < 0 and number:
            return msgspec.structs.replace(page, models=page.models[:number], next=page.models[number - 1].name)
    return page


def _bytes_of(view: values.ModelView) -> int:
    """The most bytes that the view takes as JSON: an escaped character takes six."""
    characters = len(view.license or "") + len(view.format) + len(view.produced_by or "") + len(view.produced_at or "")
    characters += sum(3 + len(each) for each in view.ids)
    if view.source is not None:
        source = view.source
        characters += len(source.registry) + len(source.repo) + len(source.revision) + len(source.filename)
    for file in view.files:
        characters += 100 + len(file.path) + len(file.role or "")
    return 1000 + 6 * characters + len(msgspec.json.encode(view.model))
