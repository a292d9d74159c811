"""Room for new models: what would have to go is shown with its reasons, and goes by itself where that is configured."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modelwire import exits
from rigs.hostile_server import Hostile, slowly
from rigs.pull_rig import MIB, ctl, gguf
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, needs_root
from rigs.waiting import wait_until

pytestmark = pytest.mark.skipif(nginx_path() is None, reason="needs nginx")

SIZE = 4 * MIB
LIMIT = 5 * SIZE + MIB
"""Five models fit."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def daemon(stopped: RealDaemon) -> RealDaemon:
    """The grace period is over at once."""
    stopped.environ.update(MODELD_STORE_GRACE="0s", MODELD_STORE_MAX_BYTES=str(LIMIT), MODELD_STORE_MIN_FREE="0")
    return stopped


def pull(daemon: RealDaemon, web: Nginx, name: str, **more: object) -> dict[str, Any]:
    content = gguf(SIZE, ord(name[0]))
    (web.files / f"{name}.gguf").write_bytes(content)
    reply = daemon.ask("model.pull", ref=f"{web.plain}/{name}.gguf", name=name, **more)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def use(daemon: RealDaemon, *names: str) -> None:
    for name in names:
        assert daemon.ask("model.resolve", name=name)["type"] == "result"
        time.sleep(0.005)  # two uses in one millisecond have no order


def plan(daemon: RealDaemon, size: int) -> dict[str, Any]:
    value: dict[str, Any] = daemon.ask("store.usage", plan_bytes=size)["value"]["plan"]
    return value


def names(daemon: RealDaemon) -> set[str]:
    return {model["name"] for model in daemon.ask("model.list")["value"]["models"]}


def evicted(found: dict[str, Any]) -> list[str]:
    return [each["name"] for each in found["evict"]]


def test_the_least_recently_used_go_first_and_each_that_stays_has_its_reason(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    for name in ("a", "b", "c", "d"):
        pull(daemon, web, name)
    daemon.ask("model.add", path=daemon.file("own.gguf", gguf(SIZE, 1)), name="own")
    use(daemon, "own", "c", "b", "a", "d")
    daemon.ask("model.pin", name="b")
    (web.files / "c.gguf").unlink()
    with daemon.connect() as wire:
        lease = wire.ask("lease.acquire", name="a", purpose="a test")["value"]
        found = plan(daemon, 4 * SIZE)
        assert (evicted(found), found["enough"]) == (["d"], False)
        stays = {each["name"]: each["reason"] for each in found["stay"]}
        assert stays.pop("a").startswith("it is held by uid 0")
        wire.ask("lease.release", lease=lease["lease"])
    assert stays == {
        "own": "no source of its bytes is known: it was added from this machine, or by another tool",
        "c": stays["c"],
        "b": "it is pinned",
    }
    assert "its source does not give it" in stays["c"]
    use(daemon, "d")
    found = plan(daemon, SIZE)
    assert evicted(found) == ["a"], "it has been used before d now"
    assert found["evict"][0]["source"] == f"{web.plain}/a.gguf"
    assert found["evict"][0]["frees_bytes"] == found["frees_bytes"] == SIZE
    found = plan(daemon, 4 * SIZE)
    assert (evicted(found), found["enough"]) == (["a", "d"], False)
    assert names(daemon) == {"own", "a", "b", "c", "d"}, "a plan removes nothing"


def test_other_bytes_under_the_same_address_are_not_those_of_the_model(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    pull(daemon, web, "a")
    (web.files / "a.gguf").write_bytes(gguf(SIZE - 1, 7))
    (kept,) = plan(daemon, LIMIT)["stay"]
    assert kept["reason"] == "its source has other bytes under a.gguf now"


def test_a_source_that_says_nothing_of_its_bytes_is_not_counted_on(daemon: RealDaemon) -> None:
    daemon.start()
    content, chunked = gguf(SIZE, 7), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Hostile(lambda _: [chunked, b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE, content)]) as web:
        reply = daemon.ask("model.pull", ref=f"{web.url}/a.gguf", name="a", sha256=sha256(content).hexdigest())
        assert reply["type"] == "result", reply
        (kept,) = plan(daemon, LIMIT)["stay"]
    assert kept["reason"] == "its source says neither digest nor size of a.gguf, so it may have other bytes"


def test_what_shares_its_bytes_with_a_model_that_stays_frees_nothing_and_stays(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    pull(daemon, web, "a")
    daemon.ask("model.copy", source="a", destination="again")
    pull(daemon, web, "b")
    use(daemon, "a", "b", "again")
    daemon.ask("model.pin", name="again")
    assert evicted(plan(daemon, LIMIT)) == ["b"]
    daemon.ask("model.unpin", name="again")
    both = plan(daemon, LIMIT)
    assert [(each["name"], each["frees_bytes"]) for each in both["evict"]] == [("a", 0), ("b", SIZE), ("again", SIZE)]


def test_a_model_that_was_used_within_the_grace_period_stays(daemon: RealDaemon, web: Nginx) -> None:
    daemon.environ["MODELD_STORE_GRACE"] = "1h"
    daemon.start()
    pull(daemon, web, "a")
    (kept,) = plan(daemon, LIMIT)["stay"]
    assert "less than the grace period" in kept["reason"]


def test_last_uses_survive_a_restart(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    for name in ("a", "b"):
        pull(daemon, web, name)
    use(daemon, "b", "a")
    daemon.terminate()
    daemon.start()
    assert evicted(plan(daemon, 4 * SIZE)) == ["b"]


def test_a_refusal_names_what_could_go(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    for name in ("a", "b", "c", "d", "e"):
        pull(daemon, web, name)
    use(daemon, "b", "a")
    done = ctl(daemon, "add", daemon.file("f.gguf", gguf(SIZE, 2)), "--name", "f")
    assert done.returncode == exits.SPACE
    assert "Remove models that can be fetched again: c." in done.stderr
    assert "modelctl usage --plan" in done.stderr
    assert names(daemon) == {"a", "b", "c", "d", "e"}
    shown = ctl(daemon, "usage", "--plan", "4MiB")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split()[:2] == ["c", "4.19"]
    assert "1 model would free 4.19 MB" in shown.stderr


def test_what_takes_no_model_is_named_too(daemon: RealDaemon, web: Nginx) -> None:
    daemon.environ |= {"MODELD_STORE_GRACE": "1h"}
    daemon.start()
    pull(daemon, web, "a")
    daemon.ask("model.remove", name="a")
    path = daemon.file("b.gguf", gguf(SIZE, 9))
    assert daemon.ask("model.add", path=path, sha256="0" * 64)["code"] == "digest_mismatch"
    assert plan(daemon, LIMIT)["notes"] == [
        "`modelctl quarantine rm` frees 4.19 MB of bad bytes",
        "`modelctl sweep --grace 0` frees 4.19 MB that lost their names lately",
    ]
    done = ctl(daemon, "add", daemon.file("big.gguf", gguf(LIMIT, 3)))
    assert "`modelctl quarantine rm` frees 4.19 MB of bad bytes." in done.stderr


@pytest.mark.parametrize("how", ["add", "pull"])
def test_a_job_that_needs_room_gets_it_where_that_is_configured(daemon: RealDaemon, web: Nginx, how: str) -> None:
    daemon.environ["MODELD_STORE_EVICT"] = "auto"
    daemon.start()
    paths = {name: pull(daemon, web, name)["path"] for name in ("a", "b", "c", "d", "e")}
    use(daemon, "e", "b", "a")
    daemon.ask("model.pin", name="c")
    if how == "pull":
        pull(daemon, web, "f")
    else:
        path = daemon.file("f.gguf", gguf(SIZE, 2))
        assert daemon.ask("model.add", path=path, name="f")["type"] == "result"
    assert names(daemon) == {"a", "b", "c", "e", "f"}
    assert [name for name, path in paths.items() if not os.path.exists(path)] == ["d"]
    (event,) = [event for event in daemon.activity() if event["event"] == "model.evicted"]
    assert (event["model"], event["freed_bytes"]) == ("d", SIZE)


def test_a_job_that_waits_for_silent_sources_ends_when_it_is_cancelled(daemon: RealDaemon, web: Nginx) -> None:
    daemon.start()
    for name in ("a", "b", "c", "d", "e"):
        pull(daemon, web, name)
    daemon.ask("model.remove", name="a")
    silent = Hostile(lambda _: slowly(silent.pause, b"HTTP/1.1 200 OK\r\n", b"X-More: of it\r\n"))
    with silent, daemon.connect() as wire:
        manifest = Path(daemon.root, "manifests", "b.json")
        manifest.write_text(manifest.read_text().replace(web.plain, silent.url))
        for name in ("c", "d", "e"):
            (web.files / f"{name}.gguf").unlink()
        wire.request("model.add", path=daemon.file("big.gguf", gguf(LIMIT, 3)), id="add")
        wait_until(lambda: silent.asked, what="the silent source is asked")
        wire.request("cancel", target="add", id="cancel")
        assert wire.terminal("add")["code"] == "cancelled", "and not refused once the source has had its time"


def test_nothing_goes_when_all_of_it_would_be_too_little(daemon: RealDaemon, web: Nginx) -> None:
    daemon.environ["MODELD_STORE_EVICT"] = "auto"
    daemon.start()
    for name in ("a", "b", "c"):
        pull(daemon, web, name)
    daemon.ask("model.pin", name="a")
    reply = daemon.ask("model.add", path=daemon.file("big.gguf", gguf(5 * SIZE, 3)), name="big")
    assert reply["code"] == "quota_exceeded"
    assert reply["details"]["plan_enough"] is False
    assert names(daemon) == {"a", "b", "c"}


def test_another_model_goes_for_one_that_is_used_while_its_source_is_asked(daemon: RealDaemon, web: Nginx) -> None:
    daemon.environ["MODELD_STORE_EVICT"] = "auto"
    daemon.start()
    for name in ("a", "b", "c", "d", "e"):
        pull(daemon, web, name)
    used = threading.Event()

    def answer(_: object) -> Iterator[bytes]:
        used.wait(4)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % SIZE

    with Hostile(answer) as slow, daemon.connect() as wire:
        manifest, before = Path(daemon.root, "manifests", "a.json"), os.stat(f"{daemon.root}/manifests/a.json")
        manifest.write_text(manifest.read_text().replace(web.plain, slow.url))
        os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
        wire.request("model.add", path=daemon.file("f.gguf", gguf(SIZE, 2)), name="f", id="add")
        wait_until(lambda: slow.asked, what="the source of the first victim is asked")
        use(daemon, "a")
        used.set()
        assert wire.terminal("add")["type"] == "result"
    assert names(daemon) == {"a", "c", "d", "e", "f"}


@needs_root
def test_removals_that_make_no_room_come_to_an_end(daemon: RealDaemon, web: Nginx) -> None:
    """As on a filesystem where other files share the bytes: here they have a second name."""
    disk = os.path.join(daemon.room, "disk")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={9 * SIZE}", "tmpfs", disk], check=True)
    del daemon.environ["MODELD_STORE_MAX_BYTES"]
    daemon.environ |= {"MODELS_HOME": f"{disk}/models", "MODELD_STORE_EVICT": "auto"}
    try:
        daemon.start()
        for name in "abcdef":
            os.link(pull(daemon, web, name)["path"], f"{disk}/{name}")
            assert daemon.ask("model.resolve", name=name)["type"] == "result"
        reply = daemon.ask("model.add", path=daemon.file("big.gguf", gguf(2 * SIZE, 3)), name="big")
        assert reply["code"] == "no_space"
        assert len(names(daemon)) == 3, "six minus the tries of one job"
    finally:
        daemon.close()
        subprocess.run(["umount", disk], check=True)


@needs_root
@pytest.mark.parametrize(("size", "goes"), [(SIZE, set("ab")), (2 * SIZE, set("abcd")), (3 * SIZE, set())])
def test_what_goes_for_a_job_of_another_user_is_enough_for_the_share_of_that_user(
    shared: RealDaemon, web: Nginx, size: int, goes: set[str]
) -> None:
    shared.environ |= {
        "MODELD_STORE_GRACE": "0s",
        "MODELD_STORE_MAX_BYTES": str(LIMIT),
        "MODELD_STORE_MIN_FREE": "0",
        "MODELD_STORE_EVICT": "auto",
    }
    shared.configure(f'{ALLOW_ROOT}[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n')
    shared.start()
    for name in ("a", "b", "c", "d", "e"):
        pull(shared, web, name)
    with connect_as(shared.socket, FOREIGN_UID) as wire:
        wire.read()
        reply = wire.ask("model.add", **wire.hand_over(shared.file("f.gguf", gguf(size, 2))), name="f")
    assert set("abcde") - names(shared) == goes
    assert reply["type"] == ("result" if goes else "error"), reply
