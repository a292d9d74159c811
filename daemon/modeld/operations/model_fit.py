"""model.fit: whether this machine has what a model needs."""

from __future__ import annotations

import msgspec

from modeld.operations.operation import Call, SlowOperation
from modeld.store.manifests import documents
from modelwire.knowledge import requirements
from modelwire.knowledge.document import document_of
from modelwire.knowledge.estimates import estimate
from modelwire.requests import ModelFit
from modelwire.values import FitView, Machine, ModelView
from modelwire.vocabulary import CACHE_TYPE_DEFAULT

_REQUESTED = "as requested"


class Fit(SlowOperation[ModelFit, FitView]):
    request, value = ModelFit, FitView

    async def run(self, _: Call, request: ModelFit, /) -> FitView:
        view = await self._services.store.models.show(request.name)
        needs = document_of(view.model).requirements
        machine = _assumed(await self._services.machine.now(), request)
        lines = requirements.lines(needs, machine)
        if needs.min_vram_mb == 0 and view.facts is not None:
            lines += requirements.estimates(estimate(view.facts, None, CACHE_TYPE_DEFAULT), machine)
        return FitView(
            name=view.name,
            fits=requirements.fits(needs, machine),
            requirements_from="document" if self._are_stated(view) else "defaults",
            machine=machine,
            lines=lines,
            providers=requirements.providers_here(needs, machine),
        )

    def _are_stated(self, view: ModelView) -> bool:
        if view.manifest is not None:
            return documents.states_requirements(view.manifest)
        return self._services.store.registrations.find(view.name) is not None


def _assumed(machine: Machine, request: ModelFit) -> Machine:
    if request.vram_mb is not None:
        machine = msgspec.structs.replace(machine, vram_mb=request.vram_mb, vram_from=_REQUESTED)
    if request.ram_mb is not None:
        machine = msgspec.structs.replace(machine, ram_mb=request.ram_mb, ram_from=_REQUESTED)
    return machine
