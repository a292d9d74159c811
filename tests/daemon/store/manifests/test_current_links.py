"""An answer without a look at the disk, when symbolic links are on the way to the store."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from modeld.store.digest import Digest
from modeld.store.names import ModelName
from rigs.watched import Watched, mounted, placed_watches

_EXCHANGE = 2


class Way(NamedTuple):
    links: tuple[tuple[str, str], ...]
    """Each link with its target, both below the temporary directory; a target may be absolute."""
    root: str
    """The store's path."""


REAL = "real/above/models"

WAYS = {
    "an absolute link": Way((("link", f"/{REAL}"),), "link"),
    "a relative link": Way((("links/link", f"../{REAL}"),), "links/link"),
    "a link in the middle": Way((("link", "real/above"),), "link/models"),
    "a chain": Way((("links/1", "2"), ("links/2", "/links/3"), ("links/3", f"../{REAL}")), "links/1"),
    "a link in the target": Way((("inner", "real"), ("link", "inner/above/models")), "link"),
    "dots in the target": Way((("link", "./real//other/../above/./models/"),), "link"),
    "a way back through a link": Way((("inner", "real/other/deep"), ("link", "inner/../../above/models")), "link"),
    "two links": Way((("one", "real"), ("real/two", "above")), "one/two/models"),
    "linked blobs": Way(((f"{REAL}/blobs", "/elsewhere/blobs"),), REAL),
    "linked digests": Way(((f"{REAL}/blobs/sha256", "../../../../elsewhere/sha256"),), REAL),
    "linked manifests": Way(((f"{REAL}/manifests", "/elsewhere/manifests"),), REAL),
    "a linked root with linked parts": Way(
        (("link", REAL), (f"{REAL}/manifests", "/elsewhere/m"), (f"{REAL}/blobs", "/elsewhere/b")), "link"
    ),
}
"""A target that begins with a slash begins at the temporary directory."""


class Linked(Watched):
    def __init__(self, top: Path, way: Way) -> None:
        self.top = top
        self.links = [top / name for name, _ in way.links]
        for directory in (REAL, "real/other/deep", "links", "elsewhere"):
            (top / directory).mkdir(parents=True, exist_ok=True)
        for name, target in way.links:
            link = top / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"{top}{target}" if target.startswith("/") else target)
            if not link.exists() and "elsewhere" in target:
                (link.parent / link.readlink()).mkdir()
        super().__init__(top / "more", top / way.root)
        self.put("llama", b"abc")
        self.put("other", b"xyz")
        self.age()


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def shelf(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Linked]:
    made = Linked(tmp_path, request.param)
    yield made
    made.index.current.close()


@pytest.fixture
def plain_link(tmp_path: Path) -> Iterator[Linked]:
    made = Linked(tmp_path, WAYS["an absolute link"])
    yield made
    made.index.current.close()


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    here = ctypes.c_int(-100)
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_EXCHANGE)) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS):
            pytest.skip("the filesystem cannot exchange names")
        raise OSError(code, os.strerror(code))


def remove(link: Path, _elsewhere: Path) -> None:
    link.unlink()


def retarget(link: Path, elsewhere: Path) -> None:
    link.unlink()
    link.symlink_to(elsewhere)


def replace_by_rename(link: Path, elsewhere: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(elsewhere)
    fresh.rename(link)


def exchange_with_a_link(link: Path, elsewhere: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(elsewhere)
    exchange(fresh, link)


def exchange_with_a_directory(link: Path, elsewhere: Path) -> None:
    exchange(elsewhere, link)


def move_away(link: Path, _elsewhere: Path) -> None:
    link.rename(link.with_name("moved"))


REPLACEMENTS = [remove, retarget, replace_by_rename, exchange_with_a_link, exchange_with_a_directory, move_away]


async def test_what_stays_as_it_is_needs_no_look(shelf: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.know()
    shelf.put("third", b"third")
    for call in ("lstat", "stat", "readlink"):
        monkeypatch.setattr(os, call, None)
    found = shelf.index.current.answer("llama")
    monkeypatch.undo()
    assert found is not None
    assert found.path == shelf.blob_path


@pytest.mark.parametrize("change", REPLACEMENTS, ids=lambda change: change.__name__)
async def test_a_link_that_is_replaced_is_noticed(shelf: Linked, change: Callable[[Path, Path], object]) -> None:
    for number, link in enumerate(shelf.links):
        await shelf.know()
        kept = link.with_name("kept")
        os.link(link, kept, follow_symlinks=False)
        await shelf.know()  # a second name is a change of the link
        before = await shelf.outcome()
        elsewhere = shelf.top / f"empty-{number}"
        elsewhere.mkdir()
        change(link, elsewhere)
        assert shelf.index.current.answer("llama") is None, link
        assert await shelf.outcome() != before, link
        if link.is_symlink() or not link.exists():
            kept.rename(link)
            if os.path.lexists(kept):  # both are names of one link: the system leaves them
                kept.unlink()
        else:
            link.rmdir()
            kept.rename(link)
        link.with_name("fresh").unlink(missing_ok=True)
        await shelf.know()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Watched]:
    """Another store with a model of the same name."""
    made = Watched(tmp_path / "second")
    made.put("llama", b"def")
    made.age()
    yield made
    made.index.current.close()


async def test_a_link_to_another_store_is_followed(plain_link: Linked, second: Watched, tmp_path: Path) -> None:
    """Its files are watched from then on, those of the first one no longer."""
    current = plain_link.index.current
    first_blob, second_blob = plain_link.blob_path, second.layout.blob(Digest("64" * 32))
    await plain_link.know()
    before = placed_watches()
    for _ in range(3):
        replace_by_rename(tmp_path / "link", second.above / "models")
        assert current.answer("llama") is None
        await plain_link.know()
        replace_by_rename(tmp_path / "link", tmp_path / REAL)
        await plain_link.know()
    assert placed_watches() == before
    real_blob = os.path.realpath(first_blob)
    replace_by_rename(tmp_path / "link", second.above / "models")
    await plain_link.know()
    os.truncate(real_blob, 0)
    assert current.answer("llama") is not None
    os.truncate(second_blob, 0)
    assert current.answer("llama") is None


@pytest.mark.parametrize("moved", ["real", "real/above", REAL, f"{REAL}/blobs", f"{REAL}/manifests"])
async def test_a_directory_above_the_target_is_watched(plain_link: Linked, tmp_path: Path, moved: str) -> None:
    await plain_link.know()
    before = await plain_link.outcome()
    (tmp_path / moved).rename(tmp_path / "moved")
    assert plain_link.index.current.answer("llama") is None
    assert await plain_link.outcome() != before
    (tmp_path / "moved").rename(tmp_path / moved)
    await plain_link.know()


@pytest.mark.parametrize("moved", ["links", "real", "real/above"])
async def test_a_directory_with_a_link_is_watched(tmp_path: Path, moved: str) -> None:
    shelf = Linked(tmp_path, WAYS["a chain"])
    await shelf.know()
    (tmp_path / moved).rename(tmp_path / "moved")
    assert shelf.index.current.answer("llama") is None
    assert isinstance(await shelf.outcome(), str)
    shelf.index.current.close()


@pytest.mark.parametrize("way", ["an absolute link", "a way back through a link", "linked digests"])
async def test_a_filesystem_that_is_mounted_on_the_way_is_noticed(tmp_path: Path, way: str) -> None:
    shelf = Linked(tmp_path, WAYS[way])
    points = [tmp_path / "real", tmp_path / "real/above", Path(shelf.layout.blobs_dir).resolve()]
    if way == "a way back through a link":
        points.append(tmp_path / "real/other")
    if way == "linked digests":
        points += [tmp_path / "elsewhere", tmp_path / "elsewhere/sha256/61"]
    for at in points:
        await shelf.know()
        with mounted(at):
            assert shelf.index.current.answer("llama") is None, at
            assert isinstance(await shelf.outcome(), str)
        await shelf.know()
    shelf.index.current.close()


async def test_the_filesystems_on_the_way_are_those_of_the_present_target(
    plain_link: Linked, second: Watched, tmp_path: Path
) -> None:
    await plain_link.know()
    replace_by_rename(tmp_path / "link", second.above / "models")
    await plain_link.know()
    with mounted(tmp_path / "real"):
        assert plain_link.index.current.answer("llama") is not None
    assert plain_link.index.current.answer("llama") is not None
    with mounted(second.above):
        assert plain_link.index.current.answer("llama") is None


async def test_a_filesystem_that_is_mounted_elsewhere_changes_nothing(plain_link: Linked, tmp_path: Path) -> None:
    await plain_link.know()
    for name in ("elsewhere", "links", "real/other"):
        with mounted(tmp_path / name):
            assert plain_link.index.current.answer("llama") is not None, name
        assert plain_link.index.current.answer("llama") is not None, name


async def test_links_in_a_circle_lead_nowhere(plain_link: Linked, tmp_path: Path) -> None:
    await plain_link.know()
    (tmp_path / "circle").symlink_to("link")
    replace_by_rename(tmp_path / "link", tmp_path / "circle")
    assert plain_link.index.current.answer("llama") is None
    assert plain_link.index.current.place(ModelName.parse("llama"), plain_link.blob_path) is None
    assert isinstance(await plain_link.outcome(), str)
    plain_link.index.current.look_again()
    assert plain_link.index.current.answer("llama") is None
    replace_by_rename(tmp_path / "link", tmp_path / REAL)
    plain_link.index.current.look_again()
    await plain_link.know()


async def test_a_link_on_a_filesystem_that_is_not_watched_needs_a_look(tmp_path: Path) -> None:
    shelf = Linked(tmp_path, WAYS["an absolute link"])
    await shelf.know()
    replace_by_rename(tmp_path / "link", Path(f"/proc/self/root{tmp_path / REAL}"))
    for _ in range(3):
        assert not isinstance(await shelf.outcome(), str)
        assert shelf.index.current.answer("llama") is None
    shelf.index.current.close()
