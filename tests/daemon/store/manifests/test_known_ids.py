"""The map from ids to names: right after every change, and without a look at all manifests for each look-up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.platform import watches
from modeld.store.manifests.known_ids import KnownIds
from modeld.store.names import ModelName
from modelwire.errors import Internal, WireError
from rigs.manual_clock import ManualClock
from rigs.watched import Watched

ID = "local:/srv/m.gguf"


class Looked(Watched):
    """It notes which manifests are looked at."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looks: list[str] = []
        self.clock = ManualClock()
        self.fault: WireError | None = None
        entry = self.index.entry

        def noting(name: ModelName) -> Any:
            if self.fault is not None:
                raise self.fault
            self.looks.append(name.text)
            return entry(name)

        self.index.entry = noting  # type: ignore[method-assign]
        self.ids = KnownIds(self.index, self.index.in_thread, self.clock)

    async def looked(self, id_: str = ID) -> tuple[list[str], list[str]]:
        """The names, and whose manifests were looked at for them."""
        self.looks.clear()
        return await self.ids.names(id_), sorted(self.looks)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Looked]:
    made = Looked(tmp_path)
    made.put("a", b"abc", ids=[ID])
    made.put("b", b"xyz")
    made.age()
    yield made
    made.index.current.close()


@pytest.fixture
def unwatched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looked]:
    """On a filesystem that reports no changes."""
    monkeypatch.setattr(watches, "watches_for", lambda *_: None)
    made = Looked(tmp_path)
    made.put("a", b"abc", ids=[ID])
    yield made
    made.index.current.close()


def written_in_place(shelf: Looked) -> None:
    path = Path(f"{shelf.layout.manifests_dir}/b.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ids": [ID]}))


def replaced_directory(shelf: Looked) -> None:
    directory = shelf.layout.manifests_dir
    os.rename(directory, f"{directory}-old")
    os.mkdir(directory)
    shelf.put("c", b"xyz", ids=[ID])


CHANGES: dict[str, tuple[Callable[[Looked], object], list[str]]] = {
    "another tool publishes": (lambda shelf: shelf.put("c", ids=[ID]), ["a", "c"]),
    "another tool replaces": (lambda shelf: shelf.put("a"), []),
    "another tool removes": (lambda shelf: os.unlink(f"{shelf.layout.manifests_dir}/a.json"), []),
    "another tool renames": (
        lambda shelf: os.rename(f"{shelf.layout.manifests_dir}/a.json", f"{shelf.layout.manifests_dir}/c.json"),
        ["c"],
    ),
    "an editor writes in place": (written_in_place, ["a", "b"]),
    "the directory is another one": (replaced_directory, ["c"]),
    "the daemon looks at another directory": (lambda shelf: shelf.index.current.look_again(), ["a"]),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_each_change_is_noticed_at_once(shelf: Looked, change: str) -> None:
    if not shelf.is_watched():
        pytest.skip("the temporary directory is on a filesystem that is not watched")
    assert await shelf.looked() == (["a"], ["a", "b"])
    assert await shelf.looked() == (["a"], []), "nothing has changed"
    make, names = CHANGES[change]
    make(shelf)
    assert (await shelf.looked())[0] == names
    assert await shelf.looked() == (names, [])


async def test_only_what_has_changed_is_read(shelf: Looked) -> None:
    if not shelf.is_watched():
        pytest.skip("the temporary directory is on a filesystem that is not watched")
    await shelf.looked()
    shelf.put("c", b"xyz", ids=["other/id"])
    assert await shelf.looked("other/id") == (["c"], ["c"])
    assert await shelf.looked("no/id") == ([], [])


async def test_without_reports_all_are_looked_at_again_in_time(
    unwatched: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = unwatched.index.entry

    def slow(name: ModelName) -> Any:
        unwatched.clock.now += 1
        return entry(name)

    monkeypatch.setattr(unwatched.index, "entry", slow)
    assert await unwatched.looked() == (["a"], ["a"])
    unwatched.put("b", b"xyz", ids=[ID])
    assert await unwatched.looked() == (["a"], [])
    with unwatched.index.changing(ModelName.parse("b")):
        pass
    assert await unwatched.looked() == (["a", "b"], ["b"]), "a change by the daemon itself is known at once"
    unwatched.put("c", b"abc", ids=[ID])
    unwatched.clock.now += 11
    assert await unwatched.looked() == (["a", "b", "c"], ["a", "b", "c"])


async def test_a_failed_look_is_made_again(shelf: Looked) -> None:
    shelf.fault = Internal("the disk is away")
    with pytest.raises(Internal):
        await shelf.looked()
    shelf.fault = None
    assert (await shelf.looked())[0] == ["a"]
    shelf.put("c", ids=[ID])
    shelf.fault = Internal("the disk is away")
    with pytest.raises(Internal):
        await shelf.looked()
    shelf.fault = None
    assert (await shelf.looked())[0] == ["a", "c"]
