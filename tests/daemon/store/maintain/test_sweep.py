"""What a sweep removes and what it keeps: decided by age and by holders, and checked again before the removal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.config import StoreSettings
from modeld.progress import Stopped
from modeld.store.digest import Digest
from modeld.store.disk import removal
from modeld.store.maintain import sweep as sweep_module
from modeld.store.manifests import manifests
from modeld.store.names import ModelName
from modelwire.units import Duration, Size
from rigs.lock_holder import HOLD_FILE, other_process
from rigs.maintain_rig import DAY, Bench, kinds, later
from rigs.watcher import Watcher


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


async def test_a_blob_that_no_model_names_goes(bench: Bench) -> None:
    gone, kept = await bench.add("a", b"gone"), await bench.add("b", b"stays")
    await bench.store.renaming.remove("a")
    planned = await bench.store.sweeper.sweep(dry_run=True)
    assert os.path.exists(gone.path)
    swept = await bench.store.sweeper.sweep()
    assert (planned.dry_run, planned.victims, planned.freed_bytes) == (True, swept.victims, swept.freed_bytes)
    (victim,) = swept.victims
    assert (victim.path, victim.kind, victim.size_bytes) == (gone.path, "blob", 4)
    assert victim.reason.startswith("no model names it, unchanged for")
    assert (swept.removed, swept.freed_bytes, swept.kept, swept.notes) == (1, 4, 1, ())
    assert bench.blobs() == [kept.path]
    assert not os.path.exists(os.path.dirname(gone.path))
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert (await bench.add("a", b"gone")).reused is False


async def test_nothing_younger_than_the_grace_period_goes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), grace=Duration(3600)))
    try:
        gone = await bench.add("a")
        await bench.store.renaming.remove("a")
        bench.ages(gone.path, 1e6)  # an old file that was moved here is as young as its name
        assert (await bench.store.sweeper.sweep()).victims == ()
        later(bench, 3500)
        assert (await bench.store.sweeper.sweep()).victims == ()
        later(bench, 3700)
        assert kinds(await bench.store.sweeper.sweep()) == [("blob", 12)]
    finally:
        bench.close()


async def test_every_file_of_a_model_holds_its_blob(bench: Bench) -> None:
    bench.write_manifest("many", {"a": b"1", "b": b"22"})
    swept = await bench.store.sweeper.sweep()
    assert (swept.victims, swept.kept) == ((), 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2 + 150],
        lambda text: text.replace('"schema_version": 1', '"schema_version": 9'),
        lambda text: "\n\n[" + text,
        lambda text: re.sub("sha256:([0-9a-f]{64})", lambda found: "sha256:" + found[1].upper(), text),
        lambda text: re.sub("sha256:([0-9a-f]{64})", lambda found: "SHA256:" + found[1].capitalize(), text),
    ],
)
async def test_a_manifest_that_cannot_be_used_holds_what_it_seems_to_name(
    bench: Bench, spoil: Callable[[str], str]
) -> None:
    added = await bench.add("a", b"0" * 7)
    path = Path(bench.manifest("a"))
    text = spoil(path.read_text())
    path.write_text(text)
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert os.path.exists(added.path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig"])
async def test_a_manifest_in_another_encoding_holds_its_blob(bench: Bench, encoding: str) -> None:
    added = await bench.add("a")
    path = Path(bench.manifest("a"))
    path.write_bytes(path.read_text().encode(encoding))
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert os.path.exists(added.path)


@pytest.mark.parametrize("name", ["con.json", ".hidden.json.tmp", "A B.json", "half-written"])
async def test_files_of_any_name_beside_the_manifests_hold_blobs(bench: Bench, name: str) -> None:
    added = await bench.add("a")
    os.rename(bench.manifest("a"), f"{bench.layout.manifests_dir}/{name}")
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert os.path.exists(added.path)


async def test_escaped_digests_are_read_as_what_they_are(bench: Bench) -> None:
    digest = bench.plant(b"x")
    escaped = "".join(f"\\u{ord(character):04x}" for character in digest.text)
    Path(bench.manifest("a")).write_text('{"schema_version":1,"size_bytes":1,"blob":"' + escaped + '"}')
    assert bench.names() == ["a"]
    assert (await bench.store.sweeper.sweep()).victims == ()


async def test_while_one_manifest_cannot_be_read_no_blob_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.add("a")
    await bench.store.renaming.remove("a")
    too_long = Path(bench.manifest("huge"))
    too_long.write_text("x" * 100)
    monkeypatch.setattr("modeld.store.manifests.marks.LONGEST", 50)
    swept = await bench.store.sweeper.sweep()
    assert swept.victims == ()
    assert "no blob is removed" in swept.notes[0]
    assert str(too_long) in swept.notes[0]
    assert os.path.exists(added.path)
    too_long.unlink()
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", 12)]


async def test_what_leases_and_pins_hold_stays(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.store.renaming.remove("a")
    held = [Digest.parse(added.blob)]
    bench.store.holds.register(blobs=lambda: held)
    assert (await bench.store.sweeper.sweep()).victims == ()
    held.clear()
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", 12)]


async def test_what_running_work_relies_on_stays(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.store.renaming.remove("a")
    with bench.store.holds.relying_on(Digest.parse(added.blob)), bench.store.holds.relying_on(Digest.parse(added.blob)):
        assert (await bench.store.sweeper.sweep()).victims == ()
    assert bench.store.holds.blobs() == set()
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", 12)]


async def test_other_names_of_the_bytes_give_nothing_back(bench: Bench, tmp_path: Path) -> None:
    added = await bench.add("a")
    os.link(added.path, tmp_path / "elsewhere")
    await bench.store.renaming.remove("a")
    swept = await bench.store.sweeper.sweep()
    assert (kinds(swept), swept.freed_bytes) == ([("blob", 12)], 0)
    assert (tmp_path / "elsewhere").read_bytes() == b"GGUF weights"


# -- what else is taken back


def unfinished(bench: Bench) -> dict[str, Path]:
    digest = Digest("c" * 64)
    partial = Path(bench.layout.partial(digest))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"p" * 10)
    (partial.parent / "journal").write_bytes(b"j")
    staged = Path(bench.layout.staging) / "ingest-1-x.tmp"
    staged.write_bytes(b"s" * 5)
    tree = Path(bench.layout.staging) / "tree-x" / "deep"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"t")
    kept = Path(bench.layout.quarantine_dir) / "20200101T000000Z-corrupt-blob.bin"
    kept.write_bytes(b"q" * 3)
    return {"partial": partial, "staging": staged, "quarantine": kept, "tree": tree}


async def test_each_kind_goes_when_its_time_has_come(bench: Bench) -> None:
    paths = unfinished(bench)
    recent = Path(bench.layout.quarantine_dir) / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-corrupt-blob.bin"
    recent.write_bytes(b"r")
    assert kinds(await bench.store.sweeper.sweep()) == [("quarantine", 3)]
    assert not paths["quarantine"].exists()
    later(bench, 2 * DAY)
    assert sorted(kind for kind, _ in kinds(await bench.store.sweeper.sweep())) == ["staging", "staging"]
    assert os.listdir(bench.layout.staging) == []
    later(bench, 6.9 * DAY)
    swept = await bench.store.sweeper.sweep()
    assert (kinds(swept), len(swept.notes)) == ([], 1)
    assert swept.notes[0].startswith("1 unfinished download (11 bytes) will be kept until")
    later(bench, 7.1 * DAY)
    swept = await bench.store.sweeper.sweep()
    assert (kinds(swept), swept.notes) == ([("partial", 11)], ())
    assert swept.victims[0].path == str(paths["partial"].parent)
    assert "was not resumed for" in swept.victims[0].reason
    assert not paths["partial"].parent.exists()
    later(bench, 29 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == []
    later(bench, 31 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == [("quarantine", 1)]


async def test_a_download_that_runs_keeps_its_partial(bench: Bench) -> None:
    partial = unfinished(bench)["partial"]
    later(bench, 8 * DAY)
    with bench.store.holds.relying_on(Digest("c" * 64)):
        assert "partial" not in [kind for kind, _ in kinds(await bench.store.sweeper.sweep())]
    assert partial.exists()


@pytest.mark.parametrize("there", [True, False], ids=["blob", "no blob"])
async def test_a_download_of_bytes_that_a_model_names_goes_too(bench: Bench, there: bool) -> None:
    """The same bytes may have come from elsewhere since it was left."""
    added = await bench.add("m")
    partial = Path(bench.layout.partial(Digest(added.blob.removeprefix("sha256:"))))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"p" * 10)
    if not there:
        os.unlink(added.path)
    later(bench, 6.9 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == []
    assert kinds(await bench.store.sweeper.sweep(partials=True, dry_run=True)) == [("partial", 10)]
    later(bench, 7.1 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == [("partial", 10)]
    assert bench.blobs() == ([added.path] if there else [])


async def test_a_download_of_an_unknown_digest_goes_after_a_week_too(bench: Bench) -> None:
    keyed = Path(bench.layout.keyed_partials) / ("d" * 64)
    keyed.mkdir(parents=True)
    (keyed / "data.tmp").write_bytes(b"p" * 7)
    later(bench, 6.9 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == []
    later(bench, 7.1 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == [("partial", 7)]
    assert not keyed.exists()


async def test_a_download_of_another_tool_stays_for_a_week_and_while_it_is_written(bench: Bench) -> None:
    theirs = Path(bench.layout.shared_partial_dir(Digest("c" * 64)), "data.tmp")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"p" * 7)
    later(bench, 6.9 * DAY)
    assert kinds(await bench.store.sweeper.sweep()) == []
    assert theirs.exists()
    later(bench, 7.1 * DAY)
    with open(theirs, "r+b"):
        assert kinds(await bench.store.sweeper.sweep()) == [], "its producer runs, whatever the clocks say"
    assert kinds(await bench.store.sweeper.sweep()) == [("partial", 7)]


async def test_the_lock_of_a_name_goes_with_its_name(bench: Bench) -> None:
    """Also that of a name which never stood for anything; not one that a program holds, nor one of another tool."""
    locks, kept = Path(bench.layout.locks_dir), ModelName.parse("kept")
    for name in ("gone", "kept", "moved"):
        await bench.add(name)
    async with bench.store.ingest.publishing.locks.held(ModelName.parse("failed")):
        pass
    await bench.store.renaming.remove("gone")
    await bench.store.renaming.move("moved", "after")
    theirs, held = locks / "theirs.lock", Path(bench.layout.name_lock(ModelName.parse("held")))
    theirs.write_bytes(b"")
    theirs.chmod(0o644)
    later(bench, 1.1 * DAY)
    with other_process(HOLD_FILE, str(held)):
        held.chmod(0o600)
        swept = await bench.store.sweeper.sweep(dry_run=True)
        assert sorted(os.path.basename(victim.path) for victim in swept.victims) == sorted(
            ["failed.lock", "gone.lock", "held.lock", "moved.lock"]
        )
        await bench.store.sweeper.sweep()
        there = {path.name for path in locks.iterdir() if path.is_file()}
        assert there == {"after.lock", os.path.basename(bench.layout.name_lock(kept)), held.name, theirs.name}
    assert kinds(await bench.store.sweeper.sweep()) == [("lock", 0)]


async def test_a_dry_run_touches_nothing(bench: Bench) -> None:
    unfinished(bench)
    bench.plant(b"x")
    later(bench, 50 * DAY)
    before = sorted(path for path in os.walk(bench.root))
    planned = await bench.store.sweeper.sweep(dry_run=True)
    assert sorted(path for path in os.walk(bench.root)) == before
    assert planned == await bench.store.sweeper.sweep(dry_run=True)
    swept = await bench.store.sweeper.sweep()
    assert sorted(kinds(swept)) == sorted(kinds(planned))
    assert swept.freed_bytes == planned.freed_bytes


async def test_trees_that_no_model_asks_for_go(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes(name.encode())
    added = await bench.store.add(str(source), name="many")
    assert (await bench.store.sweeper.sweep()).victims == ()
    os.unlink(bench.manifest("many"))  # by another tool
    planned = await bench.store.sweeper.sweep(dry_run=True)
    swept = await bench.store.sweeper.sweep()
    assert (swept.victims, swept.freed_bytes) == (planned.victims, planned.freed_bytes)
    assert swept.freed_bytes == len("config.json" + "model.safetensors")
    assert ("tree", 0) in kinds(swept)
    assert not os.path.exists(added.path)
    assert len([kind for kind, _ in kinds(swept) if kind == "blob"]) == 2
    assert bench.blobs() == []


async def test_only_models_that_have_trees_are_asked_for_theirs(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of many models of one file costs a sweep no look at each of them on the event loop."""
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes(name.encode())
    await bench.store.add(str(source), name="many")
    for number in range(5):
        await bench.add(f"m{number}", str(number).encode())
    bench.reopen()
    read: list[str] = []
    real = manifests.read

    def reading(path: str, name: Any) -> Any:
        read.append(name.text)
        return real(path, name)

    monkeypatch.setattr(manifests, "read", reading)
    bench.store.index.forget()
    assert (await bench.store.sweeper.sweep(dry_run=True)).victims == ()
    assert {*read} == {"many"}


async def test_a_tree_goes_with_its_model(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes(name.encode())
    added = await bench.store.add(str(source), name="many")
    await bench.store.renaming.move("many", "more")
    assert not os.path.exists(added.path)
    resolved = await bench.store.resolver.resolve("more")
    assert sorted(os.listdir(resolved.path)) == ["config.json", "model.safetensors"]
    assert (await bench.store.verifier.verify()).ok
    assert (await bench.store.models.show("more")).verified_at is not None
    await bench.store.renaming.remove("more")
    assert not os.path.exists(resolved.path)


# -- ends and faults


async def test_a_stop_ends_it_between_two_portions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        bench.plant(bytes([number]))
    monkeypatch.setattr(sweep_module, "AT_ONCE", 2)

    with pytest.raises(Stopped):
        await bench.store.sweeper.sweep(progress=Watcher(stop_after=2))
    assert len(bench.blobs()) == 4
    assert len((await bench.store.sweeper.sweep()).victims) == 4


async def test_of_very_many_victims_all_go_and_some_are_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        bench.plant(bytes([number]))
    monkeypatch.setattr(sweep_module, "SHOWN", 3)
    swept = await bench.store.sweeper.sweep()
    assert (len(swept.victims), swept.removed, swept.freed_bytes, swept.kept) == (3, 7, 7, 0)


async def test_what_cannot_be_removed_is_noted_and_the_rest_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = bench.layout.blob(bench.plant(b"stuck"))
    bench.plant(b"free")
    real = removal.remove_file

    def fail(root: str, parts: tuple[str, ...], identity: Any) -> bool:
        if "/".join((root, *parts)) == stuck:
            raise OSError(30, "Read-only file system")
        return real(root, parts, identity)

    monkeypatch.setattr(sweep_module, "remove_file", fail)
    swept = await bench.store.sweeper.sweep()
    assert kinds(swept) == [("blob", 4)]
    assert "Read-only file system" in swept.notes[0]
    assert bench.blobs() == [stuck]
