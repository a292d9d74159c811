"""How an attempt can end beside success, and what all attempts share."""

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
    """What all downloads of the daemon share of the network."""

    breakers: Breakers
    hosts: Hosts
    tuning: Tuning
    clock: Callable[[], float] = time.monotonic


class GaveUp(Exception):
    """The source is not tried any further for this file; `fault` is its last error."""

    def __init__(self, fault: WireError) -> None:
        super().__init__(fault.message)
        # Its frames lead to the connection and its buffer, and from there to this outcome: a cycle.
        self.fault = fault.with_traceback(None)


class Changed(Exception):
    """The source has another version now, and there is no digest to show that the bytes are the same. With `broke_off`:
    an answer broke off, and the next one may be of another version."""

    def __init__(self, what: str, size: int | None, validator: str | None, *, broke_off: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.size = size
        self.validator = validator
        self.broke_off = broke_off


class Quit(Exception):
    """Ends one connection that is not needed any more. Not an error."""
