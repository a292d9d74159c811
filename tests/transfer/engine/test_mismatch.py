"""What a digest that does not fit says of its source: nothing, when the bytes may not be all, or not its own."""

from __future__ import annotations

import os

import pytest

from modeld.transfer.partials.journal import Header, Piece, checksum
from modeld.transfer.partials.partial import Partial
from modeld.transfer.tuning import PIECE
from modelwire.errors import DigestMismatch
from transfer.chaos import Chaos
from transfer.conftest import MakeRig
from transfer.rig import Rig, content_of, digest_of

CONTENT = content_of()
OTHER = content_of(seed=9)
DIGEST = digest_of(CONTENT)


def left_whole(rig: Rig, content: bytes, giver: str, validator: str) -> None:
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
        fetched.commit()
    assert fetched.staged.digest == DIGEST
    assert "condemned" in rig.kinds()


def test_a_version_of_an_earlier_run_that_is_still_there_is_not_fetched_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(OTHER) as chaos:
        left_whole(rig, OTHER, f"plain at {chaos.url}", chaos.etag)
        with pytest.raises(DigestMismatch):
            rig.fetch(rig.info(chaos.url, CONTENT, validator=chaos.etag))
        assert chaos.requests == []
