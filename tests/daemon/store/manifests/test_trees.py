"""Trees: what they are made of, when they are believed, and what making them does to records."""

from __future__ import annotations

import errno
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Relinked, Signature
from modeld.store.disk.layout import Layout
from modeld.store.disk.listing import SETTLED_NS
from modeld.store.manifests.manifests import File
from modeld.store.manifests.trees import Trees, there
from modeld.store.names import ModelName
from rigs.waiting import wait_until

NAME = ModelName("m", "8b")
ONE, TWO = Digest("ab" * 32), Digest("cd" * 32)
FILES = [
    File(path="a.gguf", blob=ONE.text, size_bytes=3, role="weights"),
    File(path="sub/deep/b.json", blob=TWO.text, size_bytes=2, role="config"),
    File(path="sub/same.gguf", blob=ONE.text, size_bytes=3, role="weights"),
]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "models"))
    for path in made.skeleton:
        os.makedirs(path, exist_ok=True)
    for digest, content in ((ONE, b"one"), (TWO, b"{}")):
        os.makedirs(os.path.dirname(made.blob(digest)))
        Path(made.blob(digest)).write_bytes(content)
    return made


@pytest.fixture
def trees(layout: Layout) -> Trees:
    return Trees(layout, Linked(layout))


def contents(tree: str) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in Path(tree).rglob("*") if file.is_file()}


WHOLE = {"a.gguf": b"one", "sub/deep/b.json": b"{}", "sub/same.gguf": b"one"}


def test_a_tree_is_named_after_its_content(trees: Trees, layout: Layout) -> None:
    tree = trees.path(NAME, FILES)
    assert os.path.dirname(tree) == f"{layout.trees}/m+8b"
    assert trees.path(NAME, FILES[:2]) != tree
    assert trees.path(NAME, [File(path="b.gguf", blob=ONE.text, size_bytes=3), *FILES[1:]]) != tree
    roles = [File(path=file.path, blob=file.blob, size_bytes=file.size_bytes) for file in FILES]
    assert trees.path(NAME, roles) == tree


def test_a_tree_is_made_of_hard_links(trees: Trees, layout: Layout) -> None:
    tree, relinked = trees.ensure(NAME, FILES)
    assert contents(tree) == WHOLE
    assert os.stat(f"{tree}/a.gguf").st_ino == os.stat(layout.blob(ONE)).st_ino
    assert len(relinked) == 3
    assert all(change.before.only_links_changed(change.after) and change.before != change.after for change in relinked)
    assert relinked[-1].after == Signature.of(os.stat(layout.blob(ONE)))
    assert os.listdir(layout.staging) == []


def test_a_tree_is_believed_once_its_times_are_settled(trees: Trees) -> None:
    tree, _ = trees.ensure(NAME, FILES)
    assert not trees.known_whole(tree), "it could change again under the same times"

    def believed() -> bool:
        _, relinked = trees.ensure(NAME, FILES)
        assert relinked == []
        return trees.known_whole(tree)

    wait_until(believed, SETTLED_NS / 1e9 + 5)
    (Path(tree) / "sub" / "more").touch()
    assert not trees.known_whole(tree)
    assert contents(trees.ensure(NAME, FILES)[0]) == WHOLE


def test_where_links_cannot_be_made_they_are_symbolic(
    trees: Trees, layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    tree, relinked = trees.ensure(NAME, FILES)
    assert relinked == []
    assert contents(tree) == WHOLE
    assert os.path.islink(f"{tree}/sub/deep/b.json")
    assert trees.ensure(NAME, FILES)[1] == []
    moved = tmp_path / "moved"
    os.rename(layout.root, moved)
    assert contents(tree.replace(layout.root, str(moved))) == WHOLE, "the links are relative"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_no_half_tree(
    trees: Trees, layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real, calls = os.link, []

    def fail_second(*arguments: object, **named: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(code, os.strerror(code))
        real(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", fail_second)
        with pytest.raises(Exception, match="cannot make the tree"):
            trees.ensure(NAME, FILES)
    assert os.listdir(layout.staging) == []
    assert not os.path.exists(trees.path(NAME, FILES))
    assert contents(trees.ensure(NAME, FILES)[0]) == WHOLE


def test_removing_tells_what_it_did_to_each_blob(trees: Trees, layout: Layout) -> None:
    tree, _ = trees.ensure(NAME, FILES)
    before = {digest: Signature.of(os.stat(layout.blob(digest))) for digest in (ONE, TWO)}
    relinked = trees.remove(os.path.dirname(tree))
    assert {change.before.inode for change in relinked} == {signature.inode for signature in before.values()}
    assert relinked[-1].after in {Signature.of(os.stat(layout.blob(digest))) for digest in (ONE, TWO)}
    assert os.listdir(layout.trees) == os.listdir(layout.staging) == []
    assert trees.remove(tree) == []


def test_nothing_is_removed_through_a_link(trees: Trees, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    link = f"{layout.trees}/m+8b"
    os.symlink(tmp_path / "precious", link)
    trees.remove(link)
    assert not os.path.lexists(link)
    os.symlink(tmp_path / "precious", link)
    tree, _ = trees.ensure(NAME, FILES)
    assert contents(tree) == WHOLE
    assert os.listdir(tmp_path / "precious") == ["file"]


def test_all_trees_are_found_by_their_models_and_no_link_is_followed(
    trees: Trees, layout: Layout, tmp_path: Path
) -> None:
    kept, _ = trees.ensure(NAME, FILES)
    replaced, _ = trees.ensure(NAME, FILES[:1])
    gone, _ = trees.ensure(ModelName("gone"), FILES)
    os.symlink(tmp_path, f"{layout.trees}/link")
    found = {stem: sorted(paths) for stem, paths in there(layout.trees).items()}
    assert found == {NAME.stem: sorted([kept, replaced]), "gone": [gone], "link": []}


def test_a_directory_of_trees_that_is_gone_has_none_and_is_made_again(trees: Trees, layout: Layout) -> None:
    trees.ensure(NAME, FILES)
    shutil.rmtree(layout.trees)
    assert there(layout.trees) == {}
    assert trees.remove(layout.trees_of(NAME)) == []
    tree, _ = trees.ensure(NAME, FILES)
    assert contents(tree) == WHOLE


@pytest.mark.parametrize("times", [(1, 1), (1, 2, 1), (1, 2, 3, 2)])
def test_a_signature_that_comes_again_ends_the_look_for_changes_of_links(
    tmp_path: Path, times: tuple[int, ...]
) -> None:
    """On filesystems whose links change no time, and after a clock was set back."""
    layout = Layout(str(tmp_path))
    trees, known = Trees(layout, Linked(layout)), [Signature(1, 2, 3, 4, time) for time in times]
    for before, after in pairwise(known):
        trees.note(Relinked(before, after))
    assert not trees.only_relinked(known[0], Signature(1, 2, 3, 4, 9))
    assert trees.only_relinked(known[0], known[-1])
    assert trees.only_relinked(known[0], Signature(7, 2, 3, 4, known[-1].ctime_ns)), "a device has no lasting number"
