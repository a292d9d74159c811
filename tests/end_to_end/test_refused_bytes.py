"""Wrong bytes for the name of a model that is there: it stays what it was, and tells afterwards what was offered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.pull_rig import MIB, ctl, failed, gguf, hex_of, pulled, put
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

GOOD, BAD = gguf(2 * MIB, 61), gguf(2 * MIB + 1, 62)
"""Of two sizes: bytes that are here under the expected digest answer for a file of their size."""

WANTED = "0" * 64


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


def refused(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    history = daemon.ask("model.show", name=name)["value"].get("history", [])
    return [past for past in history if past["outcome"] == "mismatch"]


def test_an_add_is_told_by_the_model_that_it_would_have_replaced(daemon: RealDaemon) -> None:
    good, bad = daemon.file("good.gguf", GOOD), daemon.file("bad.gguf", BAD)
    added = daemon.ask("model.add", path=good, name="a")["value"]
    reply = daemon.ask("model.add", path=bad, name="a", sha256=WANTED, replace=True)
    assert reply["code"] == "digest_mismatch"
    (past,) = refused(daemon, "a")
    assert (past["expected"], past["actual"]) == (f"sha256:{WANTED}", f"sha256:{hex_of(BAD)}")
    assert (past["peer"], past["source"]) == (os.getuid(), bad)
    assert past["job"] == daemon.ask("job.list", state="failed")["value"]["jobs"][0]["id"]
    assert past["time"].endswith("Z")
    assert past["tool"].startswith("modeld/")
    assert daemon.ask("model.show", name="a")["value"]["blob"] == added["blob"]
    shown = ctl(daemon, "show", "a").stdout.splitlines()
    heading = next(line for line in shown if line.startswith("WHEN"))
    (line,) = [line for line in shown if "mismatch" in line]
    assert heading.split() == ["WHEN", "OUTCOME", "SHA-256", "EXPECTED", "BY", "FROM", "WITH"]
    assert line[heading.index("SHA-256") :].split()[:5] == [hex_of(BAD)[:12], WANTED[:12], "uid", str(os.getuid()), bad]


@needs_nginx
def test_a_pull_is_told_with_where_the_bytes_came_from(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", GOOD)
    pulled(daemon, address)
    put(web, "a.gguf", BAD)
    os.utime(web.files / "a.gguf", (1, 1))  # whatever the clock's grain: another version has another date
    failed(daemon, address, "digest_mismatch", sha256=WANTED)
    (past,) = refused(daemon, "a")
    assert (past["expected"], past["actual"]) == (f"sha256:{WANTED}", f"sha256:{hex_of(BAD)}")
    assert past["source"].startswith(address)
    failed(daemon, "a", "digest_mismatch", sha256=WANTED)
    assert [past["source"] for past in refused(daemon, "a")][1:] == ["a"]


def test_it_belongs_to_the_name_and_to_nothing_else(daemon: RealDaemon) -> None:
    good, bad = daemon.file("good.gguf", GOOD), daemon.file("bad.gguf", BAD)
    expected = hex_of(GOOD)
    assert daemon.ask("model.add", path=bad, name="nobody", sha256=expected)["code"] == "digest_mismatch"
    daemon.ask("model.add", path=good, name="other")
    daemon.ask("model.add", path=daemon.file("small.gguf", gguf(1000, 3)), name="a")
    assert daemon.ask("model.add", path=bad, name="a", sha256=expected, replace=True)["code"] == "digest_mismatch"
    seen = refused(daemon, "a")
    assert seen
    assert refused(daemon, "other") == [], "its blob is the one that was expected, and nothing is wrong with it"
    daemon.ask("model.move", source="a", destination="b")
    assert refused(daemon, "b") == seen
    daemon.kill()
    daemon.start()
    assert refused(daemon, "b") == seen
    daemon.ask("model.remove", name="b")
    daemon.ask("model.add", path=good, name="b")
    assert refused(daemon, "b") == []
