"""Sites: other roots that are only read. Their models resolve, list and copy; a site that vanishes takes nothing else
with it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rigs.command import COMMAND
from rigs.pull_rig import gguf, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import nginx, nginx_path
from rigs.site_store import SiteStore, listed, value
from rigs.slow_disk import DaemonOnSlowDisk
from rigs.waiting import wait_until

CONTENT = gguf(5_000_000)


@pytest.fixture
def site(room: Path) -> SiteStore:
    return SiteStore(room / "site")


@pytest.fixture
def served(stopped: RealDaemon, site: SiteStore) -> RealDaemon:
    """A daemon with one site, which has a model of one file and one of two."""
    site.put("theirs:8b", CONTENT)
    site.put("parts", CONTENT, gguf(300_000, 3))
    stopped.configure(f'[[store.site]]\npath = "{site.root}"\n')
    return stopped.start()


def test_models_of_a_site_resolve_list_and_show_where_they_are(served: RealDaemon, site: SiteStore) -> None:
    before = site.picture()
    resolved = value(served.ask("model.resolve", name="theirs:8b"))
    assert resolved["path"] == str(site.blob(hashlib.sha256(CONTENT).hexdigest()))
    assert (resolved["site"], resolved["state"]) == (str(site.root), "ready")
    assert value(served.ask("model.resolve", name="THEIRS:8B"))["path"] == resolved["path"]
    several = value(served.ask("model.resolve", name="parts"))["path"]
    assert sorted(os.listdir(several)) == ["part-0.gguf", "part-1.gguf"]
    assert Path(several, "part-0.gguf").read_bytes() == CONTENT
    assert several.startswith(served.root)
    assert value(served.ask("model.resolve", name="parts"))["path"] == several
    assert listed(served) == {"theirs:8b": "ready", "parts": "ready"}
    assert listed(served, filter="name~theirs") == {"theirs:8b": "ready"}
    shown = value(served.ask("model.show", name="theirs:8b"))
    assert (shown["site"], shown["license"], shown["manifest"]["produced_by"]) == (str(site.root), "mit", "other/1")
    assert site.picture() == before
    done = subprocess.run([*COMMAND, "list"], env=served.environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].split()[-1] == "SITE"
    assert done.stdout.count(str(site.root)) == 2


def test_the_own_root_comes_first_and_then_the_sites_in_their_order(stopped: RealDaemon, room: Path) -> None:
    first, second = SiteStore(room / "first"), SiteStore(room / "second")
    first.put("both", b"GGUF first")
    second.put("both", b"GGUF second")
    second.put("mine", b"GGUF theirs")
    stopped.configure("".join(f'[[store.site]]\npath = "{site.root}"\n' for site in (first, second)))
    stopped.start()
    added = value(stopped.ask("model.add", path=stopped.file("m.gguf", b"GGUF mine"), name="mine"))
    assert value(stopped.ask("model.resolve", name="mine"))["path"] == added["path"]
    assert Path(value(stopped.ask("model.resolve", name="both"))["path"]).read_bytes() == b"GGUF first"
    models = value(stopped.ask("model.list"))["models"]
    assert [(model["name"], model.get("site")) for model in models] == [("both", str(first.root)), ("mine", None)]


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("model.remove", {"name": "theirs:8b"}),
        ("model.move", {"source": "theirs:8b", "destination": "x"}),
        ("model.pin", {"name": "theirs:8b"}),
        ("model.verify", {"names": ["theirs:8b"]}),
        ("model.repair", {"names": ["theirs:8b"]}),
    ],
)
def test_nothing_of_a_site_is_changed(served: RealDaemon, site: SiteStore, op: str, fields: dict[str, Any]) -> None:
    assert "theirs:8b" in listed(served)
    before = site.picture()
    refused = served.ask(op, **fields)
    assert (refused["code"], str(site.root) in refused["message"]) == ("unsupported", True)
    assert "modelctl cp theirs:8b" in refused["hint"]
    assert site.picture() == before


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", ["theirs:8b", "parts"])
def test_a_copy_is_a_model_of_the_own_store(served: RealDaemon, site: SiteStore, name: str, link: bool) -> None:
    before = site.picture()
    plan = value(served.ask("model.copy", source=name, destination="own", dry_run=True))
    assert {step["action"] for step in plan["plan"]} == {"copy", "write"}
    copied = value(served.ask("model.copy", source=name, destination="own", link=link))
    assert copied["name"] == "own"
    shown = value(served.ask("model.show", name="own"))
    assert (shown.get("site"), shown["state"], shown["source"]["repo"]) == (None, "ready", "org/repo")
    assert shown["owner"] == os.getuid()
    if not link:
        assert site.picture() == before
    same = [os.stat(site.blob(blob.removeprefix("sha256:"))).st_ino for blob in copied["blobs"] or [copied["blob"]]]
    own = [
        os.stat(os.path.join(served.root, "blobs/sha256", digest[:2], digest, "data")).st_ino
        for digest in (blob.removeprefix("sha256:") for blob in copied["blobs"] or [copied["blob"]])
    ]
    assert (same == own) is link
    shutil.rmtree(site.root)
    assert value(served.ask("model.resolve", name="own"))["path"].startswith(served.root)
    assert value(served.ask("model.verify", names=["own"]))["ok"]


def test_a_copy_under_the_name_that_it_has_at_the_site_comes_first_from_then_on(served: RealDaemon) -> None:
    assert "site" in value(served.ask("model.resolve", name="theirs:8b"))
    value(served.ask("model.copy", source="theirs:8b", destination="theirs:8b"))
    assert "site" not in value(served.ask("model.resolve", name="theirs:8b"))
    assert served.ask("model.copy", source="parts", destination="theirs:8b")["code"] == "already_exists"


def test_a_copy_of_bytes_that_are_not_those_of_their_digest_is_refused(served: RealDaemon, site: SiteStore) -> None:
    data = site.blob(hashlib.sha256(CONTENT).hexdigest())
    data.chmod(0o644)
    data.write_bytes(b"x" * len(CONTENT))
    refused = served.ask("model.copy", source="theirs:8b", destination="own")
    assert (refused["code"], str(data) in refused["message"]) == ("corrupt", True)
    assert listed(served, filter="name=own") == {}
    assert not os.path.exists(os.path.join(served.root, "blobs/sha256", data.parts[-3], data.parts[-2], "data"))


def test_a_blob_that_changes_at_the_site_is_verified_before_it_is_given_out(
    served: RealDaemon, site: SiteStore
) -> None:
    data = site.blob(hashlib.sha256(CONTENT).hexdigest())
    assert value(served.ask("model.resolve", name="theirs:8b"))["path"] == str(data)
    data.chmod(0o644)
    os.utime(data)
    assert value(served.ask("model.resolve", name="theirs:8b"))["path"] == str(data), "touched, and the same bytes"
    data.write_bytes(b"x" * len(CONTENT))
    for _ in range(2):
        assert served.ask("model.resolve", name="theirs:8b")["code"] == "corrupt"
    assert data.exists()
    data.write_bytes(CONTENT)
    assert value(served.ask("model.resolve", name="theirs:8b"))["path"] == str(data)


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_blob_that_a_site_has_is_not_downloaded(served: RealDaemon, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx") as web:
        address = put(web, "m.gguf", CONTENT)
        digest = hashlib.sha256(CONTENT).hexdigest()
        before = sent(web)
        value(served.ask("model.pull", ref=address, name="pulled", sha256=digest))
        assert sent(web) - before < 100_000
        shown = value(served.ask("model.show", name="pulled"))
        assert (shown["state"], shown.get("site")) == ("ready", None)
        assert any("/site/" in (outcome.get("source") or "") for outcome in shown["history"])


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_bad_blob_of_a_site_costs_a_download_and_nothing_else(
    served: RealDaemon, site: SiteStore, tmp_path: Path
) -> None:
    data = site.blob(hashlib.sha256(CONTENT).hexdigest())
    data.chmod(0o644)
    data.write_bytes(b"x" * len(CONTENT))
    with nginx(tmp_path / "nginx") as web:
        address = put(web, "m.gguf", CONTENT)
        value(served.ask("model.pull", ref=address, name="pulled", sha256=hashlib.sha256(CONTENT).hexdigest()))
        assert Path(value(served.ask("model.resolve", name="pulled"))["path"]).read_bytes() == CONTENT
        assert os.listdir(os.path.join(served.root, "locks", "quarantine")) == []


def test_a_site_that_vanishes_is_unavailable_and_back(served: RealDaemon, site: SiteStore) -> None:
    value(served.ask("model.add", path=served.file("own.gguf", b"GGUF own"), name="own"))
    value(served.ask("model.copy", source="theirs:8b", destination="copy"))
    before = site.picture()
    assert set(listed(served).values()) == {"ready"}
    away = site.root.with_name("away")
    site.root.rename(away)
    models = {model["name"]: model for model in value(served.ask("model.list"))["models"]}
    assert {name: model["state"] for name, model in models.items()} == {
        "own": "ready",
        "copy": "ready",
        "theirs:8b": "unavailable",
        "parts": "unavailable",
    }
    assert str(site.root) in models["parts"]["reason"]
    assert "path" not in models["parts"]
    refused = served.ask("model.resolve", name="theirs:8b")
    assert (refused["code"], refused["retryable"]) == ("source_unavailable", True)
    assert str(site.root) in refused["message"]
    assert served.ask("model.show", name="parts")["code"] == "source_unavailable"
    assert served.ask("model.copy", source="parts", destination="x")["code"] == "source_unavailable"
    unknown = served.ask("model.resolve", name="nobody")
    assert (unknown["code"], str(site.root) in unknown["hint"]) == ("not_found", True)
    value(served.ask("store.sweep", grace_s=0))
    assert value(served.ask("model.verify", all=True))["ok"]
    away.rename(site.root)
    assert set(listed(served).values()) == {"ready"}
    assert value(served.ask("model.resolve", name="theirs:8b"))["site"] == str(site.root)
    assert Path(value(served.ask("model.resolve", name="parts"))["path"], "part-0.gguf").read_bytes() == CONTENT
    assert site.picture() == before


def test_a_site_that_hangs_keeps_no_look_at_the_own_store_waiting(room: Path, site: SiteStore) -> None:
    site.put("theirs", CONTENT)
    daemon = DaemonOnSlowDisk(str(room), "site")
    daemon.configure(f'[[store.site]]\npath = "{site.root}"\n')
    try:
        daemon.start()
        value(daemon.ask("model.add", path=daemon.file("own.gguf", b"GGUF own"), name="own"))
        assert listed(daemon) == {"own": "ready", "theirs": "ready"}
        with daemon.slow(60_000), ExitStack() as stack:
            asking = [stack.enter_context(daemon.connect()) for _ in range(12)]  # more than the site has threads
            for number, wire in enumerate(asking):
                wire.request("model.resolve", name=f"theirs-{number}" if number else "theirs", id="1")
            listing = stack.enter_context(daemon.connect())
            listing.request("model.list", id="1")
            assert value(daemon.ask("model.resolve", name="own"))["name"] == "own"
            assert "does not answer" in asking[0].terminal("1")["message"]
            assert {wire.terminal("1")["code"] for wire in asking[1:]} == {"not_found"}
            models = value(listing.terminal("1"))["models"]
            assert {model["name"]: model["state"] for model in models} == {
                "own": "ready",
                "theirs": "unavailable",
            }
    finally:
        daemon.close()


def test_a_site_that_is_not_there_at_the_start_comes_later(stopped: RealDaemon, site: SiteStore) -> None:
    stopped.configure(f'[[store.site]]\npath = "{site.root}"\n')
    stopped.start()
    assert listed(stopped) == {}
    site.put("theirs", CONTENT)
    assert listed(stopped) == {"theirs": "ready"}
    assert stopped.ask("model.resolve", name="theirs")["type"] == "result"


def test_a_model_of_a_site_can_be_leased_and_run(served: RealDaemon, site: SiteStore) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "theirs:8b", "--", "cat", "{path}"], env=served.environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == CONTENT
    with served.connect() as wire:
        leased = wire.ask("lease.acquire", name="parts", purpose="test")["value"]
        assert leased["path"].startswith(served.root)
        assert listed(served)["parts"] == "loaded"
    wait_until(lambda: listed(served)["parts"] == "ready", what="the end of the lease")


def test_the_store_itself_is_no_site_of_its_own(stopped: RealDaemon) -> None:
    stopped.configure(f'[[store.site]]\npath = "{stopped.root}"\n')
    assert not stopped.spawn().startswith("READY")
    assert stopped.wait() == 2
    assert "which is the store itself" in stopped.log()
    stopped.configure('[[store.site]]\npath = "relative"\n')
    assert not stopped.spawn().startswith("READY")
    assert stopped.wait() == 2
    assert "expected an absolute path" in stopped.log()


def test_usage_and_sweep_count_the_trees_of_sites(served: RealDaemon) -> None:
    value(served.ask("model.resolve", name="parts"))
    usage = value(served.ask("store.usage"))
    shown = subprocess.run(["du", "-s", "-B1", served.root], capture_output=True, text=True, check=True).stdout
    assert abs(sum(usage["disk"].values()) - int(shown.split()[0])) <= 16 * 1024
    swept = value(served.ask("store.sweep", grace_s=0))
    assert not any("sites" in note for note in swept["notes"])
