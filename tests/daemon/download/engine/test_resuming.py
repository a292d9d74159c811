"""A download that was stopped goes on with the bytes that are here, once they are shown to be the right ones."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.partials.journal import Piece
from modeld.download.partials.partial import Partial
from modeld.download.tuning import PIECE
from modeld.progress import Stopped
from rigs.chaos_server import Chaos
from rigs.download_rig import QUICK, SIZE, content_of, digest_of, leave, quick
from rigs.watcher import Watcher

CONTENT = content_of()
DIGEST = digest_of(CONTENT)


@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("known", [True, False])
def test_stopped_it_goes_on_where_it_was(make_rig: MakeRig, connections: int, known: bool) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, rate=8 << 20) as chaos:
        file = rig.info(chaos.url, CONTENT)
        if not known:
            file = replace(file, digest=None, validator='"one"')
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        chaos.rate = None
        watcher = Watcher()
        fetched = rig.fetch(file, watcher=watcher)
        rig.commit(fetched)
    assert fetched.digest == DIGEST
    assert watcher.reused >= SIZE // 2, "everything that was written was journalled"
    assert watcher.reused + watcher.network >= SIZE
    assert watcher.kept == watcher.reused, "no rate is made of bytes that were here"
    assert watcher.done == watcher.verified == SIZE
    assert "transfer.resumed" in rig.kinds()
    assert rig.leftovers() == []


@pytest.mark.parametrize("where", [0, SIZE // 4])
def test_bytes_that_rotted_meanwhile_are_fetched_again(make_rig: MakeRig, where: int) -> None:
    rig = make_rig(quick(1))
    with Chaos(CONTENT, rate=16 << 20) as chaos:
        file = rig.info(chaos.url, CONTENT)
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        with open(rig.layout.partial(DIGEST), "r+b") as partial:
            partial.seek(where)
            partial.write(b"rotten")
        chaos.rate = None
        watcher = Watcher()
        rig.commit(rig.fetch(file, watcher=watcher))
    assert "transfer.damaged_piece" in rig.kinds()
    assert watcher.done == SIZE


def test_a_resume_after_the_source_changed(make_rig: MakeRig) -> None:
    rig = make_rig(quick(1))
    with Chaos(CONTENT, rate=16 << 20) as chaos:
        file = replace(rig.info(chaos.url), size=SIZE, validator='"one"')
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        chaos.rate, chaos.content, chaos.etag = None, content_of(seed=9), '"two"'
        fetched = rig.fetch(file)
        rig.commit(fetched)
    assert fetched.digest == digest_of(chaos.content)
    assert "transfer.restarted" in rig.kinds()


def test_what_is_complete_needs_no_network(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        file = rig.info(chaos.url, CONTENT)
        leave(rig.fetch(file))
    fetched = rig.fetch(file)
    blob, _ = rig.commit(fetched)
    assert blob.size == SIZE
    assert rig.leftovers() == []


@pytest.mark.parametrize("known", [True, False], ids=["digest", "version"])
def test_bytes_of_an_earlier_run_are_of_what_is_described_when_the_version_says_so(
    make_rig: MakeRig, known: bool
) -> None:
    """A digest alone may have come with another file: then the source has not shown that these are its bytes."""
    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        file = rig.info(chaos.url, CONTENT) if known else replace(rig.info(chaos.url, CONTENT), digest=None)
        file = replace(file, validator='"one"')
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        resumed = rig.fetch(file)
        assert "transfer.resumed" in rig.kinds()
        assert resumed.as_described != known
        rig.commit(resumed)
        again = rig.fetch(file)
        assert again.as_described
        rig.commit(again)


def test_it_begins_with_as_many_connections_as_were_worth_it(make_rig: MakeRig) -> None:
    """Finding that out takes a slow server seconds, each time."""
    first = make_rig(quick(6))
    unhurried = replace(QUICK, first_connections=1, connections_per_file=8, growth_window_seconds=1000)
    with Chaos(CONTENT, rate=8 << 20) as chaos:
        with pytest.raises(Stopped):
            first.fetch(first.info(chaos.url, CONTENT), watcher=Watcher(stop_after=SIZE // 4))
        chaos.rate, before = 1 << 20, chaos.accepted
        rig = make_rig(unhurried)
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
        assert chaos.accepted - before >= 6
        assert "transfer.resumed" in rig.kinds()


def test_how_much_a_kill_costs_does_not_grow_with_the_connections(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is written when many bytes wait for it, of whichever connections."""
    patient = replace(quick(8), journal_seconds=1000, unjournalled_bytes=SIZE, pending_bytes=SIZE // 8)
    rig, record, recorded = make_rig(patient), Partial.record, list[int]()

    def note(partial: Partial, pieces: Sequence[Piece], connections: Mapping[str, int]) -> None:
        recorded.append(sum(piece.end - piece.start for piece in pieces))
        record(partial, pieces, connections)

    monkeypatch.setattr(Partial, "record", note)
    with Chaos(CONTENT, rate=2 << 20) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert len(recorded) >= 4
    assert max(recorded) < 2 * patient.pending_bytes + 8 * patient.segment_bytes


def test_a_slow_connection_has_its_bytes_journalled_before_a_piece_is_whole(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, record, lengths = (
        make_rig(replace(quick(1), segment_bytes=SIZE - 1, piece_seconds=0.2)),
        Partial.record,
        list[int](),
    )

    def note(partial: Partial, pieces: Sequence[Piece], connections: Mapping[str, int]) -> None:
        lengths.extend(piece.end - piece.start for piece in pieces)
        record(partial, pieces, connections)

    monkeypatch.setattr(Partial, "record", note)
    with Chaos(CONTENT, rate=6 << 20) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert max(lengths) < PIECE
    assert sum(lengths) == SIZE


def test_space_that_cannot_be_given_back_costs_no_byte(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that is left frees what is allocated behind its last byte. Where that fails its bytes stay."""
    rig, tried, truncate = make_rig(quick(1)), 0, os.ftruncate

    def fail(descriptor: int, size: int) -> None:
        nonlocal tried
        if os.readlink(f"/proc/self/fd/{descriptor}") != rig.layout.partial(DIGEST) or size == 0:
            return truncate(descriptor, size)
        tried += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Chaos(CONTENT, rate=8 << 20) as chaos:
        file = rig.info(chaos.url, CONTENT)
        with monkeypatch.context() as broken:
            broken.setattr(os, "ftruncate", fail)
            with pytest.raises(Stopped):
                rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        assert tried == 1
        chaos.rate = None
        watcher = Watcher()
        assert rig.commit(rig.fetch(file, watcher=watcher))[0].digest == DIGEST
    assert watcher.reused >= SIZE // 2
    assert rig.leftovers() == []
