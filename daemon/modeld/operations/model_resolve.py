"""model.resolve: the path of a model's bytes."""

from __future__ import annotations

from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation, TakesTime
from modeld.store import Asker, Unproven
from modelwire.requests import ModelResolve
from modelwire.values import Resolved


class Resolve(QuickOperation[ModelResolve, Resolved], SlowOperation[ModelResolve, Resolved]):
    """Answered at once, unless the bytes have to be verified first."""

    request, value = ModelResolve, Resolved

    def answer(self, _: Caller, request: ModelResolve, /) -> Resolved:
        try:
            return self._services.store.resolve(request.name, request.file)
        except Unproven:
            raise TakesTime from None

    async def run(self, call: Call, request: ModelResolve, /) -> Resolved:
        asker, failed = Asker(peer=call.caller.uid), self._services.model_failed
        return await self._services.store.proven(request.name, request.file, asker=asker, failed=failed)
