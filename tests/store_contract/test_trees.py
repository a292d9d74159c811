"""The directories of links that show a model's files under their own names, through a real daemon."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rigs.several_files import EXAMPLE, directory, leftovers, tree_of
from store_contract.conftest import Ctl


def test_a_damaged_tree_is_made_again_before_it_is_given_out(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    tree = Path(ctl.path("gemma"))

    def lost() -> None:
        shutil.rmtree(tree)

    def lacks_a_file() -> None:
        (tree / "config.json").unlink()

    def has_another_file() -> None:
        (tree / "config.json").unlink()
        (tree / "config.json").write_bytes(b"{}")

    def has_one_too_many() -> None:
        (tree / "sub" / "stranger").write_bytes(b"x")

    def is_a_link() -> None:
        shutil.move(tree, room / "elsewhere")
        tree.symlink_to(room / "elsewhere")

    for damage in (lost, lacks_a_file, has_another_file, has_one_too_many, is_a_link):
        damage()
        assert ctl.path("gemma") == str(tree)
        assert tree_of(str(tree)) == EXAMPLE, damage.__name__
        assert not tree.is_symlink()
    assert leftovers(ctl.daemon) == []
    assert tree_of(str(room / "elsewhere")) == EXAMPLE, "what a link led to was not touched"


def test_a_tree_hides_no_missing_blob(room: Path, ctl: Ctl) -> None:
    """The bytes still hang on the tree's link, but the store has lost them."""
    added = ctl.json("add", str(directory(room)))
    digest = added["files"][0]["blob"].removeprefix("sha256:")
    shutil.rmtree(f"{ctl.daemon.root}/blobs/sha256/{digest[:2]}/{digest}")
    done = ctl("path", "gemma")
    assert (done.returncode, done.stdout) == (6, "")


def test_trees_go_with_their_model_and_come_with_another_name(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    trees = Path(ctl.daemon.root, ".modeld", "trees")
    ctl.json("cp", "gemma", "copy:1")
    assert tree_of(ctl.path("copy:1")) == EXAMPLE
    ctl.json("mv", "gemma", "moved")
    assert tree_of(ctl.path("moved")) == EXAMPLE
    assert sorted(os.listdir(trees)) == ["copy+1", "moved"]
    assert ctl("rm", "copy:1", "moved").returncode == 0
    assert os.listdir(trees) == []


def test_links_do_not_make_blobs_look_changed(room: Path, ctl: Ctl) -> None:
    """Each link changes a blob's times. What was verified is still known: nothing is hashed again."""
    ctl.json("add", str(directory(room)))
    before = ctl.json("show", "gemma")["verified_at"]
    shutil.rmtree(room / "gemma")
    ctl.json("cp", "gemma", "copy")
    ctl.path("copy")
    assert ctl.json("show", "gemma")["verified_at"] == before
    assert ctl("rm", "copy").returncode == 0
    assert ctl.json("show", "gemma")["verified_at"] == before
