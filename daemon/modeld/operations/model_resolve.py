"""model.resolve: the path of a model's bytes."""

from __future__ import annotations

from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation, TakesTime
from modeld.store import Requester, WouldBlock
from modelwire.requests import ModelResolve
from modelwire.values import Resolved


class Resolve(QuickOperation[ModelResolve, Resolved], SlowOperation[ModelResolve, Resolved]):
    """Answered at once, unless the bytes have to be verified first."""

    request, value = ModelResolve, Resolved

    def answer(self, _: Caller, request: ModelResolve, /) -> Resolved:
        try:
            return self._services.store.resolve(request.name, request.file)
        except WouldBlock:
            raise TakesTime from None

    async def run(self, call: Call, request: ModelResolve, /) -> Resolved:
        return await self._services.store.resolver.resolve(
            request.name,
            request.file,
            requester=Requester(peer=call.caller.uid),
            on_failed=self._services.model_failed,
        )
