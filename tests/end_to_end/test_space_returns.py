"""The space of what is removed comes back: by itself when the grace period is over, or at once on request."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rigs.chaos_server import Chaos
from rigs.pull_rig import MIB, begun, ctl, downloads_open, gguf, hex_of, job_state, partials, pulled
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

CONTENT = gguf(12 * MIB + 5, 163)


def add(daemon: RealDaemon, name: str, content: bytes = b"GGUF weights") -> dict[str, Any]:
    reply = daemon.ask("model.add", path=daemon.file(f"{name}.gguf", content), name=name)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def status(daemon: RealDaemon) -> dict[str, Any]:
    value: dict[str, Any] = daemon.ask("daemon.status")["value"]["sweep"]
    return value


def swept(daemon: RealDaemon) -> list[dict[str, Any]]:
    return [event for event in daemon.activity() if event["event"] == "store.swept"]


def test_the_daemon_frees_what_was_removed_and_logs_it(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_STORE_GRACE"] = "2s"
    stopped.start()
    kept, gone = add(stopped, "kept", b"GGUF kept"), add(stopped, "gone")
    done = ctl(stopped, "rm", "gone")
    assert done.returncode == 0, done.stderr
    assert "the daemon frees 12 B in " in done.stderr
    assert "`modelctl sweep --grace 0` frees them now" in done.stderr
    assert status(stopped)["waiting"] == 1
    assert status(stopped)["next_at"]
    wait_until(lambda: not os.path.exists(gone["path"]), 60, "the blob to go")
    wait_until(lambda: swept(stopped), 30, "the event")
    (event,) = swept(stopped)
    assert (event["removed"], event["freed_bytes"]) == (1, 12)
    now = status(stopped)
    assert (now["waiting"], now["next_at"], now["last_freed_bytes"]) == (0, None, 12)
    assert "12 B freed" in ctl(stopped, "status").stdout
    assert os.path.exists(kept["path"])


def test_a_killed_daemon_frees_it_after_its_next_start(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_STORE_GRACE"] = "3s"
    stopped.start()
    gone = add(stopped, "gone")
    assert stopped.ask("model.remove", name="gone")["value"]["frees_bytes"] == 12
    stopped.kill()
    assert os.path.exists(gone["path"])
    stopped.start()
    wait_until(lambda: not os.path.exists(gone["path"]), 60, "the blob to go")


def test_without_the_setting_a_person_is_told_what_to_do(stopped: RealDaemon) -> None:
    stopped.environ.update(MODELD_STORE_GRACE="0s", MODELD_STORE_SWEEP="off")
    stopped.start()
    gone = add(stopped, "gone")
    done = ctl(stopped, "rm", "gone")
    assert "12 B stay on the disk until `modelctl sweep` frees them" in done.stderr
    assert "only on request" in ctl(stopped, "status").stdout
    assert os.path.exists(gone["path"])


def test_rm_now_frees_only_what_that_name_had_alone(stopped: RealDaemon) -> None:
    stopped.start()
    shared, alone = add(stopped, "shared", b"GGUF shared"), add(stopped, "alone")
    stopped.ask("model.copy", source="shared", destination="again")
    add(stopped, "before", b"GGUF before")
    assert stopped.ask("model.remove", name="before")["value"]["freed_bytes"] == 0
    before = stopped.ask("store.usage")["value"]["unnamed_bytes"]
    done = ctl(stopped, "rm", "--now", "--json", "alone", "shared")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["freed_bytes"], first["frees_bytes"], first["frees_at"]) == (12, 0, None)
    assert (second["freed_bytes"], second["blobs"]) == (0, [])
    assert not os.path.exists(alone["path"])
    assert os.path.exists(shared["path"])
    assert stopped.ask("store.usage")["value"]["unnamed_bytes"] == before, "what waits for its period waits on"
    job = stopped.ask("job.show", job=first["job"])["value"]
    stopped.kill()
    stopped.start()
    assert stopped.ask("job.show", job=first["job"])["value"]["value"] == job["value"]


# -- partial downloads


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_cancel_that_discards_removes_the_partial_of_that_job(
    stopped: RealDaemon, known: bool, restarted: bool
) -> None:
    """Also of a job that was paused before the daemon was started anew, and no other partial."""
    stopped.start()
    digest = {"sha256": hex_of(CONTENT)} if known else {}
    other = gguf(3 * MIB, 7)
    with Chaos(CONTENT, rate=2 * MIB) as chaos, Chaos(other, rate=MIB) as others, stopped.connect() as wire:
        first = wire.request("model.pull", ref=f"{chaos.url}/m.gguf", on_disconnect="continue", **digest)
        job = begun(wire, first, MIB)
        second = wire.request("model.pull", ref=f"{others.url}/o.gguf", on_disconnect="continue")
        other_job = begun(wire, second, MIB // 4)
        for each in (job, other_job):
            stopped.ask("job.pause", job=each)
            job_state(stopped, each, "paused")
        wait_until(lambda: not downloads_open(stopped), what="the downloads closed")
        assert len(partials(stopped)) == 2
        assert stopped.ask("store.sweep", partials=True, grace_s=0)["value"]["removed"] == 0, "open jobs need them"
        if restarted:
            assert stopped.terminate() == 0
            stopped.start()
            assert stopped.ask("store.sweep", partials=True, grace_s=0)["value"]["removed"] == 0
        done = ctl(stopped, "cancel", "--discard", job)
        assert done.returncode == 0, done.stderr
        assert "discarded" in done.stderr
        assert "nothing" not in done.stderr
        assert len(partials(stopped)) == 1
        again = stopped.ask("job.cancel", job=job, discard=True)["value"]
        assert (again["state"], again["discarded_bytes"]) == ("cancelled", 0)
        assert stopped.ask("job.cancel", job=other_job)["value"]["state"] == "cancelled"
        assert len(partials(stopped)) == 1
        late = stopped.ask("job.cancel", job=other_job, discard=True)["value"]
        assert late["discarded_bytes"] > 0
        assert partials(stopped) == []


def test_a_cancel_that_discards_leaves_what_another_job_downloads(stopped: RealDaemon) -> None:
    stopped.start()
    with Chaos(CONTENT, rate=4 * MIB) as chaos, stopped.connect() as wire:
        request = {"ref": f"{chaos.url}/m.gguf", "sha256": hex_of(CONTENT), "on_disconnect": "continue"}
        first = wire.request("model.pull", name="one", **request)
        job = begun(wire, first, MIB)
        second = wire.request("model.pull", name="two", **request)
        begun(wire, second, MIB)
        cancelled = stopped.ask("job.cancel", job=job, discard=True)["value"]
        assert (cancelled["state"], cancelled["discarded_bytes"]) == ("cancelled", 0)
        chaos.rate = None
        assert wire.until(second, "result", "error")["type"] == "result"


def test_a_cancel_that_discards_leaves_what_a_paused_job_goes_on_with(stopped: RealDaemon) -> None:
    """The paused job may be another user's."""
    stopped.start()
    with Chaos(CONTENT, rate=2 * MIB) as chaos, stopped.connect() as wire:
        request = {"ref": f"{chaos.url}/m.gguf", "sha256": hex_of(CONTENT), "on_disconnect": "continue"}
        paused = begun(wire, wire.request("model.pull", name="one", **request), MIB)
        stopped.ask("job.pause", job=paused)
        job_state(stopped, paused, "paused")
        wait_until(lambda: not downloads_open(stopped), what="the download closed")
        job = begun(wire, wire.request("model.pull", name="two", **request), MIB)
        cancelled = stopped.ask("job.cancel", job=job, discard=True)["value"]
        assert (cancelled["state"], cancelled["discarded_bytes"]) == ("cancelled", 0)
        assert len(partials(stopped)) == 1
        assert stopped.ask("job.cancel", job=paused, discard=True)["value"]["discarded_bytes"] > 0


def test_a_sweep_of_partials_takes_recent_ones_that_no_job_needs(stopped: RealDaemon) -> None:
    stopped.start()
    with Chaos(CONTENT, rate=8 * MIB) as chaos:
        with stopped.connect() as wire:
            number = wire.request("model.pull", ref=f"{chaos.url}/m.gguf", sha256=hex_of(CONTENT))
            begun(wire, number, MIB)
            wire.request("cancel", target=number, id="c")
            assert wire.terminal(number)["code"] == "cancelled"
        wait_until(lambda: not downloads_open(stopped), what="the download closed")
        assert stopped.ask("store.sweep")["value"]["removed"] == 0
        done = ctl(stopped, "sweep", "--partials", "--json")
        (victim,) = json.loads(done.stdout)["victims"]
        assert victim["kind"] == "partial"
        assert partials(stopped) == []
        assert pulled(stopped, f"{chaos.url}/m.gguf", sha256=hex_of(CONTENT))["blob"] == f"sha256:{hex_of(CONTENT)}"


# -- quarantine


def test_quarantine_rm_takes_what_is_there_and_nothing_else(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_STORE_GRACE"] = "0s"
    stopped.environ["MODELD_STORE_SWEEP"] = "off"
    stopped.start()
    bad, gone = add(stopped, "bad", b"GGUF bad one"), add(stopped, "gone")
    os.chmod(bad["path"], 0o644)
    Path(bad["path"]).write_bytes(b"GGUF spoiled")
    assert ctl(stopped, "verify", "bad").returncode == 6
    stopped.ask("model.remove", name="gone")
    listed = ctl(stopped, "quarantine")
    assert "corrupt-blob" in listed.stdout
    assert "`modelctl quarantine rm`" in listed.stderr
    planned = ctl(stopped, "quarantine", "rm", "--dry-run", "--json")
    assert [victim["kind"] for victim in json.loads(planned.stdout)["victims"]] == ["quarantine"]
    assert len(stopped.ask("store.quarantine")["value"]["items"]) == 1
    done = ctl(stopped, "quarantine", "rm")
    assert done.returncode == 0, done.stderr
    assert "12 B freed" in done.stderr
    assert stopped.ask("store.quarantine")["value"]["items"] == []
    assert os.path.exists(gone["path"])
    assert ctl(stopped, "quarantine", "--dry-run").returncode == 2
    refused = stopped.ask("store.sweep", quarantine=True, grace_s=0)
    assert (refused["code"], refused["message"][:13]) == ("invalid_request", "$.quarantine:")
