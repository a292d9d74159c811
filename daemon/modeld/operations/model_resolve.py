"""model.resolve: the path of a model's bytes."""

from __future__ import annotations

from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation, TakesTime
from modeld.store import Requester, WouldBlock
from modelwire.requests import ModelResolve
from modelwire.values import Resolved


class Resolve(QuickOperation[ModelResolve, Resolved], SlowOperation[ModelResolve, Resolved]):
    """Answered at once when nothing has changed since the last answer, else after a look at the disk. Bytes that may
    have changed are verified first."""

    request, value = ModelResolve, Resolved
    is_lookup = True

    def answer(self, _: Caller, request: ModelResolve, /) -> Resolved:
        known = self._services.store.known(request.name) if request.file is None else None
        if known is None:
            raise TakesTime
        return known

    async def run(self, call: Call, request: ModelResolve, /) -> Resolved:
        try:
            return await self._services.store.look_up(request.name, request.file)
        except WouldBlock:
            call.takes_long()
        return await self._services.store.resolver.resolve(
            request.name,
            request.file,
            requester=Requester(peer=call.caller.uid),
            on_failed=self._services.model_failed,
        )
