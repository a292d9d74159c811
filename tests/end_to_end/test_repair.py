"""Repairs through a real daemon: from a real nginx, from a copy, from what is kept, and what is lost without them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from end_to_end.test_names_killed import ask
from modeld.store.blobs.block_checksums import BLOCK
from rigs.decay import flip
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, begun, ctl, gguf, hex_of, job_state, partials, pulled, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.repair_rig import blob_path, refused, repaired
from rigs.rough_peers import scaled, staging
from rigs.traced_daemon import failing_at, killed_at, strace, traced

__all__ = ["strace"]

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

CONTENT = gguf(3 * BLOCK + 4321)
SIZE = len(CONTENT)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


@needs_nginx
def test_one_flipped_bit_costs_one_block_and_the_second_repair_nothing(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "tiny.gguf", CONTENT)
    pulled(daemon, address, name="tiny")
    path, before = blob_path(daemon, CONTENT), sent(web)
    with open(path, "rb") as reader:
        flip(path, BLOCK + 7)
        value = repaired(daemon, "tiny")
        (blob,) = value["repaired"]
        assert (blob["models"], blob["size_bytes"], blob["blocks"], blob["damaged_blocks"]) == (["tiny"], SIZE, 4, 1)
        assert (blob["kept_bytes"], blob["copied_bytes"], blob["fetched_bytes"]) == (SIZE - BLOCK, 0, BLOCK)
        assert list(blob["served"].values()) == [BLOCK]
        assert sent(web) - before <= BLOCK
        assert Path(path).read_bytes() == CONTENT
        assert reader.read() != CONTENT, "who holds the old file keeps it"
    assert os.stat(path).st_mode & 0o777 == 0o444
    assert partials(daemon) == []
    shown = daemon.ask("model.show", name="tiny")["value"]
    assert shown["state"] == "ready"
    assert [past["outcome"] for past in shown["history"]] == ["added", "corrupt", "repaired"]
    assert shown["history"][-1]["served"] == {"quarantine": SIZE - BLOCK, **blob["served"]}
    before = sent(web)
    again = repaired(daemon, "tiny")
    assert (again["repaired"], again["checked"], sent(web) - before) == ([], 1, 0)
    assert daemon.ask("model.verify", names=["tiny"])["value"]["ok"]
    assert [past["outcome"] for past in daemon.ask("model.show", name="tiny")["value"]["history"]][-1] == "verified"


@needs_nginx
def test_what_a_verification_has_set_aside_is_repaired_for_every_name(daemon: RealDaemon, web: Nginx) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
    assert daemon.ask("model.copy", source="tiny", destination="other")["type"] == "result"
    path = blob_path(daemon, CONTENT)
    flip(path, 0)
    flip(path, SIZE - 1)
    assert not daemon.ask("model.verify", names=["tiny"])["value"]["ok"]
    assert not os.path.exists(path)
    assert daemon.ask("model.resolve", name="other")["type"] == "error"
    daemon.terminate()
    daemon.start()
    (blob,) = repaired(daemon, "other", "tiny")["repaired"]
    assert (sorted(blob["models"]), blob["damaged_blocks"], blob["fetched_bytes"]) == (
        ["other", "tiny"],
        2,
        BLOCK + SIZE % BLOCK,
    )
    for name in ("tiny", "other"):
        assert daemon.ask("model.resolve", name=name)["value"]["path"] == path


@needs_nginx
def test_a_missing_blob_is_fetched_whole(daemon: RealDaemon, web: Nginx) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
    path = blob_path(daemon, CONTENT)
    os.unlink(path)
    (blob,) = repaired(daemon)["repaired"]
    assert (blob["damaged_blocks"], blob["kept_bytes"], blob["fetched_bytes"]) == (4, 0, SIZE)
    assert Path(path).read_bytes() == CONTENT


@needs_nginx
def test_without_checksums_the_whole_is_fetched(daemon: RealDaemon, web: Nginx) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
    path = blob_path(daemon, CONTENT)
    for blocks in Path(daemon.root, ".modeld", "blocks").glob("*/*"):
        blocks.unlink()
    flip(path, 5)
    (blob,) = repaired(daemon, "tiny")["repaired"]
    assert (blob["damaged_blocks"], blob["fetched_bytes"]) == (4, SIZE)
    assert Path(path).read_bytes() == CONTENT


@needs_nginx
def test_a_source_without_ranges_gives_the_whole(daemon: RealDaemon, tmp_path: Path) -> None:
    with nginx(tmp_path / "whole", extra="max_ranges 0;") as web:
        pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
        path = blob_path(daemon, CONTENT)
        flip(path, 5)
        (blob,) = repaired(daemon, "tiny")["repaired"]
        assert blob["damaged_blocks"] == 1
        assert Path(path).read_bytes() == CONTENT


@needs_nginx
def test_a_source_that_has_another_version_publishes_nothing_and_what_is_lost_is_said(
    daemon: RealDaemon, web: Nginx
) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
    path = blob_path(daemon, CONTENT)
    flip(path, 5)
    put(web, "tiny.gguf", gguf(SIZE, 2))
    reply = refused(daemon, "tiny")
    assert reply["code"] == "digest_mismatch"
    assert not os.path.exists(path)
    assert reply["details"]["model"] == "tiny"
    assert daemon.ask("model.show", name="tiny")["value"]["state"] == "failed"


@needs_nginx
def test_what_one_source_no_longer_has_another_one_gives(daemon: RealDaemon, web: Nginx) -> None:
    """The same bytes were pulled by two references: one is enough."""
    pulled(daemon, put(web, "gone.gguf", CONTENT), name="a")
    pulled(daemon, put(web, "there.gguf", CONTENT), name="b")
    (web.files / "gone.gguf").unlink()
    path = blob_path(daemon, CONTENT)
    flip(path, 5)
    (blob,) = repaired(daemon, "a", "b")["repaired"]
    assert blob["fetched_bytes"] == BLOCK
    assert Path(path).read_bytes() == CONTENT


def test_an_added_model_is_repaired_from_a_copy(daemon: RealDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(CONTENT)
    assert daemon.ask("model.add", path=str(source), name="tiny")["type"] == "result"
    path = blob_path(daemon, CONTENT)
    flip(path, 2 * BLOCK)
    lost = refused(daemon, "tiny")
    assert (lost["code"], lost["details"]["missing_bytes"]) == ("corrupt", BLOCK)
    assert "1 of 4 blocks" in lost["message"]
    assert "no source is recorded" in lost["message"]
    assert "modelctl repair tiny --from PATH" in lost["hint"]
    assert "/locks/quarantine/" in lost["hint"]
    assert partials(daemon) == [], "what nothing can complete takes no space"
    other = tmp_path / "other.gguf"
    other.write_bytes(os.urandom(SIZE))
    wrong = refused(daemon, "tiny", **{"from": str(other)})
    assert "what --from names has not the bytes that are missing, and no source is recorded" in wrong["message"]
    bad = bytearray(CONTENT)
    bad[0] ^= 1  # another block than the one that is damaged
    source.write_bytes(bad)
    (blob,) = repaired(daemon, "tiny", **{"from": str(source)})["repaired"]
    assert (blob["damaged_blocks"], blob["kept_bytes"], blob["copied_bytes"]) == (1, SIZE - BLOCK, BLOCK)
    assert blob["fetched_bytes"] == 0
    assert Path(path).read_bytes() == CONTENT


def test_a_copy_that_has_the_same_damage_publishes_nothing(daemon: RealDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(CONTENT)
    assert daemon.ask("model.add", path=str(source), name="tiny")["type"] == "result"
    path = blob_path(daemon, CONTENT)
    flip(path, 2 * BLOCK)
    flip(str(source), 2 * BLOCK + 1)
    assert refused(daemon, "tiny", **{"from": str(source)})["code"] == "corrupt"
    assert not os.path.exists(path)


def test_a_model_of_several_files_is_shown_with_its_new_bytes(daemon: RealDaemon, tmp_path: Path) -> None:
    """Its tree has links to the old file, which nothing but the look at the blob shows."""
    room = tmp_path / "many"
    room.mkdir()
    contents = {"model.safetensors": gguf(BLOCK + 9, 3), "config.json": b'{"a": 1}', "b/more.bin": gguf(BLOCK + 5, 4)}
    for name, content in contents.items():
        (room / name).parent.mkdir(exist_ok=True)
        (room / name).write_bytes(content)
    assert daemon.ask("model.add", path=str(room), name="many", force_format=True)["type"] == "result"
    tree = daemon.ask("model.resolve", name="many")["value"]["path"]
    flip(blob_path(daemon, contents["b/more.bin"]), 3)
    os.unlink(blob_path(daemon, contents["config.json"]))
    value = repaired(daemon, "many", **{"from": str(room)})
    assert sorted(blob["copied_bytes"] for blob in value["repaired"]) == [8, BLOCK]
    resolved = daemon.ask("model.resolve", name="many")["value"]["path"]
    for name, content in contents.items():
        assert Path(resolved, name).read_bytes() == content, name
    assert resolved == tree


def test_a_hub_repository_is_asked_at_the_recorded_revision(stopped: RealDaemon) -> None:
    content = gguf(BLOCK + MIB, 7)
    first = Repo({"model.gguf": content}, lfs=frozenset({"model.gguf"}))
    with Hub({"org/repo": first}) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        daemon = stopped.start()
        pulled(daemon, "hf:org/repo", name="tiny")
        flip(blob_path(daemon, content), 1)
        (blob,) = repaired(daemon, "tiny")["repaired"]
        assert (blob["kept_bytes"], blob["fetched_bytes"]) == (MIB, BLOCK)


def test_offline_nothing_is_asked_of_a_source(stopped: RealDaemon, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx") as web:
        daemon = stopped.start()
        pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
        daemon.terminate()
        daemon.start("--set", "transfer.offline=true")
        flip(blob_path(daemon, CONTENT), 1)
        before = web.requests()
        lost = refused(daemon, "tiny")
        assert (lost["code"], lost["details"]["missing_bytes"]) == ("offline", BLOCK)
        (blob,) = repaired(daemon, "tiny", **{"from": str(web.files / "tiny.gguf")})["repaired"]
        assert blob["copied_bytes"] == BLOCK
        assert web.requests() == before


@needs_nginx
def test_the_command_says_what_it_did_and_that_nothing_is_left_to_do(daemon: RealDaemon, web: Nginx) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="tiny")
    flip(blob_path(daemon, CONTENT), 1)
    done = ctl(daemon, "repair", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:1] == ["tiny"]
    again = ctl(daemon, "repair", "--all")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to repair" in again.stderr


@needs_nginx
def test_after_a_kill_in_the_middle_the_repair_goes_on_and_nothing_unverified_has_a_name(
    daemon: RealDaemon, tmp_path: Path
) -> None:
    with nginx(tmp_path / "slow", extra="limit_rate_after 1m; limit_rate 4m;") as web:
        content = gguf(5 * BLOCK, 9)
        (web.files / "big.gguf").write_bytes(content)
        assert daemon.ask("model.add", path=str(web.files / "big.gguf"), name="big")["type"] == "result"
        manifest = Path(daemon.root, "manifests", "big.json")
        document = json.loads(manifest.read_bytes())
        document["source"]["reference"] = f"{web.plain}/big.gguf"
        manifest.write_text(json.dumps(document))
        path = blob_path(daemon, content)
        flip(path, BLOCK + 1)
        flip(path, 4 * BLOCK)
        with daemon.connect() as wire:
            number = wire.request("model.repair", names=["big"], on_disconnect="continue")
            job = begun(wire, number, 2 * len(content) - 2 * BLOCK + MIB)  # all was looked at, and what is good copied
            daemon.kill()
        assert not os.path.exists(path)
        daemon.start()
        assert job_state(daemon, job, "done", "failed")["state"] == "done", daemon.log()
        assert Path(path).read_bytes() == content
        assert sent(web) < 3 * BLOCK, "what was copied and fetched before the kill is kept"
        assert partials(daemon) == []
        assert repaired(daemon, "big")["repaired"] == []


@needs_nginx
@pytest.mark.parametrize("count", [5, pytest.param(scaled(200, 20), marks=pytest.mark.torture)])
def test_one_bit_in_each_of_many_blobs_is_found_and_costs_one_block_each(
    stopped: RealDaemon, web: Nginx, count: int
) -> None:
    stopped.configure('[scrub]\nrate = "none"\n')
    daemon = stopped.start()
    chance, size = random.Random(count), BLOCK + 2 * MIB + 11
    paths = {}
    for number in range(count):
        content = gguf(size, number)
        pulled(daemon, put(web, f"{number}.gguf", content), name=f"m{number}")
        paths[f"m{number}"] = blob_path(daemon, content), hex_of(content)
    for path, _ in paths.values():
        flip(path, chance.randrange(size))
    scrubbed = daemon.ask("store.scrub")["value"]
    assert (scrubbed["checked"], scrubbed["failed"]) == (count, count)
    assert sorted(model["name"] for model in scrubbed["damaged"]) == sorted(paths)
    for name, (path, digest) in paths.items():
        before = sent(web)
        (blob,) = repaired(daemon, name)["repaired"]
        assert blob["damaged_blocks"] == 1
        assert 0 < blob["fetched_bytes"] <= BLOCK
        assert sent(web) - before <= BLOCK
        assert hex_of(Path(path).read_bytes()) == digest
    before = sent(web)
    again = repaired(daemon)
    assert (again["repaired"], again["checked"], sent(web)) == ([], count, before)
    for path, _ in paths.values():
        flip(path, chance.randrange(size))
    quick = daemon.ask("model.verify", all=True, quick=True)["value"]
    assert sorted(model["name"] for model in quick["models"] if not model["ok"]) == sorted(paths)


@needs_nginx
def test_what_is_lost_keeps_nothing_else_from_being_repaired(daemon: RealDaemon, web: Nginx, tmp_path: Path) -> None:
    pulled(daemon, put(web, "tiny.gguf", CONTENT), name="b-pulled")
    added = gguf(BLOCK + 1, 4)
    (tmp_path / "added.gguf").write_bytes(added)
    for name in ("a-added", "c-broken"):
        assert daemon.ask("model.add", path=str(tmp_path / "added.gguf"), name=name)["type"] == "result"
    Path(daemon.root, "manifests", "c-broken.json").write_text("{")
    for content in (CONTENT, added):
        flip(blob_path(daemon, content), 1)
    lost = refused(daemon)
    assert [each.get("model") for each in lost["details"]["lost"]] == [None, "a-added"]
    assert lost["details"]["repaired"] == [f"sha256:{hex_of(CONTENT)}"]
    assert Path(blob_path(daemon, CONTENT)).read_bytes() == CONTENT


def test_bytes_that_an_add_has_brought_meanwhile_are_no_repair(daemon: RealDaemon, tmp_path: Path) -> None:
    """The history says who brought them, and once."""
    source = tmp_path / "source.gguf"
    source.write_bytes(CONTENT)
    assert daemon.ask("model.add", path=str(source), name="tiny")["type"] == "result"
    flip(blob_path(daemon, CONTENT), 1)
    assert not daemon.ask("model.verify", names=["tiny"])["value"]["ok"]
    assert daemon.ask("model.add", path=str(source), name="other")["type"] == "result"
    assert repaired(daemon, "tiny")["repaired"] == []
    outcomes = [past["outcome"] for past in daemon.ask("model.show", name="tiny")["value"]["history"]]
    assert "repaired" not in outcomes


@pytest.mark.usefixtures("strace")
def test_what_the_disk_fails_to_read_stays_until_a_repair_is_asked_for(daemon: RealDaemon) -> None:
    """Here it fails where the blob is, and not in quarantine: all blocks are kept."""
    content = gguf(200_000, 6)
    path = blob_path(daemon, content)
    assert daemon.ask("model.add", path=daemon.file("source.gguf", content), name="tiny")["type"] == "result"
    inode, failing = os.stat(path).st_ino, ("trace=preadv2", "inject=preadv2:error=EIO")
    with traced(daemon, *failing, path=path) as trace:
        verified = daemon.ask("model.verify", names=["tiny"])["value"]
        assert (verified["ok"], trace.failed, os.stat(path).st_ino) == (False, True, inode)
    assert daemon.ask("model.verify", names=["tiny"])["value"]["ok"], "it was a loose cable"
    with traced(daemon, *failing, path=path) as trace:
        (blob,) = repaired(daemon, "tiny")["repaired"]
        assert trace.failed
    assert (blob["kept_bytes"], blob["fetched_bytes"], blob["damaged_blocks"]) == (len(content), 0, 0)
    assert Path(path).read_bytes() == content
    assert os.stat(path).st_ino != inode
    assert daemon.ask("model.verify", names=["tiny"])["value"]["ok"]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("call", ["copy_file_range", "fsync", "fchmod", "renameat2"])
@pytest.mark.parametrize("how", ["EIO", "KILL"])
def test_whichever_call_fails_or_kills_no_unverified_bytes_get_the_name_and_the_next_repair_succeeds(
    daemon: RealDaemon, how: str, call: str
) -> None:
    content = gguf(200_000, 5)
    path, source = blob_path(daemon, content), daemon.file("source.gguf", content)
    assert daemon.ask("model.add", path=source, name="tiny")["type"] == "result"
    fields = {"names": ["tiny"], "from": source, "on_disconnect": "continue"}
    for nth in range(1, 40):
        flip(path, 100)
        bad = Path(path).read_bytes()
        if how == "KILL":
            with killed_at(daemon, call, nth) as trace:
                ask(daemon, "model.repair", fields)
            happened = trace.killed
        else:
            with failing_at(daemon, call, nth, how) as trace:
                reply = daemon.ask("model.repair", **fields)
            happened = trace.failed
            assert reply["type"] == "result" or reply["hint"]
        if os.path.exists(path):  # the very file that was bad, until it is set aside
            assert Path(path).read_bytes() in (content, bad), nth
        if how == "KILL" and happened:
            daemon.start()
        repaired(daemon, "tiny", **{"from": source})
        assert Path(path).read_bytes() == content, nth
        assert partials(daemon) == [], nth
        assert staging(daemon) == [], nth
        if not happened:
            assert nth > 1, f"{call} was never made"
            return
    pytest.fail("the sweep has no end")
