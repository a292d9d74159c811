"""store.usage: the space that the models take."""

from __future__ import annotations

from modeld.operations.operation import Call, SlowOperation
from modelwire.requests import StoreUsage
from modelwire.values import Usage


class ShowUsage(SlowOperation[StoreUsage, Usage]):
    request, value = StoreUsage, Usage

    async def run(self, call: Call, _: StoreUsage, /) -> Usage:
        await call.until_writable()
        return await self._services.store.usage()
