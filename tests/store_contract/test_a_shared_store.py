"""The founding contract, part A, line by line, through a real daemon and the command."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from rigs.real_daemon import RealDaemon
from store_contract.conftest import Ctl

CONTENT = b"GGUF" + bytes(1000)
HEX = hashlib.sha256(CONTENT).hexdigest()


class OriginalSource(msgspec.Struct, forbid_unknown_fields=True):
    registry: str
    repo: str
    revision: str
    filename: str


class OriginalManifest(msgspec.Struct):
    """The nine fields as the original daemon's strict reader has them: all required, none of another type."""

    schema_version: Literal[1]
    name: str
    format: str
    blob: str
    size_bytes: int
    license: str | None
    source: OriginalSource
    produced_by: str
    produced_at: str


def strictly_read(path: str) -> OriginalManifest:
    data = Path(path).read_bytes()
    assert data.endswith(b"}\n")
    assert b'\n  "' in data, "it is indented"
    manifest = msgspec.json.decode(data, type=OriginalManifest)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", manifest.blob)
    assert re.fullmatch(r"[^/]+/[^/]+", manifest.produced_by)
    assert manifest.produced_at.endswith("Z")
    assert datetime.fromisoformat(manifest.produced_at).tzinfo == UTC
    return manifest


def foreign_manifest(name: str, **changes: Any) -> dict[str, Any]:
    """As the original daemon's format prescribes it, written by hand."""
    return {
        "schema_version": 1,
        "name": name,
        "format": "gguf",
        "blob": f"sha256:{HEX}",
        "size_bytes": len(CONTENT),
        "license": "apache-2.0",
        "source": {"registry": "huggingface", "repo": "org/repo", "revision": "main", "filename": "m.gguf"},
        "produced_by": "provisioner/2.3.1",
        "produced_at": "2026-01-15T09:30:00Z",
        **changes,
    }


def publish_by_hand(daemon: RealDaemon, name: str, **changes: Any) -> str:
    blob = Path(daemon.root, "blobs", "sha256", HEX[:2], HEX, "data")
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(CONTENT)
    manifest = Path(daemon.root, "manifests", f"{name.replace(':', '+')}.json")
    manifest.write_text(json.dumps(foreign_manifest(name, **changes), indent=2) + "\n")
    return str(manifest)


def root_in_use(daemon: RealDaemon) -> str:
    return str(daemon.start().ask("daemon.status")["value"]["store"])


# -- the root: first hit wins, trimmed, empty counts as unset


def test_root_1_models_home_in_the_config_file(stopped: RealDaemon) -> None:
    stopped.configure(f'models_home = "  {stopped.room}/configured  "\n')
    assert root_in_use(stopped) == f"{stopped.room}/configured"


def test_root_2_models_home_in_the_environment(stopped: RealDaemon) -> None:
    stopped.configure('models_home = "  "\n')
    stopped.environ["MODELS_HOME"] = f" {stopped.room}/named \n"
    assert root_in_use(stopped) == f"{stopped.room}/named"


@pytest.mark.parametrize("data", [None, "data"])
def test_root_3_the_platforms_own(stopped: RealDaemon, data: str | None) -> None:
    stopped.environ["MODELS_HOME"] = "   "
    if data is not None:
        stopped.environ["XDG_DATA_HOME"] = f"{stopped.room}/{data}"
    assert root_in_use(stopped) == f"{stopped.room}/{data or '.local/share'}/models"


def test_root_a_leading_tilde_is_the_home_directory(stopped: RealDaemon) -> None:
    stopped.environ["MODELS_HOME"] = "~/weights"
    assert root_in_use(stopped) == f"{stopped.room}/weights"


def test_root_with_the_variable_set_no_home_is_needed(stopped: RealDaemon) -> None:
    del stopped.environ["HOME"]
    assert root_in_use(stopped) == stopped.root


def test_root_with_neither_a_value_nor_a_home_it_is_a_configuration_error(stopped: RealDaemon) -> None:
    del stopped.environ["HOME"], stopped.environ["MODELS_HOME"]
    word = stopped.spawn()
    assert not word.startswith("READY")
    assert stopped.wait() != 0
    assert "MODELS_HOME" in stopped.log()
    assert not os.path.exists(stopped.root)


# -- the layout


def test_layout_blob_and_manifest(daemon: RealDaemon, ctl: Ctl) -> None:
    assert ctl("add", daemon.file("m.gguf", CONTENT), "--name", "llama:8b").returncode == 0
    blob = f"{daemon.root}/blobs/sha256/{HEX[:2]}/{HEX}/data"
    assert ctl.path("llama:8b") == blob
    assert Path(blob).read_bytes() == CONTENT
    assert os.listdir(f"{daemon.root}/manifests") == ["llama+8b.json"]


def test_layout_the_skeleton_is_made_lazily_and_idempotently(stopped: RealDaemon) -> None:
    assert not os.path.exists(stopped.root)
    for _start in range(2):
        stopped.start()
        skeleton = {os.path.relpath(path, stopped.root) for path, _, _ in os.walk(stopped.root)}
        assert skeleton >= {"blobs/sha256", "manifests", "locks/quarantine"}
        assert stopped.terminate() == 0


def test_layout_quarantine_names_tell_time_and_reason_and_are_unique(daemon: RealDaemon, ctl: Ctl) -> None:
    """Weak in the original: two quarantines in one second overwrite each other."""
    for number in range(3):
        wrong = daemon.file(f"w{number}.gguf", CONTENT + bytes([number]))
        assert ctl("add", wrong, "--sha256", HEX).returncode == 6
    kept = os.listdir(f"{daemon.root}/locks/quarantine")
    assert len(kept) == 3
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-digest-mismatch(-\d+)?\.bin", name) for name in kept), kept
    contents = {Path(daemon.root, "locks", "quarantine", name).read_bytes() for name in kept}
    assert contents == {CONTENT + bytes([number]) for number in range(3)}


def test_layout_a_missing_manifest_is_not_there_and_an_unreadable_one_names_its_file(ctl: Ctl) -> None:
    done = ctl("path", "nothing")
    assert (done.returncode, done.stdout) == (3, "")
    damaged = f"{ctl.daemon.root}/manifests/torn.json"
    Path(damaged).write_text('{"schema_version": 1, "na')
    done = ctl("path", "torn")
    assert (done.returncode, done.stdout) == (6, "")
    assert damaged in done.stderr
    assert Path(damaged).exists(), "it is left alone"


# -- the manifest


def test_manifest_the_nine_fields_satisfy_a_strict_reader(daemon: RealDaemon, ctl: Ctl) -> None:
    assert ctl("add", daemon.file("My File.gguf", CONTENT), "--name", "a", "--license", "mit").returncode == 0
    manifest = strictly_read(f"{daemon.root}/manifests/a.json")
    assert (manifest.name, manifest.format, manifest.license) == ("a", "gguf", "mit")
    assert (manifest.blob, manifest.size_bytes) == (f"sha256:{HEX}", len(CONTENT))
    assert manifest.source.filename == "My File.gguf"


def test_manifest_of_several_files_satisfies_a_strict_reader_too(room: Path, ctl: Ctl) -> None:
    """Optional fields only: the nine describe one blob completely, and its size is that of its bytes."""
    (room / "m").mkdir()
    for name, content in (("config.json", b"{}"), ("model.gguf", CONTENT), ("zeta.gguf", b"GGUF2")):
        (room / "m" / name).write_bytes(content)
    assert ctl("add", str(room / "m")).returncode == 0
    manifest = strictly_read(f"{ctl.daemon.root}/manifests/m.json")
    assert (manifest.blob, manifest.size_bytes, manifest.source.filename) == (
        f"sha256:{HEX}",
        len(CONTENT),
        "model.gguf",
    )
    blob = f"{ctl.daemon.root}/blobs/sha256/{HEX[:2]}/{HEX}/data"
    assert os.stat(blob).st_size == manifest.size_bytes


def test_manifest_that_another_tool_wrote_is_served(ctl: Ctl) -> None:
    publish_by_hand(ctl.daemon, "hand:made", note="unknown to everybody")
    assert Path(ctl.path("hand:made")).read_bytes() == CONTENT
    shown = ctl.json("show", "hand:made")
    assert (shown["produced_by"], shown["license"], shown["state"]) == ("provisioner/2.3.1", "apache-2.0", "ready")
    assert [model["name"] for model in ctl.json("list")] == ["hand:made"]


def test_manifest_unknown_fields_are_kept_on_rewrite(daemon: RealDaemon, ctl: Ctl) -> None:
    path = publish_by_hand(daemon, "llama", fleet={"region": ["eu", 7]}, rank=10**30)
    other = daemon.file("n.gguf", b"GGUF other")
    assert ctl("add", other, "--name", "llama", "--replace").returncode == 0
    rewritten = json.loads(Path(path).read_text())
    assert (rewritten["fleet"], rewritten["rank"]) == ({"region": ["eu", 7]}, 10**30)
    assert rewritten["blob"] != f"sha256:{HEX}"


def test_manifest_of_another_schema_version_names_both(ctl: Ctl) -> None:
    path = publish_by_hand(ctl.daemon, "later", schema_version=7)
    done = ctl("path", "later")
    assert done.returncode == 1
    assert (path in done.stderr, "7" in done.stderr, "version 1" in done.stderr) == (True, True, True)


@pytest.mark.parametrize("hostile", ["../../escape", "/etc/passwd", "a//b", "a/../b", ".", "a\\b"])
def test_manifest_files_lead_nowhere_outside(ctl: Ctl, hostile: str) -> None:
    """Another tool's `files` become names in a tree."""
    files = [{"path": hostile, "blob": f"sha256:{HEX}", "size_bytes": len(CONTENT), "role": "weights"}]
    path = publish_by_hand(ctl.daemon, "hostile", files=files)
    done = ctl("path", "hostile")
    assert (done.returncode, done.stdout) == (6, "")
    assert path in done.stderr
    assert not os.path.exists(os.path.join(ctl.daemon.root, ".modeld", "trees", "hostile"))


# -- names


@pytest.mark.parametrize(
    "bad",
    ["", ".hidden", "a..b", "con", "con.gguf", "LPT9", "a/b", "a\\b", "ä", "a b", "x" * 129, "a:b:c", ":8b", "a:"],
)
def test_names_a_bad_one_leaves_nothing_on_disk(daemon: RealDaemon, bad: str) -> None:
    source = daemon.file("m.gguf", CONTENT)
    reply = daemon.ask("model.add", path=source, name=bad)
    assert (reply["type"], reply["code"]) == ("error", "invalid_name")
    assert os.listdir(f"{daemon.root}/manifests") == []
    assert os.listdir(f"{daemon.root}/blobs/sha256") == []
    assert os.listdir(f"{daemon.root}/locks") == ["quarantine"]


@pytest.mark.parametrize("good", ["console", "com10", "x" * 128, "Llama-3.2_1b", "0", "a:" + "t" * 128])
def test_names_good_ones(daemon: RealDaemon, good: str) -> None:
    source = daemon.file("m.gguf", CONTENT)
    assert daemon.ask("model.add", path=source, name=good)["type"] == "result"
    assert daemon.ask("model.resolve", name=good)["value"]["name"] == good


def test_names_a_bare_one_resolves_to_itself_else_to_latest(daemon: RealDaemon) -> None:
    daemon.ask("model.add", path=daemon.file("a", b"tagged"), name="x:latest")
    assert daemon.ask("model.resolve", name="x")["value"]["name"] == "x:latest"
    daemon.ask("model.add", path=daemon.file("b", b"bare"), name="x")
    assert daemon.ask("model.resolve", name="x")["value"]["name"] == "x"


def test_names_that_differ_only_in_case_are_the_same(daemon: RealDaemon) -> None:
    daemon.ask("model.add", path=daemon.file("a", b"1"), name="Llama")
    reply = daemon.ask("model.add", path=daemon.file("b", b"2"), name="lLAMA")
    assert (reply["code"], "'Llama'" in reply["message"]) == ("already_exists", True)
    assert os.listdir(f"{daemon.root}/manifests") == ["Llama.json"]


# -- the producer


def test_producer_a_wrong_digest_fails_loudly_and_publishes_nothing(daemon: RealDaemon) -> None:
    reply = daemon.ask("model.add", path=daemon.file("m.gguf", b"other"), name="m", sha256=HEX)
    assert reply["code"] == "digest_mismatch"
    assert (reply["details"]["expected_sha256"], reply["details"]["actual_sha256"]) == (
        HEX,
        hashlib.sha256(b"other").hexdigest(),
    )
    assert Path(reply["details"]["quarantine_path"]).read_bytes() == b"other"
    assert os.listdir(f"{daemon.root}/manifests") == []
    assert os.listdir(f"{daemon.root}/blobs/sha256") == []


def test_producer_two_names_for_one_digest_do_not_collide(daemon: RealDaemon) -> None:
    """Weak in the original: its lock is per name, its partial per digest."""
    with daemon.connect() as wire:
        open_ = {
            wire.request("model.add", path=daemon.file(f"{name}.gguf", CONTENT), name=name) for name in ("a", "b", "c")
        }
        while open_:
            reply = wire.read()
            assert reply["type"] != "error"
            open_ -= {reply["id"]} if reply["type"] == "result" else set()
    paths = {daemon.ask("model.resolve", name=name)["value"]["path"] for name in ("a", "b", "c")}
    assert len(paths) == 1
    assert os.stat(paths.pop()).st_nlink == 1
