"""model.resolve: the path of a model's bytes."""

from __future__ import annotations

from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation, TakesTime
from modeld.operations.services import Services
from modeld.store import Manner, Requester, WouldBlock
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
        return await resolve(self._services, call, request.name, request.file)


async def resolve(services: Services, call: Call, name: str, file: str | None = None) -> Resolved:
    store = services.store
    try:
        return await store.look_up(name, file)
    except WouldBlock:
        call.takes_long()
    resolved = await store.resolver.resolve(
        name, file, Manner(requester=Requester(peer=call.caller.uid), on_failed=services.model_failed)
    )
    return store.leases.resolved(resolved)
