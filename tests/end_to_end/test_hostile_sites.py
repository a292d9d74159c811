"""Sites that are damaged, silent, lying or of somebody else: the own store serves on, and says what is the matter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from rigs.command import COMMAND
from rigs.pull_rig import gguf, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import nginx, nginx_path
from rigs.site_store import SiteStore, listed, site_tables, value
from rigs.slow_disk import DaemonOnSlowDisk
from rigs.waiting import wait_until

CONTENT = gguf(5_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(room: Path) -> SiteStore:
    return SiteStore(room / "site")


@pytest.fixture
def served(stopped: RealDaemon, site: SiteStore) -> RealDaemon:
    """A daemon with one site, which has a model of one file and one of two."""
    site.put("theirs:latest", CONTENT)
    site.put("parts", CONTENT, gguf(300_000, 3))
    stopped.configure(site_tables(site))
    return stopped.start()


# -- what a list and a look-up say


def test_an_own_model_of_another_tool_hides_that_of_a_site_from_the_first_list_on(
    served: RealDaemon, site: SiteStore
) -> None:
    assert set(listed(served)) == {"parts", "theirs:latest"}
    SiteStore(Path(served.root)).put("parts", b"GGUF own")
    models = value(served.ask("model.list"))["models"]
    assert [(model["name"], model.get("site")) for model in models] == [
        ("parts", None),
        ("theirs:latest", str(site.root)),
    ]


def test_a_damaged_manifest_of_the_own_store_is_not_hidden_by_a_model_of_a_site(
    served: RealDaemon, site: SiteStore
) -> None:
    Path(served.root, "manifests", "parts.json").write_text("{")
    found = value(served.ask("model.list"))
    assert [model["name"] for model in found["models"]] == ["theirs:latest"]
    assert len(found["damaged"]) == 1
    assert served.ask("model.resolve", name="parts")["code"] == "corrupt"


def test_a_manifest_of_another_version_does_not_make_its_site_seem_away(served: RealDaemon, site: SiteStore) -> None:
    newer = site.root / "manifests" / "newer.json"
    newer.write_text(json.dumps({"schema_version": 2, "blob": f"sha256:{DIGEST}", "size_bytes": 1}))
    damaged = site.root / "manifests" / "damaged.json"
    damaged.write_text("{")
    assert served.ask("model.resolve", name="newer")["code"] == "unsupported"
    assert served.ask("model.resolve", name="damaged")["code"] == "corrupt"
    found = value(served.ask("model.list"))
    assert {model["state"] for model in found["models"]} == {"ready"}
    assert [any(str(path) in text for text in found["damaged"]) for path in (newer, damaged)] == [True, True]


def test_the_default_tag_of_a_site_counts_for_refusals_too(served: RealDaemon, site: SiteStore) -> None:
    assert value(served.ask("model.resolve", name="theirs"))["name"] == "theirs:latest"
    assert served.ask("model.verify", names=["theirs"])["code"] == "unsupported"
    missing = served.ask("model.resolve", name="theirs", file="nothing.gguf")
    assert (missing["code"], "has no file" in missing["message"]) == ("not_found", True)
    site.root.rename(site.root.with_name("away"))
    assert served.ask("model.resolve", name="theirs")["code"] == "source_unavailable"


def test_refusals_name_the_site_before_anything_was_looked_up(served: RealDaemon, site: SiteStore) -> None:
    wait_until(
        lambda: served.ask("model.verify", names=["parts"])["code"] == "unsupported", what="the first look at the site"
    )


def test_a_pull_of_a_name_alone_finds_the_model_of_a_site(served: RealDaemon, site: SiteStore) -> None:
    pulled = value(served.ask("model.pull", ref="parts"))
    assert (pulled["reused"], pulled["path"]) == (True, value(served.ask("model.resolve", name="parts"))["path"])


def test_the_age_of_a_model_of_a_site_is_that_of_its_manifest(served: RealDaemon) -> None:
    assert set(listed(served, filter="used<1h")) == {"parts", "theirs:latest"}
    assert listed(served, filter="used>1h") == {}


def test_a_bad_model_of_a_site_is_repaired_by_its_own_daemon(served: RealDaemon, site: SiteStore) -> None:
    data = site.blob(DIGEST)
    assert set(listed(served).values()) == {"ready"}
    data.chmod(0o644)
    data.write_bytes(b"x" * len(CONTENT))
    refused = served.ask("model.resolve", name="theirs")
    assert refused["code"] == "corrupt"
    assert "modelctl repair" not in refused["hint"]
    assert str(site.root) in refused["hint"]


# -- what a site may be


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "directory that is a link"])
def test_what_is_no_regular_file_at_a_site_is_no_blob(
    served: RealDaemon, site: SiteStore, tmp_path: Path, kind: str
) -> None:
    data = site.blob(DIGEST)
    aside = tmp_path / "aside"
    data.rename(aside)
    if kind == "link":
        data.symlink_to(aside)
    elif kind == "pipe":
        os.mkfifo(data)
    elif kind == "directory":
        data.mkdir()
    else:
        data.parent.rmdir()
        data.parent.symlink_to(tmp_path / "nothing")
    assert served.ask("model.resolve", name="theirs")["code"] == "corrupt"
    assert served.ask("model.copy", source="theirs", destination="own")["code"] == "corrupt"
    with nginx(tmp_path / "nginx") as web:
        address = put(web, "m.gguf", CONTENT)
        value(served.ask("model.pull", ref=address, name="pulled", sha256=DIGEST))
        assert sent(web) >= len(CONTENT)
    assert Path(value(served.ask("model.resolve", name="pulled"))["path"]).read_bytes() == CONTENT


def test_trees_lead_to_a_site_also_when_the_roots_are_symbolic_links(stopped: RealDaemon, room: Path) -> None:
    """A relative link counts its steps from where the directory really is."""
    deep = room / "a" / "b" / "c"
    deep.mkdir(parents=True)
    Path(stopped.root).symlink_to(deep)
    site = SiteStore(room / "with a space")
    site.put("parts", CONTENT, gguf(300_000, 3))
    (room / "way").symlink_to(site.root)
    stopped.configure(f'[[store.site]]\npath = "{room}/way/"\n[[store.site]]\npath = "{room}/way"\n')
    stopped.start()
    tree = value(stopped.ask("model.resolve", name="parts"))["path"]
    assert Path(tree, "part-0.gguf").read_bytes() == CONTENT
    assert listed(stopped) == {"parts": "ready"}


def test_trees_of_models_that_a_site_has_no_more_are_swept(served: RealDaemon, site: SiteStore, room: Path) -> None:
    tree = Path(value(served.ask("model.resolve", name="parts"))["path"])
    with served.connect() as wire:
        assert wire.ask("lease.acquire", name="parts", purpose="test")["type"] == "result"
        value(served.ask("store.sweep", grace_s=0))
        assert tree.exists()
        (site.root / "manifests" / "parts.json").unlink()
        assert "parts" not in listed(served)
        value(served.ask("store.sweep", grace_s=0))
        assert tree.exists(), "a lease holds it"

    def swept() -> bool:
        value(served.ask("store.sweep", grace_s=0))
        return not tree.exists()

    wait_until(swept, what="the end of the tree")
    site.put("parts", CONTENT, gguf(300_000, 3))
    tree = Path(value(served.ask("model.resolve", name="parts"))["path"])
    away = site.root.with_name("away")
    site.root.rename(away)
    value(served.ask("store.sweep", grace_s=0))
    assert tree.exists(), "the site is away, and comes back"
    served.terminate()
    served.configure("")
    served.start()
    value(served.ask("store.sweep", grace_s=0))
    assert not tree.exists(), "the site is no site any more"


# -- sites that do not answer


def test_a_daemon_starts_and_stops_while_a_site_hangs(room: Path, site: SiteStore) -> None:
    site.put("theirs", CONTENT)
    daemon = DaemonOnSlowDisk(str(room), "site")
    daemon.configure(site_tables(site))
    try:
        with daemon.slow(600_000):
            daemon.start()
            value(daemon.ask("model.add", path=daemon.file("own.gguf", b"GGUF own"), name="own"))
            assert listed(daemon) == {"own": "ready"}
            assert daemon.terminate() == 0
    finally:
        daemon.close()


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_site_that_hangs_is_asked_once_and_not_for_each_file(room: Path, site: SiteStore, tmp_path: Path) -> None:
    site.put("theirs", CONTENT)
    daemon = DaemonOnSlowDisk(str(room), "site")
    daemon.configure(site_tables(site))
    try:
        daemon.start()
        assert listed(daemon) == {"theirs": "ready"}
        with nginx(tmp_path / "nginx") as web, daemon.slow(40_000):
            began = time.monotonic()
            for number in range(8):
                content = gguf(1000, number + 7)
                address = put(web, f"m{number}.gguf", content)
                digest = hashlib.sha256(content).hexdigest()
                value(daemon.ask("model.pull", ref=address, name=f"m{number}", sha256=digest))
            assert time.monotonic() - began < 30, "each file waited for the site"
            states = listed(daemon)
            assert (states["theirs"], states["m0"]) == ("unavailable", "ready")
    finally:
        daemon.close()


def test_a_site_that_answers_again_is_back_at_once(room: Path, site: SiteStore) -> None:
    site.put("theirs", CONTENT)
    daemon = DaemonOnSlowDisk(str(room), "site")
    daemon.configure(site_tables(site))
    try:
        daemon.start()
        assert listed(daemon) == {"theirs": "ready"}
        with daemon.slow(7_000):
            assert listed(daemon) == {"theirs": "unavailable"}
        wait_until(lambda: listed(daemon) == {"theirs": "ready"}, what="the site", seconds=20)
    finally:
        daemon.close()


def test_the_command_explains_a_model_of_a_site(served: RealDaemon, site: SiteStore) -> None:
    shown = subprocess.run(
        [*COMMAND, "show", "theirs"], env=served.environ, capture_output=True, text=True, check=True
    ).stdout
    assert str(site.root) in shown
    refused = subprocess.run(
        [*COMMAND, "rm", "parts"], env=served.environ, capture_output=True, text=True, check=False
    ).stderr
    assert "modelctl cp parts" in refused
