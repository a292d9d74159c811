"""Contract, part C: each line of it through a real daemon, named after the line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon


def public(root: str) -> dict[str, tuple[int, int]]:
    """Each file of the shared part of the store: its inode and the bytes that it takes on the disk."""
    found: dict[str, tuple[int, int]] = {}
    for part in ("blobs", "manifests", "locks"):
        for directory, _, names in os.walk(f"{root}/{part}"):
            for name in names:
                info = os.lstat(f"{directory}/{name}")
                found[f"{directory}/{name}"] = (info.st_ino, info.st_blocks * 512)
    return found


def value(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    result: dict[str, Any] = reply["value"]
    return result


def manifest(daemon: RealDaemon, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(f"{daemon.root}/manifests/{name}.json").read_bytes())
    return document


@pytest.fixture(params=["one file", "several files"])
def source(daemon: RealDaemon, request: pytest.FixtureRequest) -> RealDaemon:
    """A daemon with the model `src`."""
    if request.param == "one file":
        path = daemon.file("src.gguf", b"GGUF" + b"x" * 100_000)
    else:
        path = os.path.join(daemon.room, "src")
        os.mkdir(path)
        for name in ("config.json", "model-1.safetensors", "model-2.safetensors"):
            daemon.file(f"src/{name}", name.encode() * 10_000)
        daemon.file("src/again.json", b"config.json" * 10_000)
    value(daemon.ask("model.add", path=path, name="src"))
    return daemon


def test_cp_copies_no_blob_bytes(source: RealDaemon) -> None:
    before = public(source.root)
    value(source.ask("model.copy", source="src", destination="dst"))
    after = public(source.root)
    assert {path for path in after if "/blobs/" in path} == {path for path in before if "/blobs/" in path}


def test_the_blob_list_of_dst_equals_that_of_src_in_the_same_order(source: RealDaemon) -> None:
    copied = value(source.ask("model.copy", source="src", destination="dst"))
    old, new = manifest(source, "src"), manifest(source, "dst")
    assert new.get("files") == old.get("files")
    assert new["blob"] == old["blob"]
    assert copied["blobs"] == ([file["blob"] for file in old.get("files", [])] or [old["blob"]])
    assert new == old | {"name": "dst", "model": old["model"] | {"model_id": "dst", "name": "dst"}}


def test_the_plan_has_a_step_for_each_listed_blob_in_the_manifests_order_then_the_manifest(source: RealDaemon) -> None:
    planned = value(source.ask("model.copy", source="src", destination="dst", dry_run=True))
    files = manifest(source, "src").get("files", [manifest(source, "src")])
    steps = [(step["action"], step["blob"], step["size_bytes"]) for step in planned["plan"][:-1]]
    assert steps == [("share", file["blob"], file["size_bytes"]) for file in files]
    assert planned["plan"][-1]["path"] == f"{source.root}/manifests/dst.json"
    assert not os.path.exists(planned["plan"][-1]["path"])


def test_blob_paths_and_inodes_are_the_same(source: RealDaemon) -> None:
    before = public(source.root)
    copied = value(source.ask("model.copy", source="src", destination="dst"))
    shared = [step["path"] for step in copied["plan"] if step["action"] == "share"]
    assert len(shared) == len(copied["blobs"])
    after = public(source.root)
    assert {path: after[path][0] for path in shared} == {path: before[path][0] for path in shared}
    if not manifest(source, "src").get("files"):
        paths = {value(source.ask("model.resolve", name=name))["path"] for name in ("src", "dst")}
        assert len(paths) == 1


def test_disk_use_grows_by_at_most_4_kib(source: RealDaemon) -> None:
    before = public(source.root)
    value(source.ask("model.copy", source="src", destination="dst"))
    after = public(source.root)
    assert sum(size for _, size in after.values()) - sum(size for _, size in before.values()) <= 4096


def test_exactly_one_manifest_is_written_as_the_last_step(source: RealDaemon) -> None:
    before = public(source.root)
    copied = value(source.ask("model.copy", source="src", destination="dst"))
    after = public(source.root)
    new = {path for path, state in after.items() if before.get(path) != state}
    assert {path for path in new if "/manifests/" in path} == {f"{source.root}/manifests/dst.json"}
    assert {path for path in new if "/manifests/" not in path} <= {f"{source.root}/locks/dst.lock"}
    assert copied["plan"][-1]["action"] == "write"
    assert copied["plan"][-1]["path"] == f"{source.root}/manifests/dst.json"


def refused(daemon: RealDaemon, source: str, destination: str) -> dict[str, Any]:
    """The error, after which nothing has changed; the plan is refused in the same way."""
    before = public(daemon.root)
    reply = daemon.ask("model.copy", source=source, destination=destination)
    assert reply["type"] == "error"
    assert reply["hint"]
    planned = daemon.ask("model.copy", source=source, destination=destination, dry_run=True)
    assert (planned["code"], planned["message"]) == (reply["code"], reply["message"])
    assert public(daemon.root).keys() - before.keys() <= {f"{daemon.root}/locks/{destination}.lock"}
    return reply


def test_refused_source_not_found(source: RealDaemon) -> None:
    reply = refused(source, "nope", "dst")
    assert reply["code"] == "not_found"
    assert "'nope'" in reply["message"]


def test_refused_destination_exists(source: RealDaemon) -> None:
    value(source.ask("model.copy", source="src", destination="dst"))
    reply = refused(source, "src", "dst")
    assert reply["code"] == "already_exists"
    assert "'dst'" in reply["message"]


@pytest.mark.parametrize("destination", ["src", "SRC"])
def test_refused_destination_exists_also_when_src_and_dst_are_the_same(source: RealDaemon, destination: str) -> None:
    assert refused(source, "src", destination)["code"] == "already_exists"


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\0b", "a..b"], ids=["empty", "/", "backslash", "NUL", "dots"])
@pytest.mark.parametrize("at", ["source", "destination"])
def test_refused_invalid_name(daemon: RealDaemon, name: str, at: str) -> None:
    names = {"source": "src", "destination": "dst"} | {at: name}
    before = public(daemon.root)
    for dry_run in (True, False):
        reply = daemon.ask("model.copy", dry_run=dry_run, **names)
        assert reply["code"] == "invalid_name"
        assert reply["hint"]
    assert public(daemon.root) == before


def test_refused_source_without_blobs(source: RealDaemon) -> None:
    added = value(source.ask("model.copy", source="src", destination="other"))
    for path in {step["path"] for step in added["plan"] if step["action"] == "share"}:
        os.unlink(path)
    reply = refused(source, "src", "dst")
    assert reply["code"] == "corrupt"
    assert "no bytes" in reply["message"]


@pytest.mark.parametrize("document", [{"blob": ""}, {"blob": None}, {}, {"blob": []}])
def test_refused_source_that_names_no_blob(daemon: RealDaemon, document: dict[str, Any]) -> None:
    os.makedirs(f"{daemon.root}/manifests", exist_ok=True)
    Path(f"{daemon.root}/manifests/src.json").write_text(
        json.dumps({"schema_version": 1, "name": "src", "size_bytes": 0} | document)
    )
    assert refused(daemon, "src", "dst")["code"] == "corrupt"


def test_each_refusal_is_its_own_error(source: RealDaemon) -> None:
    Path(f"{source.root}/manifests/hollow.json").write_text(
        json.dumps({"schema_version": 1, "name": "hollow", "size_bytes": 1, "blob": "sha256:" + "a" * 64})
    )
    asked = [("nope", "dst"), ("src", "src"), ("src", "a/b"), ("hollow", "dst")]
    codes = [source.ask("model.copy", source=one, destination=other)["code"] for one, other in asked]
    assert len(set(codes)) == 4


def test_the_same_input_gives_the_same_plan(source: RealDaemon) -> None:
    plans = [value(source.ask("model.copy", source="src", destination="dst", dry_run=True)) for _ in range(3)]
    assert plans[0] == plans[1] == plans[2]
    source.terminate()
    source.start()
    assert value(source.ask("model.copy", source="src", destination="dst", dry_run=True)) == plans[0]
    assert value(source.ask("model.copy", source="src", destination="dst"))["plan"] == plans[0]["plan"]


def test_the_plan_can_be_shown_without_being_carried_out(source: RealDaemon) -> None:
    before = public(source.root)
    planned = value(source.ask("model.copy", source="src", destination="dst", dry_run=True))
    assert planned["dry_run"] is True
    assert planned["job"] is None
    assert public(source.root) == before
    assert source.ask("model.resolve", name="dst")["code"] == "not_found"
