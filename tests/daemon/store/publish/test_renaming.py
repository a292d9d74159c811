"""Names by manifest: what a copy is, what is refused, and what is found again when the disk fails in between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.platform import durable as calls
from modeld.store.disk import durable
from modeld.store.manifests import manifests
from modeld.store.names import ModelName
from modeld.store.publish.holds import NameHold
from modelwire.errors import AlreadyExists, Corrupt, InUse, InvalidName, NotFound, Unsupported, WireError
from modelwire.values import Copied, Moved, Removed
from rigs.maintain_rig import Bench, RecordedNotes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


# -- cp


async def test_a_copy_keeps_every_field_but_the_name(bench: Bench) -> None:
    await bench.add("a", license="mit")
    document = bench.document("a") | {"theirs": {"deep": [1, None]}, "big": 2**70}
    Path(bench.manifest("a")).write_text(json.dumps(document))
    await bench.store.renaming.copy("a", "b:c")
    renamed = {"name": "b:c", "model": document["model"] | {"model_id": "b:c", "name": "b:c"}}
    assert bench.document("b:c") == document | renamed
    assert bench.document("a") == document


@pytest.mark.parametrize("verb", ["copy", "move"])
async def test_a_manifest_of_many_foreign_fields_stays_readable(bench: Bench, verb: str) -> None:
    """Without spaces it is short enough to be read, with them it would not be."""
    await bench.add("a")
    document = bench.document("a") | {"theirs": [[number] for number in range(100_000)]}
    Path(bench.manifest("a")).write_text(json.dumps(document, separators=(",", ":")))
    await getattr(bench.store.renaming, verb)("a", "b")
    assert bench.store.index.resolve("b").state == "ready"
    assert bench.document("b")["theirs"] == document["theirs"]


@pytest.mark.parametrize("verb", ["copy", "move"])
async def test_a_manifest_that_could_not_be_read_again_is_not_written(bench: Bench, verb: str) -> None:
    await bench.add("a")
    document = bench.document("a") | {"theirs": ""}
    text = json.dumps(document, separators=(",", ":"))
    document["theirs"] = "x" * (manifests.MAX_MANIFEST - len(text))
    text = json.dumps(document, separators=(",", ":"))
    assert len(text) == manifests.MAX_MANIFEST
    Path(bench.manifest("a")).write_text(text)
    with pytest.raises(Unsupported, match="1048576 are allowed"):
        await getattr(bench.store.renaming, verb)("a", "longer")
    assert bench.store.index.resolve("a").state == "ready"
    assert os.listdir(bench.layout.staging) == []
    with pytest.raises(NotFound):
        bench.store.index.resolve("longer")


async def test_a_model_of_several_files_is_copied_with_all_of_them(bench: Bench) -> None:
    bench.write_manifest("many", {"x/one.bin": b"1", "two.bin": b"22", "again.bin": b"1"})
    copied = await bench.store.renaming.copy("many", "more")
    files = bench.document("many")["files"]
    assert list(copied.blobs) == [file["blob"] for file in files]
    assert bench.document("more")["files"] == files
    steps = [(step.action, step.blob, step.size_bytes) for step in copied.plan]
    assert steps[:-1] == [("share", file["blob"], file["size_bytes"]) for file in files]
    assert [step.action for step in copied.plan] == ["share", "share", "share", "write"]


async def test_the_plan_is_what_happens(bench: Bench) -> None:
    await bench.add("a")
    before = sorted(os.listdir(bench.layout.manifests_dir))
    planned = bench.store.renaming.plan_copy("a", "b")
    assert planned == bench.store.renaming.plan_copy("a", "b")
    assert sorted(os.listdir(bench.layout.manifests_dir)) == before
    assert await bench.store.renaming.copy("a", "b") == planned
    assert planned.plan[-1].path == bench.manifest("b")
    assert planned.plan[-1].size_bytes == os.stat(bench.manifest("b")).st_size


async def test_the_default_tag_is_found_by_a_copy(bench: Bench) -> None:
    await bench.add("a:latest")
    assert (await bench.store.renaming.copy("a", "b")).source == "a:latest"


@pytest.mark.parametrize(
    ("source", "destination", "error"),
    [
        ("nope", "b", NotFound),
        ("nope", "nope", NotFound),
        ("a", "a", AlreadyExists),
        ("a", "A", AlreadyExists),
        ("a", "other", AlreadyExists),
        ("a", "OTHER", AlreadyExists),
        ("", "b", InvalidName),
        ("a", "", InvalidName),
        ("a", "x/y", InvalidName),
        ("a", "x\\y", InvalidName),
        ("a", "x\0y", InvalidName),
        ("a", "x..y", InvalidName),
        ("hollow", "b", Corrupt),
        ("broken", "b", Corrupt),
        ("newer", "b", Unsupported),
    ],
)
@pytest.mark.parametrize("verb", ["plan_copy", "copy", "move"])
async def test_refusals(bench: Bench, verb: str, source: str, destination: str, error: type[WireError]) -> None:
    await bench.add("a")
    await bench.add("other", b"other")
    hollow = await bench.add("hollow", b"hollow")
    os.unlink(hollow.path)
    Path(bench.manifest("broken")).write_text("{")
    Path(bench.manifest("newer")).write_text('{"schema_version": 2}')
    before = {path.name: path.read_bytes() for path in Path(bench.layout.manifests_dir).iterdir()}
    if verb == "move" and source == "hollow":
        return  # what has no bytes may still change its name

    async def attempt() -> None:
        outcome = getattr(bench.store.renaming, verb)(source, destination)
        if verb != "plan_copy":
            await outcome

    with pytest.raises(error) as caught:
        await attempt()
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in Path(bench.layout.manifests_dir).iterdir()} == before
    assert bench.staged() == []


async def test_a_manifest_that_another_tool_makes_meanwhile_is_not_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.add("a")
    real = durable.name_without_replacing

    def beaten(temporary: str, name: str) -> bool:
        Path(name).write_text("theirs")
        return real(temporary, name)

    monkeypatch.setattr(durable, "name_without_replacing", beaten)
    with pytest.raises(AlreadyExists):
        await bench.store.renaming.copy("a", "b")
    assert Path(bench.manifest("b")).read_text() == "theirs"


# -- mv


async def test_a_move_writes_before_it_removes(bench: Bench) -> None:
    await bench.add("a")
    notes = RecordedNotes(bench)
    moved = await bench.store.renaming.move("a", "b:c", notes=notes)
    assert bench.names() == ["b:c"]
    assert bench.document("b:c")["name"] == "b:c"
    assert [(what, seen) for what, _, seen in notes.calls] == [("about", ["a.json"]), ("published", ["b+c.json"])]
    assert bench.store.renaming.moved(moved)


async def test_readers_find_one_of_the_names_at_every_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at from the disk, as any reader without the daemon would, before and after each step on it."""
    await bench.add("a")
    moments: list[tuple[bool, bool]] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            moments.append((os.path.exists(bench.manifest("a")), os.path.exists(bench.manifest("b"))))
            return getattr(os, name)

    with monkeypatch.context() as patched:
        for module in (durable, calls):
            patched.setattr(module, "os", Watched())
        await bench.store.renaming.move("a", "b")
    assert {(True, False), (True, True), (False, True)} == set(moments)


async def test_a_move_of_what_is_held_is_refused(bench: Bench) -> None:
    await bench.add("a")
    bench.store.holds.register(names=lambda name: NameHold("pid 7") if name.text == "a" else None)
    with pytest.raises(InUse, match="pid 7"):
        await bench.store.renaming.move("a", "b")
    assert bench.names() == ["a"]


async def test_what_changes_names_does_not_guess_at_tags(bench: Bench) -> None:
    await bench.add("a:latest")
    for change in (bench.store.renaming.move("a", "b"), bench.store.renaming.remove("a")):
        with pytest.raises(NotFound, match="only 'a:latest'"):
            await change
    assert bench.names() == ["a:latest"]


async def test_a_move_that_a_crash_cut_short_is_finished(bench: Bench) -> None:
    await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    manifest = bench.store.models.view("a")
    earlier = Moved(name="b", source="a", blob=manifest.blob, size_bytes=manifest.size_bytes)
    assert not bench.store.renaming.moved(earlier)
    assert await bench.store.renaming.move("a", "b", earlier=earlier) == earlier
    assert bench.names() == ["b"]
    assert bench.store.renaming.moved(earlier)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
async def test_a_move_whose_old_name_others_have_changed_since_it_was_interrupted_is_done(
    bench: Bench, replaced: bool
) -> None:
    """Readers have seen the new name: it is too late to say that the move was refused."""
    await bench.add("a", b"first")
    there = bench.layout.manifest(ModelName.parse("b"))
    document = json.loads(Path(bench.layout.manifest(ModelName.parse("a"))).read_bytes())
    Path(there).write_bytes(json.dumps(document | {"name": "b"}).encode())
    manifest = bench.store.index.find("b").usable()
    earlier = Moved(name="b", source="a", blob=manifest.blob, size_bytes=manifest.size_bytes)
    await bench.store.renaming.remove("a")
    if replaced:
        await bench.add("a", b"second")
    assert await bench.store.renaming.move("a", "b", earlier=earlier) == earlier
    assert bench.names() == (["a", "b"] if replaced else ["b"])
    assert bench.store.index.find("b").usable().blob == earlier.blob


async def test_a_move_cut_short_leaves_other_bytes_alone(bench: Bench) -> None:
    added = await bench.add("a")
    await bench.add("b", b"others")
    earlier = Moved(name="b", source="a", blob=added.blob, size_bytes=added.size_bytes)
    with pytest.raises(AlreadyExists):
        await bench.store.renaming.move("a", "b", earlier=earlier)
    assert bench.names() == ["a", "b"]


async def test_uses_go_along(bench: Bench) -> None:
    await bench.add("a")
    await bench.store.look_up("a")
    used = bench.store.uses.of("a")
    await bench.store.renaming.move("a", "b")
    assert used
    assert (bench.store.uses.of("b"), bench.store.uses.of("a")) == (used, None)


# -- together


async def test_many_changes_of_the_same_names_at_once_lose_nothing(bench: Bench) -> None:
    await bench.add("a")
    done: list[object] = []

    async def attempt(change: Any) -> None:
        try:
            done.append(await change)
        except (AlreadyExists, NotFound):
            done.append(None)

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(attempt, bench.store.renaming.copy("a", "b"))
            tasks.start_soon(attempt, bench.store.renaming.move("a", f"c{number}"))
            tasks.start_soon(attempt, bench.store.renaming.move("b", f"d{number}"))
    kept = bench.names()
    assert len([value for value in done if isinstance(value, Moved) and value.source == "a"]) == 1
    assert len([name for name in kept if name.startswith("c")]) == 1
    documents = [bench.document(name) for name in kept]
    assert [document["model"].pop("model_id") for document in documents] == kept
    assert [document["model"].pop("name") for document in documents] == kept
    assert len({json.dumps({**document, "name": ""}) for document in documents}) == 1


async def test_opposite_moves_do_not_wait_for_each_other_forever(bench: Bench) -> None:
    await bench.add("a", b"1")
    await bench.add("b", b"2")

    async def attempt(source: str, destination: str) -> None:
        with pytest.raises(AlreadyExists):
            await bench.store.renaming.move(source, destination)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(attempt, "a", "b")
                tasks.start_soon(attempt, "b", "a")
    assert bench.names() == ["a", "b"]


# -- failures


@pytest.mark.parametrize("verb", ["copy", "move", "remove"])
async def test_an_outcome_that_is_unknown_is_settled_by_the_same_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The directory could not be synced: the change is visible, and may not last. Asked again it is made to last."""
    await bench.add("a")
    arguments = ("a",) if verb == "remove" else ("a", "b")
    real = durable.sync_directory

    def fail(path: str) -> None:
        raise OSError(5, "lost")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_directory", fail)
        with pytest.raises(WireError):
            await getattr(bench.store.renaming, verb)(*arguments)
        with pytest.raises(WireError, match="lost"):
            await getattr(bench.store.renaming, verb)(*arguments)
    synced: list[str] = []

    def counted(path: str) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr(durable, "sync_directory", counted)
    value = await getattr(bench.store.renaming, verb)(*arguments)
    assert value.name == arguments[-1]
    assert bench.layout.manifests_dir in synced
    assert bench.names() == {"copy": ["a", "b"], "move": ["b"], "remove": []}[verb]
    with pytest.raises((AlreadyExists, NotFound)):
        await getattr(bench.store.renaming, verb)(*arguments)


async def test_what_forbids_the_announcement_prevents_the_change(bench: Bench) -> None:
    await bench.add("a")

    class Forbids(RecordedNotes):
        async def about_to_publish(self, value: object, /) -> None:
            raise Corrupt("no")

    for change in (
        bench.store.renaming.copy("a", "b", notes=Forbids(bench)),
        bench.store.renaming.move("a", "b", notes=Forbids(bench)),
        bench.store.renaming.remove("a", notes=Forbids(bench)),
    ):
        with pytest.raises(Corrupt, match="no"):
            await change
    assert bench.names() == ["a"]
    await bench.store.renaming.move("a", "b")


def test_values_of_damaged_names_are_asked_about_without_an_error(bench: Bench) -> None:
    assert not bench.store.renaming.copied(Copied(name="a", source="b", blob="", size_bytes=0))
    assert not bench.store.renaming.moved(Moved(name="a", source="b", blob="", size_bytes=0))
    assert bench.store.renaming.removed(Removed(name=ModelName.parse("a").text))
