"""What every operation may use: the rooms of the daemon, put together by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from modeld.access.accounts import Accounts
from modeld.activity import Activity
from modeld.config import Settings
from modeld.jobs.admission import Gate
from modeld.jobs.board import Board
from modeld.jobs.ledger import Ledger
from modeld.pulls.context import PullContext
from modeld.store import Store
from modelwire.values import RecoveryView


class Presence(Protocol):
    """What the server knows of who is connected."""

    @property
    def count(self) -> int: ...

    def by_peer(self) -> dict[str, int]: ...


class Nobody:
    count = 0

    def by_peer(self) -> dict[str, int]:
        return {}


@dataclass(slots=True, kw_only=True)
class House:
    settings: Settings
    store: Store
    board: Board
    gate: Gate
    ledger: Ledger
    activity: Activity
    pulls: PullContext
    recovery: RecoveryView
    drain: Callable[[float | None], float]
    """Begins to stop, and tells the deadline in seconds."""
    instance: str
    server: str
    socket: str
    started: float
    own_uid: int
    accounts: Accounts
    auto_started: bool = False
    state: str = "ready"
    presence: Presence = field(default_factory=Nobody)
    """The server's, once it stands: it needs the house first."""
