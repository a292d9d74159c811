"""Models of several files through a real daemon: directories and sets of shards."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from rigs.several_files import EXAMPLE, WEIGHTS, directory, leftovers, shards, tree_of
from store_contract.conftest import Ctl

# -- directories


def test_a_directory_becomes_one_model_with_roles(room: Path, ctl: Ctl) -> None:
    source = directory(room)
    added = ctl.json("add", str(source))
    assert {file["path"]: file["role"] for file in added["files"]} == {
        "config.json": "config",
        "model-00001-of-00002.safetensors": "weights",
        "model-00002-of-00002.safetensors": "weights",
        "tokenizer.json": "tokenizer",
        "mmproj-f16.gguf": "mmproj",
        "LICENSE": "license",
        "README.md": "doc",
        "sub/deeper/extra.dat": "other",
    }
    first = hashlib.sha256(EXAMPLE["model-00001-of-00002.safetensors"]).hexdigest()
    assert (added["name"], added["blob"], added["format"]) == ("gemma", f"sha256:{first}", "unknown")
    assert added["size_bytes"] == sum(map(len, EXAMPLE.values())) == ctl.json("list")[0]["size_bytes"]
    assert tree_of(ctl.path("gemma")) == EXAMPLE
    manifest = json.loads(Path(ctl.daemon.root, "manifests", "gemma.json").read_text())
    assert manifest["size_bytes"] == len(EXAMPLE["model-00001-of-00002.safetensors"])
    assert leftovers(ctl.daemon) == []


def test_path_prints_the_directory_and_one_file_by_its_name(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    tree = ctl.path("gemma")
    assert os.path.isdir(tree)
    assert ctl.path("gemma", "--file", "sub/deeper/extra.dat") == f"{tree}/sub/deeper/extra.dat"
    answer = ctl.daemon.ask("model.resolve", name="gemma", file="config.json")["value"]
    assert answer["path"] == f"{tree}/config.json"
    assert answer["blob"] == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    done = ctl("path", "gemma", "--file", "confg.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Did you mean config.json" in done.stderr


def test_one_file_by_name_of_a_model_of_one_file(ctl: Ctl) -> None:
    ctl.json("add", ctl.daemon.file("a b.gguf", WEIGHTS), "--name", "one")
    assert ctl.path("one", "--file", "a b.gguf") == ctl.path("one")
    assert ctl("path", "one", "--file", "other").returncode == 3


def test_trees_are_links_and_cost_no_bytes(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    for file in ctl.json("show", "gemma")["files"]:
        digest = file["blob"].removeprefix("sha256:")
        blob = os.stat(f"{ctl.daemon.root}/blobs/sha256/{digest[:2]}/{digest}/data")
        shown = os.stat(f"{ctl.path('gemma')}/{file['path']}")
        assert (shown.st_ino, shown.st_mode & 0o777) == (blob.st_ino, 0o444)
    usage = ctl.json("usage")
    assert usage["physical_bytes"] == usage["logical_bytes"] == sum(map(len, EXAMPLE.values()))


def test_the_same_directory_again_is_success_and_another_content_is_refused(room: Path, ctl: Ctl) -> None:
    source = directory(room)
    first = ctl.json("add", str(source))
    again = ctl.json("add", str(source))
    assert (again["reused"], again["path"]) == (True, first["path"])
    (source / "config.json").write_bytes(b'{"changed": 1}')
    assert ctl("add", str(source)).returncode == 5
    assert ctl.path("gemma") == first["path"]
    replaced = ctl.json("add", str(source), "--replace")
    assert replaced["path"] != first["path"], "readers of the old files keep the old files"
    assert tree_of(ctl.path("gemma"))["config.json"] == b'{"changed": 1}'


def test_hidden_files_and_empty_directories_do_not_belong_to_the_model(room: Path, ctl: Ctl) -> None:
    source = directory(room, files={"m.gguf": WEIGHTS, ".gitattributes": b"x", ".cache/a": b"y"})
    (source / "empty").mkdir()
    (source / ".link").symlink_to("/etc/passwd")
    assert [file["path"] for file in ctl.json("add", str(source))["files"]] == ["m.gguf"]


def test_equal_files_are_one_blob(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room, files={"a.gguf": WEIGHTS, "b.gguf": WEIGHTS, "c/d.gguf": WEIGHTS})))
    assert tree_of(ctl.path("gemma")) == {"a.gguf": WEIGHTS, "b.gguf": WEIGHTS, "c/d.gguf": WEIGHTS}
    assert len([path for path, _, files in os.walk(f"{ctl.daemon.root}/blobs") if files]) == 1


# -- shards


@pytest.mark.parametrize("named", [0, 1, 2])
def test_a_set_of_shards_is_recognised_from_any_of_its_parts(room: Path, ctl: Ctl, named: int) -> None:
    parts = shards(room)
    added = ctl.json("add", str(parts[named]))
    assert added["name"] == "big"
    assert added["blob"] == f"sha256:{hashlib.sha256(parts[0].read_bytes()).hexdigest()}"
    assert tree_of(ctl.path("big")) == {part.name: part.read_bytes() for part in parts}


def test_a_set_of_one_is_a_file(room: Path, ctl: Ctl) -> None:
    (part,) = shards(room, count=1)
    assert ctl.json("add", str(part))["files"] == []
