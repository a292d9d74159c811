"""Each fault of a network at 25, 50 and 90 %, on one and on eight connections: the right bytes or a typed error.

Counted at the server, which is a real one on a real socket; what the journal vouches for is never fetched again.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import get_args

import pytest

from daemon.conftest import MakeRig
from modeld.download.partials import journal
from modelwire.errors import DigestMismatch, SourceUnavailable, TimedOut
from rigs.chaos_server import Chaos, Fault, Kind
from rigs.download_rig import SIZE, Rig, content_of, digest_of, quick
from rigs.watcher import Watcher

CONTENT = content_of()
DIGEST = digest_of(CONTENT)
POINTS = pytest.mark.parametrize("at", [0.25, 0.5, 0.9])
CONNECTIONS = pytest.mark.parametrize("connections", [1, 8])

SURVIVED: dict[str, Fault] = {
    **{
        kind: Fault(kind)
        for kind in get_args(Kind)
        if kind
        in (
            *("drop", "short", "excess", "announces_more", "stall", "changed_etag", "ignored_range"),
            *("no_length", "chunked", "drip"),
        )
    },
    "416": Fault("status", status=416, headers={"Content-Range": f"bytes */{SIZE}"}),
    "429": Fault("status", status=429, headers={"Retry-After": "1"}),
    "503": Fault("status", status=503),
}
"""Once, it costs time and not the file."""

STAYING: dict[str, Fault] = {
    **{kind: Fault(kind) for kind in get_args(Kind)},
    "416": SURVIVED["416"],
    # So long that nobody waits for it: it is not the test that has to.
    "429": Fault("status", status=429, headers={"Retry-After": "7200"}),
}


def blob_is_right(rig: Rig) -> bool:
    """False when there is none."""
    if not os.path.exists(rig.layout.blob(DIGEST)):
        return False
    with open(rig.layout.blob(DIGEST), "rb") as file:
        assert file.read() == CONTENT
    return True


def journalled(rig: Rig) -> int:
    """Bytes of the download that its journal vouches for."""
    try:
        descriptor = os.open(f"{rig.layout.partial_dir(DIGEST)}/journal", os.O_RDONLY)
    except FileNotFoundError:
        return 0
    told = journal.read(descriptor)
    os.close(descriptor)
    return 0 if told is None else sum(piece.end - piece.start for piece in told.pieces)


@CONNECTIONS
@POINTS
@pytest.mark.parametrize("fault", SURVIVED)
def test_one_fault_costs_time_and_not_the_file(make_rig: MakeRig, fault: str, at: float, connections: int) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, replace(SURVIVED[fault], at=at)) as chaos:
        watcher = Watcher()
        fetched = rig.fetch(rig.info(chaos.url, CONTENT), watcher=watcher)
        rig.commit(fetched)
        assert chaos.faults[0].struck == 1
    assert blob_is_right(rig)
    assert fetched.digest == DIGEST
    assert watcher.done == watcher.verified == SIZE
    assert sum(fetched.served.values()) == SIZE
    assert rig.leftovers() == []
    assert rig.space.promised == 0


@CONNECTIONS
@POINTS
def test_a_redirect_loop_ends_it_and_what_is_here_stays(make_rig: MakeRig, at: float, connections: int) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, Fault("redirect_loop", at)) as chaos:
        chaos.faults[0].times = 99
        with pytest.raises(SourceUnavailable, match="in a circle"):
            rig.fetch(rig.info(chaos.url, CONTENT))
    assert journalled(rig) >= SIZE * at - connections * 2 * quick().segment_bytes
    assert rig.only_partial()


@CONNECTIONS
@POINTS
def test_a_range_that_was_not_asked_for_ends_it_and_what_is_here_stays(
    make_rig: MakeRig, at: float, connections: int
) -> None:
    """A server that gives one wrong range may give the next one under a right name."""
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, Fault("shifted_range", at)) as chaos:
        with pytest.raises(SourceUnavailable, match="sent others") as caught:
            rig.fetch(rig.info(chaos.url, CONTENT))
        assert not caught.value.retryable
        assert chaos.faults[0].struck == 1
        assert "transfer.retry" not in rig.kinds()
        assert rig.only_partial()
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert blob_is_right(rig)


@CONNECTIONS
@POINTS
def test_a_wrong_byte_is_never_published(make_rig: MakeRig, at: float, connections: int) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, Fault("wrong_bytes", at)) as chaos:
        with pytest.raises(DigestMismatch):
            rig.fetch(rig.info(chaos.url, CONTENT))
    assert not os.path.exists(rig.layout.blob(DIGEST))
    assert [os.path.basename(os.path.dirname(path)) for path in rig.leftovers()] == ["quarantine"]


@CONNECTIONS
@POINTS
@pytest.mark.parametrize("fault", STAYING)
def test_a_fault_that_stays_loses_nothing_that_was_journalled(
    make_rig: MakeRig, fault: str, at: float, connections: int
) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, replace(STAYING[fault], at=at, times=1_000_000)) as chaos:
        file, typed = rig.info(chaos.url, CONTENT), False
        try:
            rig.commit(rig.fetch(file))
        except (SourceUnavailable, TimedOut, DigestMismatch):
            typed = True
        assert blob_is_right(rig) is not typed
        assert rig.space.promised == 0
        if typed:
            kept = journalled(rig)
            chaos.faults.clear()
            watcher, again = Watcher(), make_rig(quick(connections))  # as a daemon that was started again
            try:
                again.commit(again.fetch(file, watcher=watcher))
            except DigestMismatch:
                assert fault == "changed_content", "it has other bytes from now on"
            else:
                assert blob_is_right(rig)
            assert watcher.reused >= kept
    assert rig.space.promised == 0
    places = {os.path.basename(os.path.dirname(path))[:7] for path in rig.leftovers() if "/quarantine/" not in path}
    assert places <= {"sha256-"}


@pytest.mark.parametrize("at", [0.1, 0.3, 0.6])
def test_ranges_that_break_off_just_when_they_are_given_up(make_rig: MakeRig, at: float) -> None:
    """A connection whose part broke off must not begin with the whole file while others still write their parts."""
    rig = make_rig(quick(16))
    faults = [Fault("ignored_range", at), Fault("drop", at, times=12)]
    with Chaos(CONTENT, *faults, rate=4 << 20) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert "transfer.ranges_ignored" in rig.kinds()
    assert blob_is_right(rig)
    assert rig.leftovers() == []
