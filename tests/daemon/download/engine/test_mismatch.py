"""What a digest that does not fit says of its source: nothing, when the bytes may not be all, or not its own."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.partials.journal import Header, Piece, checksum
from modeld.download.partials.partial import Partial
from modeld.download.tuning import PIECE
from modelwire.errors import DigestMismatch
from rigs.chaos_server import Chaos
from rigs.download_rig import Rig, content_of, digest_of
from rigs.scripted_server import Asked, Reply, Server

CONTENT = content_of()
OTHER = content_of(seed=9)
DIGEST = digest_of(CONTENT)


def left_whole(rig: Rig, content: bytes, giver: str, validator: str | None) -> None:
    """As a run leaves it that was stopped while the last bytes were hashed."""
    partial = Partial.open(rig.layout, Header(DIGEST.hex, len(content), None), DIGEST, None)
    os.pwrite(partial.descriptor, content, 0)
    number = partial.identity(giver, validator)
    parts = ((start, min(start + PIECE, len(content))) for start in range(0, len(content), PIECE))
    partial.record([Piece(a, b, checksum(memoryview(content[a:b])), number) for a, b in parts])
    partial.close()


def test_a_version_of_an_earlier_run_does_not_stand_for_the_one_that_is_there_now(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        left_whole(rig, OTHER, f"plain at {chaos.url}", '"before"')
        fetched = rig.fetch(rig.info(chaos.url, CONTENT, validator=chaos.etag))
        rig.commit(fetched)
    assert fetched.digest == DIGEST
    assert "source.condemned" in rig.kinds()


def test_a_version_of_an_earlier_run_that_is_still_there_is_not_fetched_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(OTHER) as chaos:
        left_whole(rig, OTHER, f"plain at {chaos.url}", chaos.etag)
        with pytest.raises(DigestMismatch):
            rig.fetch(rig.info(chaos.url, CONTENT, validator=chaos.etag))
        assert chaos.requests == []


def unannounced(*answers: bytes) -> Server:
    """One after the other, and the last for ever; nothing but the end of the connection tells how long they are."""
    given = iter(answers)

    def route(_asked: Asked) -> Reply:
        return Reply(200, {"Connection": "close"}, next(given, answers[-1]))

    return Server(route)


def test_an_end_that_nobody_announced_may_be_that_of_a_broken_connection(make_rig: MakeRig) -> None:
    rig = make_rig()
    with unannounced(CONTENT[:-1], CONTENT[: len(CONTENT) // 2], CONTENT) as server:
        fetched = rig.fetch(replace(rig.info(server.url), digest=DIGEST))
        rig.commit(fetched)
    assert fetched.digest == DIGEST
    assert rig.transfer.condemned._by_key == {}


def test_who_ends_in_the_same_way_twice_has_another_file(make_rig: MakeRig) -> None:
    rig = make_rig()
    with unannounced(OTHER) as server:
        with pytest.raises(DigestMismatch):
            rig.fetch(replace(rig.info(server.url), digest=DIGEST))
        assert len(server.asked) == 2
    assert [each.digest for each in rig.transfer.condemned._by_key.values()] == [DIGEST.hex]
