"""Without a fault no byte is asked for twice, however many connections share a file: counted where they were sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.partials.segments import Segment, Segments
from modeld.download.tuning import DEFAULT, MIB
from rigs.chaos_server import Chaos
from rigs.download_rig import content_of, digest_of

CONTENT = content_of(10 * MIB + 12345, seed=4)
DIGEST = digest_of(CONTENT)


@pytest.mark.parametrize("connections", [2, 8])
def test_slow_connections_share_and_nothing_is_sent_twice(
    make_rig: MakeRig, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first range is long, so the second connection has nothing left while the first is still busy for seconds."""
    split, shared = Segments.split, list[Segment]()

    def counting(segments: Segments, now: float) -> Segment | None:
        given = split(segments, now)
        shared.extend([] if given is None else [given])
        return given

    monkeypatch.setattr(Segments, "split", counting)
    rig = make_rig(replace(DEFAULT, first_connections=connections, connections_per_file=connections))
    with Chaos(CONTENT, rate=3 * MIB // 2) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
        ranges = [request.headers["range"].removeprefix("bytes=") for request in chaos.requests]
    asked = sorted(tuple(map(int, each.split("-"))) for each in ranges)
    assert [start for start, _ in asked] == [0, *(last + 1 for _, last in asked[:-1])], "side by side"
    assert asked[-1][1] == len(CONTENT) - 1
    assert chaos.sent_twice() == 0
    assert chaos.sent == len(CONTENT)
    assert shared, "the long range was divided"
