"""model.show: the record of one model."""

from __future__ import annotations

from modeld.operations.described import described
from modeld.operations.operation import Call, SlowOperation
from modelwire.requests import ModelShow
from modelwire.values import ModelView


class Show(SlowOperation[ModelShow, ModelView]):
    request, value = ModelShow, ModelView
    is_lookup = True

    async def run(self, _: Call, request: ModelShow, /) -> ModelView:
        view = await self._services.store.models.show(
            request.name, keys=request.keys, tensors=request.tensors, provenance=request.provenance
        )
        return described(view, request, await self._services.store.models.kept(view))
