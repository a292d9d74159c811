"""The same reference again: current, moved on, or held by a digest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, failed, gguf, hex_of, manifest, pulled
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT, NEWER = gguf(2 * MIB, 101), gguf(2 * MIB + 1, 102)


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {"m-Q4_K_M.gguf": CONTENT, "config.json": b"{}"}
    with Hub({"org/repo": Repo(files, lfs=frozenset({"m-Q4_K_M.gguf"}))}) as made:
        yield made


@pytest.fixture
def hubbed(stopped: RealDaemon, hub: Hub) -> RealDaemon:
    stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_STORE_GRACE": "0s", "MODELD_STORE_SWEEP": "off"}
    return stopped.start()


@pytest.mark.parametrize("whole", [False, True])
def test_a_branch_that_moved_without_new_bytes_is_recorded(hubbed: RealDaemon, hub: Hub, whole: bool) -> None:
    ref = "hf:org/repo" if whole else "hf:org/repo:Q4_K_M"
    old = pulled(hubbed, ref, license="mit")
    path = Path(hubbed.root, "manifests", f"{old['name'].replace(':', '+')}.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "model": {"classes": ["a"]}, "theirs": 7}))
    hub.repos["org/repo"].note = "a commit that changes none of these files"
    before = len(hub.cdn.asked)
    new = pulled(hubbed, ref)
    assert new["current"] is True
    assert new["reused"] is not whole, "of small files the hub tells no SHA-256, so they are fetched to be compared"
    assert (new["blob"], new["path"]) == (old["blob"], old["path"])
    assert new["revision"] == hub.repos["org/repo"].commit != old["revision"]
    assert len(hub.cdn.asked) == before
    told = json.loads(path.read_text())
    assert told["source"] == {**document["source"], "revision": new["revision"]}
    assert (told["license"], told["theirs"], told["model"]) == ("mit", 7, {"classes": ["a"]})
    assert told.get("files") == document.get("files")
    written = path.stat().st_mtime_ns
    assert pulled(hubbed, ref, offline=True)["revision"] == new["revision"]
    assert pulled(hubbed, ref)["current"] is True
    assert path.stat().st_mtime_ns == written, "nothing moved, so nothing is written"


def test_another_spelling_of_a_quantisation_is_the_same_model(hubbed: RealDaemon, hub: Hub) -> None:
    old = pulled(hubbed, "hf:org/repo:Q4_K_M")
    again = pulled(hubbed, "hf:org/repo:q4_k_m")
    assert (again["name"], again["current"]) == (old["name"], True)
    hub.repos["org/repo"].files["m-Q4_K_M.gguf"] = NEWER
    assert pulled(hubbed, "hf:org/repo:q4_K_m")["blob"] == f"sha256:{hex_of(NEWER)}"
    assert len(hubbed.ask("model.list")["value"]["models"]) == 1


@pytest.mark.parametrize("ref", ["hf:org/repo@{}", "hf:org/repo/m-Q4_K_M.gguf@{}", "hf:org/repo:Q4_K_M@{}"])
def test_a_commit_that_is_here_asks_nobody(hubbed: RealDaemon, hub: Hub, ref: str) -> None:
    ref = ref.format(hub.repos["org/repo"].commit)
    old = pulled(hubbed, ref, name="pinned")
    asked = len(hub.server.asked) + len(hub.cdn.asked)
    again = pulled(hubbed, ref, name="pinned")
    assert (again["current"], again["blob"], again["revision"]) == (True, old["blob"], old["revision"])
    assert pulled(hubbed, ref, name="another")["reused"] is True
    assert len(hub.server.asked) + len(hub.cdn.asked) == asked
    os.unlink(f"{hubbed.root}/blobs/sha256/{old['blob'][7:9]}/{old['blob'][7:]}/data")
    assert pulled(hubbed, ref, name="pinned")["blob"] == old["blob"], "its bytes are gone, so they are fetched"
    assert len(hub.server.asked) + len(hub.cdn.asked) > asked


def test_a_host_that_failed_others_serves_the_next_pull(stopped: RealDaemon) -> None:
    with Server(lambda asked: Reply(500)) as web:
        stopped.start()
        for number in range(4):
            failed(stopped, f"{web.url}/{number}.gguf", "source_unavailable")
        web.route = lambda asked: file_reply(asked, CONTENT)
        assert pulled(stopped, f"{web.url}/m.gguf")["blob"].endswith(hex_of(CONTENT))


def test_the_old_bytes_stay_until_a_sweep(hubbed: RealDaemon, hub: Hub) -> None:
    old = pulled(hubbed, "hf:org/repo:Q4_K_M")
    hub.repos["org/repo"].files["m-Q4_K_M.gguf"] = NEWER
    new = pulled(hubbed, "hf:org/repo:Q4_K_M")
    assert (new["current"], new["blob"]) == (False, f"sha256:{hex_of(NEWER)}")
    assert os.path.exists(old["path"])
    assert hubbed.ask("store.sweep")["value"]["freed_bytes"] >= len(CONTENT)
    assert not os.path.exists(old["path"])
    assert os.path.exists(new["path"])


def test_a_digest_wins_over_what_the_address_has_now(daemon: RealDaemon) -> None:
    now = [CONTENT]
    with Server(lambda asked: file_reply(asked, now[0])) as server:
        address = f"{server.url}/m.gguf"
        pulled(daemon, address)
        now[0] = NEWER
        pinned = pulled(daemon, address, sha256=hex_of(CONTENT))
        assert (pinned["current"], pinned["blob"]) == (True, f"sha256:{hex_of(CONTENT)}")
        assert pulled(daemon, address)["blob"] == f"sha256:{hex_of(NEWER)}"
        asked = len(server.asked)
        back = pulled(daemon, address, sha256=hex_of(CONTENT))
        assert (back["reused"], back["blob"]) == (True, f"sha256:{hex_of(CONTENT)}")
        assert len(server.asked) == asked, "the bytes are here, so nobody is asked"
    assert manifest(daemon, "m")["blob"] == f"sha256:{hex_of(CONTENT)}"


def test_a_digest_wins_over_what_the_source_says(daemon: RealDaemon) -> None:
    def route(asked: Asked) -> Reply:
        return file_reply(asked, CONTENT, {"X-Checksum-Sha256": hex_of(CONTENT)})

    with Server(route) as server:
        reply = failed(daemon, f"{server.url}/m.gguf", "digest_mismatch", sha256=hex_of(NEWER))
        assert f"sha256:{hex_of(NEWER)} is expected" in reply["message"]
        assert [asked.method for asked in server.asked] == ["HEAD"], "no byte of another file is fetched"


def test_who_gave_wrong_bytes_is_asked_again_when_it_has_others(daemon: RealDaemon) -> None:
    now = [NEWER]
    with Server(lambda asked: file_reply(asked, now[0])) as server:
        address, wanted = f"{server.url}/m.gguf", hex_of(CONTENT)
        failed(daemon, address, "digest_mismatch", sha256=wanted)
        daemon.kill()
        daemon.start()
        before = len(server.asked)
        failed(daemon, address, "digest_mismatch", sha256=wanted)
        assert {asked.method for asked in server.asked[before:]} == {"HEAD"}, "it has that version still"
        now[0] = CONTENT
        assert pulled(daemon, address, sha256=wanted)["blob"] == f"sha256:{wanted}"
        assert pulled(daemon, address)["current"] is True


def test_what_replaced_a_file_meanwhile_is_not_taken_for_it(daemon: RealDaemon) -> None:
    old, new = gguf(16 * MIB, 103), gguf(16 * MIB, 104)
    now, ranges = [old], []

    def replaced_after_the_first_range(asked: Asked) -> Reply:
        if asked.method == "GET":
            ranges.append(asked)
            now[0] = old if len(ranges) == 1 else new
        return file_reply(asked, now[0])

    with Server(replaced_after_the_first_range) as server:
        assert pulled(daemon, f"{server.url}/m.gguf")["blob"] == f"sha256:{hex_of(new)}"
        server.route = lambda asked: file_reply(asked, old)
        assert pulled(daemon, f"{server.url}/m.gguf")["blob"] == f"sha256:{hex_of(old)}", "it was taken back"


def test_what_another_source_has_is_not_taken_for_it(stopped: RealDaemon) -> None:
    def only_described(asked: Asked) -> Reply:
        return file_reply(asked, NEWER) if asked.method == "HEAD" else Reply(404)

    same_size = gguf(len(NEWER), 105)
    with Server(only_described) as mirror, Server(lambda asked: file_reply(asked, same_size)) as origin:
        stopped.configure(f'[[mirror]]\nmatch = "{origin.url}/"\nurl = "{mirror.url}/"\n')
        stopped.start()
        assert pulled(stopped, f"{origin.url}/m.gguf")["blob"] == f"sha256:{hex_of(same_size)}"
        mirror.route = lambda asked: file_reply(asked, NEWER)
        assert pulled(stopped, f"{origin.url}/m.gguf")["blob"] == f"sha256:{hex_of(NEWER)}"
