"""Connections and requests in flight, counted by user: a limit holds for all programs of that user together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from modelwire.errors import QueueFull

_RETRY_AFTER_MS = 1000


class PeerLimits:
    def __init__(
        self,
        *,
        connections_per_peer: int,
        requests_per_peer: int,
        user_of: Callable[[int], int] = lambda uid: uid,
    ) -> None:
        """`user_of` returns the uid that counts for another."""
        self._user_of = user_of
        self._connections_per_peer = connections_per_peer
        self._requests_per_peer = requests_per_peer
        self._connections: Counter[int] = Counter()
        self._in_flight: Counter[int] = Counter()

    @property
    def count(self) -> int:
        return sum(self._connections.values())

    def by_peer(self) -> dict[str, int]:
        return {str(uid): count for uid, count in self._connections.items()}

    def enter(self, uid: int) -> None:
        uid = self._user_of(uid)
        if self._connections[uid] >= self._connections_per_peer:
            raise QueueFull(
                f"uid {uid} already has {self._connections_per_peer} connections open, the most that one user may have",
                hint="Close one, or send several requests over one connection; [limits] connections_per_peer sets it.",
                retry_after_ms=_RETRY_AFTER_MS,
                details={"connections": self._connections[uid]},
            )
        self._connections[uid] += 1

    def leave(self, uid: int) -> None:
        _decrement(self._connections, self._user_of(uid))

    def begin(self, uid: int) -> None:
        uid = self._user_of(uid)
        if self._in_flight[uid] >= self._requests_per_peer:
            raise QueueFull(
                f"uid {uid} already has {self._requests_per_peer} requests in flight, the most that one user may have",
                hint="Wait for some of them to end; [limits] requests_per_peer sets it.",
                retry_after_ms=_RETRY_AFTER_MS,
                details={"in_flight": self._in_flight[uid]},
            )
        self._in_flight[uid] += 1

    def end(self, uid: int) -> None:
        _decrement(self._in_flight, self._user_of(uid))


def _decrement(counter: Counter[int], uid: int) -> None:
    counter[uid] -= 1
    if counter[uid] <= 0:
        del counter[uid]
