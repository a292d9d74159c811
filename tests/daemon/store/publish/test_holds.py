"""What running work holds is not removed, and work that comes during a removal waits until it is over."""

from __future__ import annotations

import threading

import pytest

from modeld.store.digest import Digest
from modeld.store.publish.holds import Holds
from rigs.waiting import wait_until

DIGEST, OTHER = Digest("a" * 64), Digest("b" * 64)


@pytest.mark.parametrize(
    ("held", "removed", "free"),
    [
        (DIGEST, DIGEST, False),
        (DIGEST, OTHER, True),
        ("/m/staging", "/m/staging/one.tmp", False),
        ("/m/partials/x/data.tmp", "/m/partials/x", False),
        ("/m/partials/x", "/m/partials/x", False),
        ("/m/partials/x", "/m/partials/xy", True),
        ("/m/staging", DIGEST, True),
    ],
)
def test_only_what_nothing_relies_on_may_be_removed(held: Digest | str, removed: Digest | str, free: bool) -> None:
    holds = Holds()
    with holds.relying_on(held), holds.relying_on(held, OTHER) if removed is not OTHER else holds.relying_on(held):
        with holds.removing(removed) as allowed:
            assert allowed is free
        assert holds.is_held(removed) is not free
    assert not holds.is_held(removed)
    with holds.removing(removed) as allowed:
        assert allowed


@pytest.mark.parametrize(("removed", "wanted"), [(DIGEST, DIGEST), ("/m/partials/x", "/m/partials/x/data.tmp")])
def test_work_that_comes_during_a_removal_waits_for_its_end(removed: Digest | str, wanted: Digest | str) -> None:
    holds, seen = Holds(), list[str]()

    def work() -> None:
        with holds.relying_on(wanted):
            seen.append("held")
            holds.until_settled(wanted)
            seen.append("looked")

    thread = threading.Thread(target=work)
    with holds.removing(removed) as allowed:
        assert allowed
        thread.start()
        wait_until(lambda: seen, what="the work's hold")
        thread.join(0.05)
        assert seen == ["held"]
        seen.append("removed")
    thread.join(10)
    assert seen == ["held", "removed", "looked"]
    holds.until_settled(removed)
