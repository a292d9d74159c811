"""store.usage: the space that the models take, and what would have to go to make room."""

from __future__ import annotations

import msgspec

from modeld.operations import room
from modeld.operations.operation import Call, SlowOperation
from modelwire.requests import StoreUsage
from modelwire.values import Usage, UserUsage


class ShowUsage(SlowOperation[StoreUsage, Usage]):
    request, value = StoreUsage, Usage

    async def run(self, call: Call, request: StoreUsage, /) -> Usage:
        await call.until_writable()
        usage = await self._services.store.usage()
        usage = msgspec.structs.replace(usage, users=tuple(map(self._with_quota, usage.users)))
        if request.plan_bytes is None:
            return usage
        return msgspec.structs.replace(usage, plan=await room.plan(self._services, request.plan_bytes))

    def _with_quota(self, user: UserUsage) -> UserUsage:
        quota = None if user.uid is None else self._services.access.quota_of(user.uid)
        return msgspec.structs.replace(user, quota_bytes=quota)
