"""What a verification finds, what it does about it, and what is known of it afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from modeld.progress import FileProgress, Stopped
from modeld.store import Manner, WouldBlock
from modeld.store.blobs import blobs
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.maintain import checking
from modelwire.errors import Corrupt, NotFound, WireError
from modelwire.values import Verified
from rigs.maintain_rig import Bench
from rigs.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


def states(bench: Bench) -> dict[str, tuple[str, str | None]]:
    return {view.name: (view.state, view.reason) for view in bench.store.index.page(None, None).models}


async def test_good_models_are_good(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.add("b", b"other")
    outcome = await bench.store.verifier.verify()
    assert (outcome.ok, outcome.checked, outcome.failed, outcome.size_bytes) == (True, 2, 0, 17)
    assert outcome.models[0] == Verified(name="a", ok=True, expected=added.blob, actual=added.blob, size_bytes=12)
    assert (await bench.store.verifier.verify(["b"])).checked == 1


async def test_each_blob_is_hashed_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    bench.write_manifest("c", {"x": b"GGUF weights", "y": b"GGUF weights", "z": b"more"})
    hashed: list[str] = []
    real = blobs.verify_blob

    def counted(layout: Layout, digest: Digest, progress: FileProgress, **how: Any) -> blobs.Verified:
        hashed.append(digest.hex)
        return real(layout, digest, progress, **how)

    monkeypatch.setattr(blobs, "verify_blob", counted)
    outcome = await bench.store.verifier.verify()
    assert (outcome.ok, outcome.checked, len(hashed), len(set(hashed))) == (True, 3, 2, 2)


async def test_several_blobs_are_hashed_at_the_same_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other: one after the other would never end."""
    await bench.add("a", b"1")
    await bench.add("b", b"2")
    both = threading.Barrier(2, timeout=20)
    real = blobs.verify_blob

    def waits(layout: Layout, digest: Digest, progress: FileProgress, **how: Any) -> blobs.Verified:
        both.wait()
        return real(layout, digest, progress, **how)

    monkeypatch.setattr(blobs, "verify_blob", waits)
    assert (await bench.store.verifier.verify()).ok


async def test_a_corrupt_blob_goes_to_quarantine_and_every_model_says_why(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    await bench.add("good", b"good")
    bench.spoil(added.path)
    failed: list[tuple[str, str]] = []
    outcome = await bench.store.verifier.verify(
        ["a"], Manner(on_failed=lambda name, digest, _: failed.append((name, digest.text)))
    )
    (model,) = outcome.models
    assert (outcome.ok, outcome.failed, model.ok, model.expected) == (False, 1, False, added.blob)
    assert model.actual is not None
    assert model.actual not in (added.blob, None)
    assert bench.quarantined() == [b"XXXX weights"]
    assert model.quarantine_path is not None
    assert Path(model.quarantine_path).read_bytes() == b"XXXX weights"
    assert sorted(failed) == [("a", added.blob), ("b", added.blob)]
    for name in ("a", "b"):
        state, reason = states(bench)[name]
        assert state == "failed"
        assert reason is not None
        assert model.actual in reason
        assert model.quarantine_path in reason
        with pytest.raises(Corrupt, match="corrupt"):
            bench.store.index.resolve(name)
    assert states(bench)["good"] == ("ready", None)
    assert not os.path.exists(added.path)
    bench.reopen()
    assert model.quarantine_path in str(states(bench)["b"][1])


async def test_two_in_one_second_are_both_kept(bench: Bench) -> None:
    first, second = await bench.add("a", b"1111"), await bench.add("b", b"2222")
    bench.spoil(first.path)
    bench.spoil(second.path)
    outcome = await bench.store.verifier.verify()
    assert len({model.quarantine_path for model in outcome.models}) == 2
    kept = await bench.store.quarantined()
    assert {(item.reason, item.size_bytes) for item in kept.items} == {("corrupt-blob", 4)}
    assert kept.size_bytes == 8


async def test_a_missing_blob_is_no_good_either(bench: Bench) -> None:
    added = await bench.add("a")
    os.unlink(added.path)
    (model,) = (await bench.store.verifier.verify(["a"])).models
    assert (model.ok, model.actual, model.quarantine_path) == (False, None, None)
    assert "is missing" in str(model.reason)


async def test_asked_again_a_corrupt_model_says_the_same(bench: Bench) -> None:
    added = await bench.add("a")
    bench.spoil(added.path)
    first = (await bench.store.verifier.verify()).models[0]
    again = (await bench.store.verifier.verify()).models[0]
    assert (again.reason, again.quarantine_path, again.actual) == (first.reason, first.quarantine_path, None)


async def test_the_right_bytes_put_everything_right(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    bench.spoil(added.path)
    assert not (await bench.store.verifier.verify()).ok
    await bench.add("c")
    assert (await bench.store.verifier.verify()).ok
    os.unlink(added.path)
    assert "is missing" in str(states(bench)["b"][1])


async def test_one_bad_file_of_several(bench: Bench) -> None:
    bench.write_manifest("many", {"a": b"1", "b": b"22", "c": b"333"})
    bad = Digest.parse(bench.document("many")["files"][1]["blob"])
    bench.spoil(bench.layout.blob(bad), b"x")
    (model,) = (await bench.store.verifier.verify()).models
    assert (model.ok, model.expected, model.files, model.size_bytes) == (False, bad.text, 3, 6)
    assert bench.quarantined() == [b"x2"]


@pytest.mark.parametrize("what", ["link", "directory"])
async def test_what_is_no_file_is_set_aside_and_not_followed(bench: Bench, tmp_path: Path, what: str) -> None:
    added = await bench.add("a")
    outside = tmp_path / "outside"
    outside.write_bytes(b"GGUF weights")
    os.unlink(added.path)
    if what == "link":
        os.symlink(outside, added.path)
    else:
        os.mkdir(added.path)
    (model,) = (await bench.store.verifier.verify()).models
    assert not model.ok
    assert model.quarantine_path
    assert not os.path.lexists(added.path)
    assert outside.read_bytes() == b"GGUF weights"


async def test_a_damaged_manifest_is_a_failed_model(bench: Bench) -> None:
    Path(bench.manifest("bad")).write_text("{")
    (model,) = (await bench.store.verifier.verify()).models
    assert (model.name, model.ok, model.files) == ("bad", False, 0)
    assert "is damaged" in str(model.reason)


async def test_a_manifest_with_a_wrong_size_is_no_fault_of_its_model(bench: Bench) -> None:
    bench.write_manifest("odd", {"a": b"1"})
    document = Path(bench.manifest("odd"))
    document.write_text(document.read_text().replace('"size_bytes": 1', '"size_bytes": 5'))
    (model,) = (await bench.store.verifier.verify()).models
    assert (model.ok, model.size_bytes) == (True, 1)
    assert "the manifest says 5" in str(model.reason)
    assert bench.quarantined() == []


async def test_an_unknown_name_fails_before_anything_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.add("a")
    monkeypatch.setattr(blobs, "verify_blob", lambda *_: pytest.fail("was read"))
    with pytest.raises(NotFound):
        await bench.store.verifier.verify(["a", "nope"])


async def test_a_blob_that_cannot_be_read_is_reported_and_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.add("a")

    def fail(*_: object, **_how: bool) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(blobs, "hash_file", fail)
    (model,) = (await bench.store.verifier.verify()).models
    assert not model.ok
    assert "Input/output error" in str(model.reason)
    assert os.path.exists(added.path)
    assert bench.quarantined() == []


async def test_good_bytes_that_arrive_meanwhile_are_not_taken_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.add("a")
    bench.spoil(added.path)
    looked: list[checking.Finding] = []
    real = checking._look_at

    def mended_after_the_look(
        layout: Layout, digest: Digest, progress: FileProgress, manner: Manner
    ) -> checking.Finding:
        look = real(layout, digest, progress, manner)
        if not looked:
            os.unlink(added.path)
            bench.plant(b"GGUF weights")
        looked.append(look)
        return look

    monkeypatch.setattr(checking, "_look_at", mended_after_the_look)
    assert (await bench.store.verifier.verify()).ok
    assert len(looked) == 2
    assert bench.quarantined() == []


async def test_progress_is_that_of_all_bytes(bench: Bench) -> None:
    await bench.add("a", b"1" * 5_000_000)
    await bench.add("b", b"2" * 10)
    await bench.store.renaming.copy("b", "c")
    watching = Watcher()
    await bench.store.verifier.verify(progress=watching)
    assert (watching.totals, watching.phases) == ([5_000_010], ["verify"])
    assert watching.done == watching.verified == 5_000_010


async def test_a_stop_ends_it_and_what_was_found_is_kept(bench: Bench) -> None:
    for number in range(6):
        await bench.add(f"m{number}", str(number).encode() * 10)
    watching = Watcher(stop_after=20)
    with pytest.raises(Stopped):
        await bench.store.verifier.verify(progress=watching)
    verified = [name for name in bench.names() if any(
        past.outcome == "verified" for past in (await bench.store.models.show(name)).history
    )]  # fmt: skip
    assert 1 <= len(verified) < 6


# -- what is known afterwards


async def test_without_a_catalogue_it_works_and_knows_the_reason(bench: Bench) -> None:
    from modeld.store import Store
    from rigs.maintain_rig import SETTINGS

    added = await bench.add("a")
    bench.close()
    store = Store.open(bench.root, SETTINGS)
    try:
        assert (await store.verifier.verify()).ok
        bench.spoil(added.path)
        assert not (await store.verifier.verify()).ok
        assert "corrupt" in str(store.index.page(None, None).models[0].reason)
        assert (await store.models.show("a")).history == ()
    finally:
        store.close()
        bench.open()


async def test_a_full_catalogue_does_not_keep_bad_bytes_in_use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.add("a")
    bench.spoil(added.path)

    async def full(*_: object) -> None:
        raise WireError.__subclasses__()[0]("full")

    monkeypatch.setattr(bench.catalog, "write", full)
    assert not (await bench.store.verifier.verify()).ok
    assert not os.path.exists(added.path)
    assert "corrupt" in str(states(bench)["a"][1])


async def test_many_verifications_at_once_agree(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.add("b", b"good")
    bench.spoil(added.path)
    outcomes = []

    async def verify() -> None:
        outcomes.append(await bench.store.verifier.verify())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(verify)
    assert [[model.ok for model in outcome.models] for outcome in outcomes] == [[False, True]] * 5
    assert len(bench.quarantined()) == 1


async def test_good_bytes_that_another_tool_names_at_the_last_moment_are_not_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.add("a")
    good = Path(added.path).read_bytes()
    os.chmod(added.path, 0o644)
    Path(added.path).write_bytes(b"X" * len(good))
    move, named = durable.name_without_replacing, False

    def race(source: str, target: str) -> bool:
        nonlocal named
        if source == added.path and not named:
            named = True
            fresh = Path(bench.layout.root, "fresh")
            fresh.write_bytes(good)
            os.replace(fresh, added.path)
        return move(source, target)

    monkeypatch.setattr(durable, "name_without_replacing", race)
    outcome = await bench.store.verifier.verify()
    assert named
    assert outcome.ok
    assert Path(added.path).read_bytes() == good
    assert bench.quarantined() == []
    assert states(bench) == {"a": ("ready", None)}


async def shown_of(bench: Bench, name: str) -> str:
    try:
        return (await bench.store.look_up(name)).path
    except WouldBlock:
        return (await bench.store.resolver.resolve(name)).path


@pytest.mark.parametrize("verified", [True, False])
async def test_a_tree_that_was_whole_shows_the_bytes_that_replace_bad_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, verified: bool
) -> None:
    """The tree has links to the old file, and its directories do not change when the blob does. A verification finds
    the bad blob, or an add by itself."""
    monkeypatch.setattr("modeld.store.manifests.trees.settled", lambda *_: True)
    bench.write_manifest("many", {"a": b"first", "b": b"second"})
    for _made_then_found_whole in range(2):
        await bench.store.resolver.resolve("many")
    bench.spoil(bench.layout.blob(Digest.parse(bench.document("many")["files"][1]["blob"])))
    if verified:
        assert not (await bench.store.verifier.verify()).ok
        bench.plant(b"second")
    else:
        await bench.add("alone", b"second", formats="force_format")
    assert Path(await shown_of(bench, "many"), "b").read_bytes() == b"second"
