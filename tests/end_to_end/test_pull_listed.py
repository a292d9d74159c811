"""A model that a pull brings is listed from the beginning, and no longer than the pull lives."""

from __future__ import annotations

import json

import pytest

from rigs.pull_rig import MIB, begun, ctl, gguf, hex_of
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Server, file_reply

CONTENT = gguf(4 * MIB, 31)
CRAWL = 200_000
"""Bytes a second: the whole file would take twenty."""


@pytest.mark.parametrize("wrong", [False, True], ids=["succeeds", "fails"])
def test_from_the_first_byte_to_the_end(daemon: RealDaemon, wrong: bool) -> None:
    expected = hex_of(b"other bytes") if wrong else hex_of(CONTENT)
    with Server(lambda asked: file_reply(asked, CONTENT)) as web, daemon.connect() as wire:
        number = wire.request("model.pull", ref=f"{web.url}/m.gguf", name="m", sha256=expected, max_rate=CRAWL)
        job = begun(wire, number, 1)
        (model,) = json.loads(ctl(daemon, "list", "--json").stdout)
        assert (model["state"], model["size_bytes"]) == ("downloading", len(CONTENT))
        assert 0 < model["progress"] < 1
        assert "downloading" in ctl(daemon, "list").stdout
        shown = json.loads(ctl(daemon, "show", "m", "--json").stdout)
        assert (shown["node"]["local_path"], shown["catalogue_state"]) == (None, "pending")
        assert 0 < shown["node"]["download_progress"] < 1
        assert f"job {job} is running" in ctl(daemon, "show", "m").stdout
        assert ctl(daemon, "path", "m").returncode == 3
        daemon.ask("job.configure", job=job, max_rate=0)
        assert wire.terminal(number)["type"] == ("error" if wrong else "result")
        found = json.loads(ctl(daemon, "list", "--json").stdout)
        assert [each["state"] for each in found] == ([] if wrong else ["ready"])
        if wrong:
            assert json.loads(ctl(daemon, "job", job, "--json").stdout)["error"]["message"]
