"""What one user may have open and in flight, over all of its programs; others have their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modeld.server.peer_limits import PeerLimits
from modelwire.errors import QueueFull

UID, OTHER = 1000, 2000


@pytest.mark.parametrize("what", ["connections", "requests"])
def test_a_limit_binds_one_user_and_is_free_again(what: str) -> None:
    limits = PeerLimits(connections_per_peer=2, requests_per_peer=2)
    takes: Callable[[int], None] = limits.enter if what == "connections" else limits.begin
    gives: Callable[[int], None] = limits.leave if what == "connections" else limits.end
    takes(UID)
    takes(UID)
    with pytest.raises(QueueFull, match=f"uid {UID}.*2 {what}") as refused:
        takes(UID)
    assert refused.value.retry_after_ms
    takes(OTHER)
    gives(UID)
    takes(UID)


def test_who_is_connected_is_counted_by_user() -> None:
    limits = PeerLimits(connections_per_peer=8, requests_per_peer=8)
    for uid in (UID, UID, OTHER):
        limits.enter(uid)
    assert (limits.count, limits.by_peer()) == (3, {str(UID): 2, str(OTHER): 1})
    for uid in (UID, UID, OTHER):
        limits.leave(uid)
    assert (limits.count, limits.by_peer()) == (0, {}), "nothing is kept of a user that has left"


def test_uids_that_count_as_one_share_the_limit() -> None:
    limits = PeerLimits(connections_per_peer=2, requests_per_peer=2, user_of=lambda uid: min(uid, UID))
    limits.enter(UID)
    limits.enter(OTHER)
    with pytest.raises(QueueFull):
        limits.enter(OTHER)
    limits.leave(OTHER)
    limits.enter(OTHER)
    for uid in (UID, OTHER):
        limits.begin(uid)
    with pytest.raises(QueueFull):
        limits.begin(OTHER)
    for uid in (UID, OTHER):
        limits.end(uid)
        limits.leave(uid)
    assert limits.by_peer() == {}
