"""What a quick verification finds by the checksums of blocks, what only a hash decides, and what it leaves unproven."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.progress import FileProgress, JobProgress
from modeld.store import Manner
from modeld.store.blobs import blobs
from modeld.store.blobs.block_checksums import BLOCK, BlockSums, load_blocks, save_blocks
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from rigs.maintain_rig import Bench

BLOCKS = 3
CONTENT = os.urandom(1 << 20) * 16 * (BLOCKS - 1) + b"the last block is short"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the blobs that were hashed, in order."""
    seen: list[str] = []
    real = blobs.verify_blob

    def counted(layout: Layout, digest: Digest, progress: FileProgress, **how: Any) -> blobs.Verified:
        seen.append(digest.text)
        return real(layout, digest, progress, **how)

    monkeypatch.setattr(blobs, "verify_blob", counted)
    return seen


async def outcomes(bench: Bench, name: str) -> list[str]:
    return [past.outcome for past in (await bench.store.models.show(name)).history]


async def test_unchanged_blocks_are_not_hashed_and_the_answer_says_what_that_proves(
    bench: Bench, hashed: list[str]
) -> None:
    added = await bench.add("a", CONTENT)
    progress = JobProgress()
    outcome = await bench.store.verifier.verify(None, Manner(quick=True), progress=progress)
    (model,) = outcome.models
    assert (outcome.ok, outcome.quick, outcome.size_bytes) == (True, True, len(CONTENT))
    assert (model.ok, model.by, model.expected, model.actual) == (True, "checksums", added.blob, None)
    assert hashed == []
    assert (progress.done, progress.verified) == (len(CONTENT), 0)
    full = await bench.store.verifier.verify()
    assert (full.quick, full.models[0].by, full.models[0].actual) == (False, "sha256", added.blob)


async def test_it_counts_as_no_verification_in_the_records(bench: Bench) -> None:
    added = await bench.add("a", CONTENT)
    await bench.store.ingest.records.forget(Digest.parse(added.blob))
    await bench.store.verifier.verify(None, Manner(quick=True))
    assert (await bench.store.models.show("a")).verified_at is None
    assert await bench.store.ingest.records.verified_signatures([Digest.parse(added.blob)]) == {}
    assert await outcomes(bench, "a") == ["added", "checked"]


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, len(CONTENT) - 1])
async def test_one_flipped_bit_in_any_block_is_found_and_condemned_by_a_hash(
    bench: Bench, hashed: list[str], at: int
) -> None:
    added = await bench.add("a", CONTENT)
    bench.flip(added.path, at)
    progress = JobProgress()
    outcome = await bench.store.verifier.verify(None, Manner(quick=True), progress=progress)
    (model,) = outcome.models
    assert (outcome.ok, model.ok, model.by, hashed) == (False, False, "sha256", [added.blob])
    assert model.actual not in (None, added.blob)
    assert not os.path.exists(added.path)
    assert model.quarantine_path is not None
    assert len(Path(model.quarantine_path).read_bytes()) == len(CONTENT)
    assert await outcomes(bench, "a") == ["added", "corrupt"]
    assert progress.done == len(CONTENT)
    assert load_blocks(bench.layout, Digest.parse(added.blob)) is not None, "a repair needs them"


@pytest.mark.parametrize("change", [1, -1])
async def test_a_blob_of_another_length_is_hashed(bench: Bench, hashed: list[str], change: int) -> None:
    added = await bench.add("a", CONTENT)
    os.chmod(added.path, 0o644)
    os.truncate(added.path, len(CONTENT) + change)
    outcome = await bench.store.verifier.verify(None, Manner(quick=True))
    assert (outcome.ok, hashed) == (False, [added.blob])


async def test_wrong_checksums_condemn_nothing_and_are_taken_anew(bench: Bench, hashed: list[str]) -> None:
    added = await bench.add("a", CONTENT)
    digest = Digest.parse(added.blob)
    good = load_blocks(bench.layout, digest)
    assert good is not None
    save_blocks(bench.layout, digest, BlockSums(good.size, (1, *good.sums[1:])))
    outcome = await bench.store.verifier.verify(None, Manner(quick=True))
    assert (outcome.ok, outcome.models[0].by, hashed) == (True, "sha256", [added.blob])
    assert os.path.exists(added.path)
    assert load_blocks(bench.layout, digest) == good
    assert await outcomes(bench, "a") == ["added", "verified"]
    assert (await bench.store.models.show("a")).verified_at is not None


@pytest.mark.parametrize("quick", [True, False])
async def test_a_blob_without_checksums_is_hashed_and_gets_them(bench: Bench, hashed: list[str], quick: bool) -> None:
    bench.write_manifest("theirs", {"a": CONTENT, "b": b"small"})
    digest, small = (Digest.parse(file["blob"]) for file in bench.document("theirs")["files"])
    outcome = await bench.store.verifier.verify(None, Manner(quick=quick))
    assert (outcome.ok, outcome.models[0].by) == (True, "sha256")
    assert sorted(hashed) == sorted([digest.text, small.text])
    known = load_blocks(bench.layout, digest)
    assert known is not None
    assert (known.size, len(known.sums)) == (len(CONTENT), BLOCKS)
    assert load_blocks(bench.layout, small) is None, "of one block they are worth nothing"
    hashed.clear()
    again = await bench.store.verifier.verify(None, Manner(quick=True))
    assert (again.ok, again.models[0].by, hashed) == (True, "checksums", [small.text])


async def test_a_bad_blob_without_checksums_gets_none(bench: Bench) -> None:
    bench.write_manifest("theirs", {"a": CONTENT})
    digest = Digest.parse(bench.document("theirs")["blob"])
    bench.flip(bench.layout.blob(digest), 5)
    assert not (await bench.store.verifier.verify(None, Manner(quick=True))).ok
    assert load_blocks(bench.layout, digest) is None


async def test_a_missing_blob_is_missed_by_a_quick_look_too(bench: Bench) -> None:
    added = await bench.add("a", CONTENT)
    os.unlink(added.path)
    (model,) = (await bench.store.verifier.verify(None, Manner(quick=True))).models
    assert (model.ok, model.reason) == (False, f"its blob is missing: {added.path}")


async def test_the_checksums_of_a_condemned_blob_survive_sweeps_and_restarts(bench: Bench) -> None:
    """A repair compares what is kept in quarantine with them."""
    added = await bench.add("a", CONTENT)
    bench.flip(added.path, 5)
    assert not (await bench.store.verifier.verify()).ok
    await bench.store.sweeper.sweep(grace=0)
    bench.reopen()
    await bench.store.sweeper.sweep(grace=0)
    assert load_blocks(bench.layout, Digest.parse(added.blob)) is not None
