"""store.quarantine: the files that were set aside because their bytes are bad."""

from __future__ import annotations

from modeld.operations.operation import Call, SlowOperation
from modelwire.requests import StoreQuarantine
from modelwire.values import QuarantineList


class ListQuarantine(SlowOperation[StoreQuarantine, QuarantineList]):
    request, value = StoreQuarantine, QuarantineList

    async def run(self, call: Call, _: StoreQuarantine, /) -> QuarantineList:
        await call.until_writable()
        return await self._services.store.quarantined()
