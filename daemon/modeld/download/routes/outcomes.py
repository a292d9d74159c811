"""How a source's work on a file can end beside success, and what all such work shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modeld.download.routes.breaker import Breakers
from modeld.download.routes.hosts import Hosts
from modeld.download.tuning import Tuning
from modelwire.errors import WireError


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What all transfers of the daemon share about the network."""

    breakers: Breakers
    hosts: Hosts
    tuning: Tuning
    clock: Callable[[], float] = time.monotonic


class GaveUp(Exception):
    """The source's fault, after which nothing more is asked of it for this file."""

    def __init__(self, fault: WireError) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Changed(Exception):
    """The file is another one now, and no digest says that its bytes are the same. Or, when an answer has broken off:
    nothing tells whether it is another one."""

    def __init__(self, what: str, size: int | None, validator: str | None, *, broke_off: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.size = size
        self.validator = validator
        self.broke_off = broke_off


class Quit(Exception):
    """For one connection: it is not wanted any more. Nothing is wrong with it."""
