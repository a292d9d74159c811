"""Leases as clients ask for them: what is refused, and what becomes of one whose client has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwire import limits, requests
from modelwire.errors import Cancelled, InvalidRequest, NotFound, Unauthorized
from rigs.operations_rig import ADMIN, ANOTHER, MINE, NotingCall, OpenConnection, OperationsRig, operations_rig


async def added(at: OperationsRig) -> None:
    await at.services.store.add(at.file("m.gguf"), name="m")


@pytest.mark.parametrize(
    "wrong",
    [
        requests.LeaseAcquire(name="m", purpose="x" * (limits.PURPOSE + 1)),
        requests.LeaseAcquire(name="m", detached=True, ttl_s=0),
        requests.LeaseAcquire(name="m", detached=True, ttl_s=-1),
        requests.LeaseAcquire(name="m", detached=True, ttl_s=limits.LONGEST_LEASE_SECONDS + 1),
    ],
)
async def test_a_wrong_request_takes_no_lease(tmp_path: Path, wrong: requests.LeaseAcquire) -> None:
    async with operations_rig(tmp_path) as at:
        await added(at)
        with pytest.raises(InvalidRequest):
            await at.ask(wrong)
        with pytest.raises(NotFound):
            await at.ask(requests.LeaseAcquire(name="nothing"))
        assert len(at.services.store.leases) == 0


async def test_a_client_that_left_meanwhile_holds_nothing(tmp_path: Path) -> None:
    """Unless it asked for a lease that outlives its connection."""
    async with operations_rig(tmp_path) as at:
        await added(at)
        gone = NotingCall(connection=OpenConnection(closed=True))
        with pytest.raises(Cancelled):
            await at.operations.slow[requests.LeaseAcquire](gone, requests.LeaseAcquire(name="m"))
        assert len(at.services.store.leases) == 0
        await at.operations.slow[requests.LeaseAcquire](gone, requests.LeaseAcquire(name="m", detached=True))
        assert len(at.services.store.leases) == 1


async def test_a_lease_is_released_by_its_user_and_an_admin(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await added(at)
        for releaser in (MINE, ADMIN):
            lease = (await at.ask(requests.LeaseAcquire(name="m"), MINE)).lease
            with pytest.raises(Unauthorized, match="belongs to uid 1000"):
                await at.ask(requests.LeaseRelease(lease=lease), ANOTHER)
            assert (await at.ask(requests.LeaseRelease(lease=lease), releaser)).lease == lease
        assert len(at.services.store.leases) == 0
