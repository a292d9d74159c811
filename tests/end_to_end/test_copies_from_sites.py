"""Copies of the models of sites into the own store, and the bytes that pulls and repairs take from sites: their rights
and limits, and what is left when they are stopped."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.pull_rig import gguf, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import nginx, nginx_path
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, stranger
from rigs.site_store import SiteStore, listed, site_tables, value
from rigs.waiting import wait_until

CONTENT = gguf(5_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SMALL = gguf(300_000, 3)


@pytest.fixture
def site(room: Path) -> SiteStore:
    return SiteStore(room / "site")


@pytest.fixture
def served(stopped: RealDaemon, site: SiteStore) -> RealDaemon:
    """A daemon with one site, which has a model of one file and one of two."""
    site.put("theirs:latest", CONTENT)
    site.put("parts", CONTENT, SMALL)
    stopped.configure(site_tables(site))
    return stopped.start()


@pytest.fixture
def halted(held: HeldDaemon, site: SiteStore) -> HeldDaemon:
    """The same, whose copies stand still for as long as it holds."""
    site.put("theirs:latest", CONTENT)
    site.put("parts", CONTENT, SMALL)
    held.configure(site_tables(site))
    held.start()
    return held


def staged(daemon: RealDaemon) -> list[str]:
    return os.listdir(os.path.join(daemon.root, ".modeld", "staging"))


def blobs(daemon: RealDaemon) -> set[str]:
    top = Path(daemon.root, "blobs", "sha256")
    return {path.parent.name for path in top.glob("*/*/data")}


def test_only_the_daemons_own_user_may_share_files_with_a_site(shared: RealDaemon) -> None:
    site = SiteStore(Path(shared.room, "site"))
    site.put("theirs", CONTENT)
    site.blob(DIGEST).chmod(0o644)
    before = site.picture()
    shared.configure(f'[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n' + ALLOW_ROOT + site_tables(site))
    daemon = shared.start()
    with stranger(daemon) as user:
        refused = user.ask("model.copy", source="theirs", destination="own", link=True)
        assert (refused["code"], "without --link" in refused["hint"]) == ("permission_denied", True)
        assert site.picture() == before
        copied = value(user.ask("model.copy", source="theirs", destination="own"))
        assert copied["name"] == "own"
    assert site.picture() == before
    assert value(daemon.ask("model.show", name="own"))["owner"] == FOREIGN_UID


def test_a_copy_is_refused_by_the_limits_of_its_user_before_a_byte_is_written(shared: RealDaemon) -> None:
    site = SiteStore(Path(shared.room, "site"))
    site.put("theirs", CONTENT)
    site.put("small", b"GGUF small")
    shared.configure(
        f'[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n[quota]\n"{FOREIGN_UID}" = "1MB"\n'
        "[limits]\nmodels_per_user = 1\n" + ALLOW_ROOT + site_tables(site)
    )
    daemon = shared.start()
    with stranger(daemon) as user:
        refused = user.ask("model.copy", source="theirs", destination="own")
        assert (refused["code"], refused["details"]["quota_bytes"]) == ("quota_exceeded", 1_000_000)
        value(user.ask("model.copy", source="small", destination="own"))
        refused = user.ask("model.copy", source="small", destination="second")
        assert (refused["code"], refused["details"]["limit"]) == ("quota_exceeded", 1)
    assert not os.path.exists(os.path.join(daemon.root, "blobs/sha256", DIGEST[:2], DIGEST))


def test_a_copy_does_not_stay_in_the_unfinished_share_of_its_user(shared: RealDaemon) -> None:
    site = SiteStore(Path(shared.room, "site"))
    site.put("theirs", CONTENT)
    shared.configure(f'[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n' + ALLOW_ROOT + site_tables(site))
    daemon = shared.start()
    with stranger(daemon) as user:
        value(user.ask("model.copy", source="theirs", destination="own"))
    daemon.terminate()
    with sqlite3.connect(os.path.join(daemon.root, ".modeld", "catalog.sqlite")) as catalog:
        assert catalog.execute("SELECT path FROM left_files").fetchall() == []


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_bad_bytes_of_one_site_leave_the_good_ones_of_the_next(stopped: RealDaemon, room: Path, tmp_path: Path) -> None:
    bad, good = SiteStore(room / "bad"), SiteStore(room / "good")
    for each in (bad, good):
        each.put("theirs", CONTENT)
    bad.blob(DIGEST).chmod(0o644)
    bad.blob(DIGEST).write_bytes(b"x" * len(CONTENT))
    stopped.configure(site_tables(bad, good))
    stopped.start()
    with nginx(tmp_path / "nginx") as web:
        address = put(web, "m.gguf", CONTENT)
        before = sent(web)
        value(stopped.ask("model.pull", ref=address, name="pulled", sha256=DIGEST))
        assert sent(web) - before < 100_000
    assert Path(value(stopped.ask("model.resolve", name="pulled"))["path"]).read_bytes() == CONTENT


def test_a_repair_takes_the_bytes_from_a_site(served: RealDaemon, site: SiteStore) -> None:
    value(served.ask("model.copy", source="theirs", destination="own"))
    data = Path(value(served.ask("model.resolve", name="own"))["path"])
    data.chmod(0o644)
    data.write_bytes(b"x" * len(CONTENT))
    assert served.ask("model.resolve", name="own")["code"] == "corrupt"
    value(served.ask("model.repair", names=["own"]))
    assert value(served.ask("model.show", name="own"))["state"] == "ready"
    assert data.read_bytes() == CONTENT


@pytest.mark.parametrize("link", [False, True])
def test_a_copy_that_is_cancelled_leaves_nothing(halted: HeldDaemon, site: SiteStore, link: bool) -> None:
    before = site.picture()
    with halted.connect() as wire:
        number = wire.request("model.copy", source="parts", destination="own", link=link)
        job = wire.until(number, "accepted")["job"]
        wait_until(lambda: staged(halted), what="the staged file")
        value(halted.ask("job.cancel", job=job))
        assert wire.terminal(number)["code"] == "cancelled"
    assert (staged(halted), blobs(halted)) == ([], set())
    assert "own" not in listed(halted)
    found = site.picture()
    assert {path: state[:2] + state[3:] for path, state in found.items()} == {
        path: state[:2] + state[3:] for path, state in before.items()
    }
    halted.release()
    value(halted.ask("model.copy", source="parts", destination="own", link=link))
    assert value(halted.ask("model.verify", names=["own"]))["ok"]


@pytest.mark.parametrize("link", [False, True])
def test_a_copy_survives_the_kill_of_the_daemon(halted: HeldDaemon, link: bool) -> None:
    with halted.connect() as wire:
        number = wire.request("model.copy", source="parts", destination="parts", link=link, on_disconnect="continue")
        wire.until(number, "accepted")
        wait_until(lambda: staged(halted), what="the staged file")
        halted.kill()
    halted.release()
    halted.start()
    wait_until(lambda: "site" not in value(halted.ask("model.resolve", name="parts")), what="the copy")
    wait_until(lambda: staged(halted) == [], what="the end of the staged file")
    assert value(halted.ask("model.verify", names=["parts"]))["ok"]


def test_copies_at_once_share_the_bytes(halted: HeldDaemon) -> None:
    destinations = ["one", "two", "one"]
    with ExitStack() as opened:
        wires = [opened.enter_context(halted.connect()) for _ in destinations]
        for wire, name in zip(wires, destinations, strict=True):
            wire.request("model.copy", source="parts", destination=name, id="copy")
        wait_until(lambda: staged(halted), what="the staged files")
        halted.release()
        made = [value(wire.terminal("copy")) for wire in wires]
    assert made[0] == made[2]
    assert staged(halted) == []
    assert value(halted.ask("model.verify", all=True))["ok"]
    assert blobs(halted) == {DIGEST, hashlib.sha256(SMALL).hexdigest()}


def test_a_site_that_vanishes_while_it_is_copied(halted: HeldDaemon, site: SiteStore) -> None:
    with halted.connect() as wire:
        number = wire.request("model.copy", source="parts", destination="own")
        wait_until(lambda: staged(halted), what="the staged file")
        site.root.rename(site.root.with_name("away"))
        halted.release()
        ended = wire.terminal(number)
    assert ended["code"] in ("source_unavailable", "source_not_found"), ended
    assert "own" not in listed(halted)
    assert staged(halted) == []
    site.root.with_name("away").rename(site.root)
    value(halted.ask("model.copy", source="parts", destination="own"))
    assert value(halted.ask("model.verify", names=["own"]))["ok"]


def test_a_link_to_another_filesystem_is_refused_and_changes_nothing(stopped: RealDaemon, elsewhere: Path) -> None:
    site = SiteStore(elsewhere / "site")
    site.put("theirs", CONTENT)
    site.blob(DIGEST).chmod(0o644)
    before = site.picture()
    stopped.configure(site_tables(site))
    stopped.start()
    refused = stopped.ask("model.copy", source="theirs", destination="own", link=True)
    assert (refused["code"], "filesystem" in refused["message"]) == ("unsupported", True)
    assert "without --link" in refused["hint"]
    assert site.picture() == before
    assert staged(stopped) == []
    value(stopped.ask("model.copy", source="theirs", destination="own"))


def test_a_link_to_the_file_of_another_user_is_checked_before_each_answer(served: RealDaemon, site: SiteStore) -> None:
    data = site.blob(DIGEST)
    os.chown(data, FOREIGN_UID, FOREIGN_UID)
    value(served.ask("model.copy", source="theirs", destination="own", link=True))
    assert data.stat().st_mode & 0o777 == 0o444
    value(served.ask("model.resolve", name="own"))
    data.chmod(0o644)
    data.write_bytes(b"x" * len(CONTENT))
    assert served.ask("model.resolve", name="own")["code"] == "corrupt"


def test_bytes_that_the_store_has_are_not_copied(served: RealDaemon) -> None:
    value(served.ask("model.add", path=served.file("m.gguf", CONTENT), name="m"))
    inode = os.stat(value(served.ask("model.resolve", name="m"))["path"]).st_ino
    value(served.ask("model.copy", source="theirs", destination="own", link=True))
    assert os.stat(value(served.ask("model.resolve", name="own"))["path"]).st_ino == inode


@pytest.mark.parametrize("link", [False, True])
def test_a_copy_that_would_pass_the_limit_of_the_store_is_refused_before_its_first_byte(
    stopped: RealDaemon, site: SiteStore, link: bool
) -> None:
    site.put("parts", SMALL, CONTENT)
    stopped.configure(f'[store]\nmax_bytes = "4MB"\n{site_tables(site)}')
    stopped.start()
    refused = stopped.ask("model.copy", source="parts", destination="own", link=link)
    assert refused["code"] == "quota_exceeded", refused
    assert (staged(stopped), blobs(stopped)) == ([], set())


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_copy_makes_room_as_a_pull_does(stopped: RealDaemon, site: SiteStore, tmp_path: Path) -> None:
    site.put("theirs", CONTENT)
    old = gguf(4_000_000, 5)
    stopped.configure(f'[store]\nmax_bytes = "8MB"\nevict = "auto"\ngrace = "0s"\n{site_tables(site)}')
    stopped.start()
    with nginx(tmp_path / "nginx") as web:
        value(stopped.ask("model.pull", ref=put(web, "old.gguf", old), name="old"))
        value(stopped.ask("model.copy", source="theirs", destination="own"))
    assert listed(stopped) == {"own": "ready", "theirs": "ready"}


def test_the_history_of_a_copy_says_where_its_bytes_are_from(served: RealDaemon, site: SiteStore) -> None:
    value(served.ask("model.copy", source="theirs", destination="own"))
    shown = value(served.ask("model.show", name="own"))
    added = [outcome for outcome in shown["history"] if outcome["outcome"] == "added"]
    assert [(outcome["source"], outcome["peer"]) for outcome in added] == [(str(site.blob(DIGEST)), os.getuid())]
    assert (shown["source"]["repo"], shown["produced_by"]) == ("org/repo", "other/1")
    assert shown["verified_at"] is not None


def test_the_progress_of_a_copy_never_goes_back(halted: HeldDaemon) -> None:
    seen: list[Any] = []
    halted.slow(0.2)
    with halted.connect() as wire:
        number = wire.request("model.copy", source="parts", destination="own")
        while (message := wire.read())["type"] != "result":
            assert message["type"] != "error", message
            if message["type"] == "progress" and message["id"] == number:
                seen.append(message["bytes_done"])
    assert seen == sorted(seen)
