"""What operations may use: the services of the daemon, and the facts about this run of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from modeld.access.accounts import Accounts
from modeld.access.handed import Descriptors
from modeld.access.lending import Lending
from modeld.access.roles import Access
from modeld.activity import Activity
from modeld.config import Settings
from modeld.jobs.admission import Gate
from modeld.jobs.board import Board
from modeld.jobs.job import AnyJob
from modeld.machine.machine import ThisMachine
from modeld.operations.loading import Loading
from modeld.platform import accounts, clock
from modeld.pulls.context import PullContext
from modeld.pulls.refetching import Refetching
from modeld.sources.kind import For
from modeld.store import Digest, Requester, Store
from modeld.store.catalog.history import Quota
from modelwire.values import RecoveryView


class Presence(Protocol):
    """The connections of the server."""

    @property
    def count(self) -> int: ...

    def by_peer(self) -> dict[str, int]: ...


@dataclass(slots=True, kw_only=True)
class ThisDaemon:
    """One run of the daemon, as clients see it."""

    server: str
    instance: str
    socket: str
    started: float
    auto_started: bool
    recovery: RecoveryView
    presence: Presence
    warnings: tuple[str, ...] = ()
    state: str = "ready"
    began: float = field(default_factory=clock.elapsed)
    """When this run began, on a clock that no setting of the time changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: Settings
    store: Store
    board: Board
    gate: Gate
    activity: Activity
    pulls: PullContext
    daemon: ThisDaemon
    drain: Callable[[float | None], float]
    """Begins to stop the daemon; returns the deadline in seconds."""
    own_uid: int
    accounts: Accounts
    access: Access
    lending: Lending
    refetching: Refetching
    machine: ThisMachine
    handed: Descriptors = field(default_factory=Descriptors)
    loading: Loading = field(default_factory=Loading)

    def is_own(self, uid: int) -> bool:
        """Whether it is the daemon's own user or root, whom the daemon serves without limits to what it may reach."""
        return uid in (self.own_uid, accounts.ROOT)

    async def source_user(self, uid: int | None, reference: str) -> For:
        """The user for whom a source is asked for this reference, with that user's rights; None for an unknown user."""
        if uid is None:
            return For(lends=False, anywhere=False)
        return For(lends=await self.lending.lends(uid, reference), anywhere=self.is_own(uid))

    async def requester_of(self, job: AnyJob) -> Requester:
        """Who requests the work of a job, with the rights that the user has now: the job may have waited for days."""
        return await self.requester(job.peer, job.id)

    async def requester(self, uid: int, job: str | None = None) -> Requester:
        """Raises TimedOut when the groups that decide cannot be looked up."""
        admin = await self.access.is_admin(uid)
        every = admin or self.settings.access.shared_names
        share = None if admin else self.access.user_of(uid)
        return Requester(peer=uid, job=job, all_models=every, share=share, quota=self._quota_of(uid, admin=admin))

    def _quota_of(self, uid: int, *, admin: bool) -> Quota | None:
        user, most = self.access.user_of(uid), self.access.quota_of(uid)
        models = None if admin else self.settings.limits.models_per_user
        if most is None and models is None:
            return None
        return Quota(user, lambda owner: self.access.user_of(owner) == user, most, models)

    def model_failed(self, name: str, digest: Digest, reason: str, *, job: str | None = None) -> None:
        """Records that bytes are not what a manifest names. The store calls it."""
        self.activity.record("model.failed", job=job, model=name, digest=digest.text, message=reason)
