"""lease.acquire and lease.release: hold a model while a program uses it."""

from __future__ import annotations

from modeld.operations.model_resolve import resolve
from modeld.operations.operation import Call, SlowOperation
from modeld.store.publish.leases import Applicant
from modelwire import limits
from modelwire.errors import Cancelled, Corrupt, InvalidRequest, Unauthorized
from modelwire.requests import LeaseAcquire, LeaseRelease
from modelwire.values import Leased, Released

MAX_ATTEMPTS = 3
"""For a model that changes each time."""


class Acquire(SlowOperation[LeaseAcquire, Leased]):
    """Resolves the name as `model.resolve` does, and holds what it stands for."""

    request, value = LeaseAcquire, Leased

    async def run(self, call: Call, request: LeaseAcquire, /) -> Leased:
        if len(request.purpose) > limits.PURPOSE:
            raise InvalidRequest(
                f"$.purpose: it has {len(request.purpose)} characters, {limits.PURPOSE} are allowed",
                hint="Name the program, not its work.",
            )
        if not 0 < request.ttl_s <= limits.LONGEST_LEASE_SECONDS:
            raise InvalidRequest(
                f"$.ttl_s: {request.ttl_s:g} s is not between 0 and {limits.LONGEST_LEASE_SECONDS:g}",
                hint="Acquire another lease before this one ends, when the program goes on for longer.",
            )
        leases, connection = self._services.store.leases, call.connection
        uid = call.caller.uid
        user = self._services.access.user_of(uid)
        applicant = Applicant(uid=uid, user=user, pid=connection.pid, purpose=request.purpose, connection=connection)
        for _attempt in range(MAX_ATTEMPTS):
            resolved = await resolve(self._services, call, request.name)
            lease = await leases.take(resolved, applicant, request.ttl_s if request.detached else None)
            if lease is None:
                continue
            if lease.expires is None and connection.closed:
                leases.left(connection)
                raise Cancelled("the connection was closed")
            self._services.loading.leased(uid, lease.blob)
            return Leased(
                lease=lease.id,
                name=lease.name,
                path=resolved.path,
                blob=lease.blob,
                state="loaded",
                expires_at=lease.shown().expires_at,
            )
        raise Corrupt(
            f"'{request.name}' changes each time it is looked at",
            hint="Find the program that writes to its files, then try again.",
            retryable=True,
            details={"name": request.name},
        )


class Release(SlowOperation[LeaseRelease, Released]):
    request, value = LeaseRelease, Released

    async def run(self, call: Call, request: LeaseRelease, /) -> Released:
        lease = self._services.store.leases.find(request.lease)
        if lease.uid != call.caller.uid and call.caller.role != "admin":
            raise Unauthorized(
                f"lease {lease.id} belongs to uid {lease.uid}; uid {call.caller.uid} may only release its own",
                hint="Ask that user, or an admin.",
                details={"lease": lease.id, "uid": lease.uid},
            )
        await self._services.store.leases.release(lease)
        return Released(lease=lease.id)
