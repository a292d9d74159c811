"""What a sweep remembers of the manifests, and how it says how old a thing is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.store.disk.listing import settled
from modeld.store.maintain import victims
from modeld.store.maintain.sweep import Sweeper
from modeld.store.manifests.marks import Marks
from rigs.maintain_rig import DAY, Bench
from rigs.waiting import eventually


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_marks_are_read_again_only_after_a_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from modeld.store.manifests import marks as module

    monkeypatch.setattr(module, "settled", lambda *_: True)
    read: list[str] = []
    real = module._digests_in

    def counted(path: str) -> frozenset[str]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(module, "_digests_in", counted)
    marks = Marks(bench.layout)
    Path(bench.manifest("a")).write_text("a" * 64)
    assert marks.look().digests == {"a" * 64}
    assert marks.look().digests == {"a" * 64}
    assert len(read) == 1
    Path(bench.manifest("b")).write_text("b" * 64)
    assert marks.look().digests == {"a" * 64, "b" * 64}
    assert len(read) == 2
    os.unlink(bench.manifest("a"))
    assert marks.look().digests == {"b" * 64}


def edit_in_place(bench: Bench, name: str, blob: str) -> None:
    """As an editor does that keeps the file: its directory's times do not change by that."""
    before = os.stat(bench.layout.manifests_dir)
    with open(bench.manifest(name), "r+") as manifest:
        text = manifest.read().replace(
            bench.document(name)["blob"].removeprefix("sha256:"), blob.removeprefix("sha256:")
        )
        manifest.seek(0)
        manifest.write(text.replace('"size_bytes": 5', '"size_bytes": 6'))
    assert os.stat(bench.layout.manifests_dir).st_mtime_ns == before.st_mtime_ns


async def old_enough(bench: Bench) -> None:
    """Until the times can show a change."""
    paths = (bench.layout.manifests_dir, bench.manifest("a"))
    await eventually(lambda: all(settled(os.stat(path), time.time_ns()) for path in paths))


async def test_what_an_editor_writes_into_a_manifest_in_place_holds_its_blob(bench: Bench) -> None:
    """The sweep before must not be what this one goes by."""
    await bench.add("a", b"first")
    await old_enough(bench)
    await bench.store.sweeper.sweep()
    second = bench.plant(b"second")
    edit_in_place(bench, "a", second.text)
    swept = await bench.store.sweeper.sweep()
    assert [victim.size_bytes for victim in swept.victims] == [5]
    assert bench.store.index.resolve("a").path == bench.layout.blob(second)


async def test_what_an_editor_writes_while_a_sweep_is_under_way_holds_its_blob_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.add("a", b"first")
    second = bench.plant(b"second")
    await old_enough(bench)
    remove = Sweeper._remove_some

    def edited_before(*arguments: Any) -> Any:
        edit_in_place(bench, "a", second.text)
        return remove(*arguments)

    monkeypatch.setattr(Sweeper, "_remove_some", edited_before)
    await bench.store.sweeper.sweep()
    assert os.path.exists(bench.layout.blob(second))
    assert bench.store.index.resolve("a").path == bench.layout.blob(second)


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"),
                                                (2 * DAY, "2 d")])  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert victims.span(seconds) == text
