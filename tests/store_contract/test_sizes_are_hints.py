"""The founding contract, part A: `size_bytes` is a diagnostic, the digest is the authority; through a real daemon."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.real_daemon import RealDaemon
from store_contract.conftest import Ctl
from store_contract.test_a_shared_store import CONTENT, HEX, publish_by_hand

WRONG = [0, len(CONTENT) - 1, len(CONTENT) + 1, 2**63 - 1]


def contradiction(size: int) -> str:
    return f"its blob has {len(CONTENT)} bytes, the manifest says {size}"


def blob_path(daemon: RealDaemon) -> Path:
    return Path(daemon.root, "blobs", "sha256", HEX[:2], HEX, "data")


@pytest.mark.parametrize("size", WRONG)
def test_a_right_blob_with_a_wrong_size_is_served_and_the_contradiction_shown(ctl: Ctl, size: int) -> None:
    publish_by_hand(ctl.daemon, "hand", size_bytes=size)
    before = ctl.json("show", "hand")
    assert (before["state"], before["size_bytes"]) == ("suspect", len(CONTENT))
    assert contradiction(size) in before["reason"]
    assert Path(ctl.path("hand")).read_bytes() == CONTENT
    for shown in (ctl.json("show", "hand"), *ctl.json("list")):
        assert (shown["state"], shown["size_bytes"]) == ("ready", len(CONTENT))
        assert shown["path"] == str(blob_path(ctl.daemon))
        assert contradiction(size) in shown["reason"]
    (verified,) = ctl.json("verify", "hand")
    assert (verified["ok"], verified["size_bytes"]) == (True, len(CONTENT))
    assert contradiction(size) in verified["reason"]
    assert ctl.daemon.ask("model.list")["value"]["models"][0]["state"] == "ready"
    assert json.loads(Path(ctl.daemon.root, "manifests", "hand.json").read_text())["size_bytes"] == size


@pytest.mark.parametrize("size", [len(CONTENT) - 1, 2**63 - 1])
@pytest.mark.parametrize("options", [(), ("--sha256", HEX), ("--move",), ("--link",), ("--replace",)])
def test_an_add_that_succeeds_leaves_the_name_resolving(ctl: Ctl, size: int, options: tuple[str, ...]) -> None:
    publish_by_hand(ctl.daemon, "hand", size_bytes=size)
    done = ctl("add", ctl.daemon.file("m.gguf", CONTENT), "--name", "hand", *options)
    assert done.returncode == 0, done.stderr
    assert Path(ctl.path("hand")).read_bytes() == CONTENT
    assert ctl.json("show", "hand")["state"] == "ready"


def test_a_pull_that_succeeds_leaves_the_name_resolving(ctl: Ctl) -> None:
    publish_by_hand(ctl.daemon, "hand", size_bytes=3)
    done = ctl("pull", f"file://{ctl.daemon.file('m.gguf', CONTENT)}", "--name", "hand")
    assert done.returncode == 0, done.stderr
    assert Path(ctl.path("hand")).read_bytes() == CONTENT


def test_after_a_restart_the_record_of_the_verification_is_enough(ctl: Ctl) -> None:
    daemon = ctl.daemon
    publish_by_hand(daemon, "hand", size_bytes=3)
    ctl.path("hand")
    verified_at = ctl.json("show", "hand")["verified_at"]
    daemon.kill()
    daemon.start()
    assert ctl.json("show", "hand")["state"] == "ready"
    assert Path(ctl.path("hand")).read_bytes() == CONTENT
    after = ctl.json("show", "hand")
    assert (after["state"], after["verified_at"]) == ("ready", verified_at)


def truncate(blob: Path) -> None:
    os.truncate(blob, 7)


def append(blob: Path) -> None:
    with blob.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("damage", [truncate, append])
@pytest.mark.parametrize("known", [True, False])
def test_a_blob_that_was_cut_or_grew_is_not_served(ctl: Ctl, damage: Callable[[Path], None], known: bool) -> None:
    publish_by_hand(ctl.daemon, "hand")
    if known:
        assert ctl("verify", "hand").returncode == 0
    blob = blob_path(ctl.daemon)
    blob.chmod(0o644)
    damage(blob)
    done = ctl("path", "hand")
    assert (done.returncode, done.stdout) == (6, "")
    shown = ctl.json("show", "hand")
    assert shown["state"] == "failed"
    assert "hash to" in shown["reason"]
    assert ctl("add", ctl.daemon.file("m.gguf", CONTENT), "--name", "hand").returncode == 0
    assert Path(ctl.path("hand")).read_bytes() == CONTENT


def test_one_wrong_size_of_several_files_is_no_fault(ctl: Ctl) -> None:
    config = b"{}"
    hexes = {"m.gguf": HEX, "config.json": hashlib.sha256(config).hexdigest()}
    other = Path(ctl.daemon.root, "blobs", "sha256", hexes["config.json"][:2], hexes["config.json"], "data")
    other.parent.mkdir(parents=True)
    other.write_bytes(config)
    files = [{"path": path, "blob": f"sha256:{digest}", "size_bytes": 5} for path, digest in hexes.items()]
    publish_by_hand(ctl.daemon, "hand", files=files)
    assert Path(ctl.path("hand"), "m.gguf").read_bytes() == CONTENT
    shown = ctl.json("show", "hand")
    assert (shown["state"], shown["size_bytes"]) == ("ready", len(CONTENT) + len(config))
    assert {file["path"]: file["size_bytes"] for file in shown["files"]} == {"m.gguf": len(CONTENT), "config.json": 2}
    assert "the manifest says 5" in shown["reason"]


def test_bytes_of_another_model_are_refused_whatever_the_sizes_say(ctl: Ctl) -> None:
    publish_by_hand(ctl.daemon, "hand", size_bytes=3)
    for content in (b"abc", bytes(len(CONTENT)), b"another size"):
        done = ctl("add", ctl.daemon.file("m.bin", content), "--name", "hand")
        assert done.returncode == 5, done.stderr
    assert Path(ctl.path("hand")).read_bytes() == CONTENT


def test_every_answer_reports_the_size_of_the_blob(ctl: Ctl) -> None:
    publish_by_hand(ctl.daemon, "hand", size_bytes=7)
    usage = ctl.json("usage")
    assert [model["logical_bytes"] for model in usage["models"]] == [usage["logical_bytes"]] == [len(CONTENT)]
    for done in (ctl.json("cp", "hand", "other"), ctl.json("mv", "hand", "moved"), ctl.json("rm", "moved")):
        assert done["size_bytes"] == len(CONTENT)
    plan = ctl.json("cp", "other", "third", "--dry-run")["plan"]
    assert [step["size_bytes"] for step in plan if step["action"] == "share"] == [len(CONTENT)]
