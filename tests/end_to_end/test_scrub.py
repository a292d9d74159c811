"""Scrubs through the socket: on request and by the daemon itself, beside other work, over restarts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.decay import flip, foreign
from rigs.eager_daemon import EagerDaemon
from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

MIB = 1 << 20


def add(daemon: RealDaemon, name: str, content: bytes) -> dict[str, Any]:
    reply = daemon.ask("model.add", path=daemon.file(f"{name}.gguf", content), name=name)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def scrub_of(daemon: RealDaemon) -> dict[str, Any]:
    view: dict[str, Any] = daemon.ask("daemon.status")["value"]["scrub"]
    return view


@pytest.fixture
def eager(room: Path) -> Iterator[EagerDaemon]:
    made = EagerDaemon(str(room))
    yield made
    made.close()


def test_what_has_rotted_is_found_and_said_everywhere(daemon: RealDaemon) -> None:
    added = add(daemon, "rotten", b"GGUF" + os.urandom(20 * MIB))
    add(daemon, "sound", b"GGUF sound")
    flip(added["path"], 17 * MIB)
    scrubbed = daemon.ask("store.scrub")["value"]
    assert (scrubbed["checked"], scrubbed["failed"]) == (2, 1)
    assert [(model["name"], model["blob"]) for model in scrubbed["damaged"]] == [("rotten", added["blob"])]
    assert daemon.ask("model.show", name="rotten")["value"]["state"] == "failed"
    assert daemon.ask("model.resolve", name="rotten")["code"] == "corrupt"
    assert daemon.ask("model.resolve", name="sound")["type"] == "result"
    failed = [line for line in daemon.activity() if line["event"] == "model.failed"]
    assert [(line["model"], line["job"]) for line in failed] == [("rotten", scrubbed["job"])]
    view = scrub_of(daemon)
    assert (view["mode"], view["job"], view["last_checked"], view["last_failed"]) == ("auto", None, 2, 1)
    again = daemon.ask("store.scrub")["value"]
    assert (again["checked"], again["failed"]) == (2, 1), "the damage stays until it is repaired"


def test_it_waits_while_other_jobs_run_and_says_so(held: HeldDaemon) -> None:
    held.start()
    held.release()
    add(held, "a", b"GGUF" + os.urandom(40 * MIB))
    held.hold()
    source = held.file("b.gguf", b"GGUF" + os.urandom(9 * MIB))
    with held.connect() as adding, held.connect() as scrubbing:
        adding.request("model.add", path=source, name="b", id="add")
        adding.until("add", "accepted")
        scrubbing.request("store.scrub", id="scrub")
        wait_until(lambda: scrub_of(held)["waits"], what="a scrub that waits")
        before = scrub_of(held)["bytes_done"]
        assert held.ask("model.resolve", name="a")["type"] == "result"
        assert scrub_of(held)["bytes_done"] == before
        held.release()
        assert adding.terminal("add")["type"] == "result"
        assert scrubbing.terminal("scrub")["value"]["failed"] == 0


def test_kill_9_in_the_middle_of_a_blob_ends_no_scrub(stopped: RealDaemon) -> None:
    stopped.configure('[scrub]\nrate = "8MB"\n')
    daemon = stopped.start()
    added = add(daemon, "long", b"GGUF" + os.urandom(96 * MIB))
    flip(added["path"], 90 * MIB)
    with daemon.connect() as wire:
        wire.request("store.scrub", id="1", on_disconnect="continue")
        job = wire.until("1", "accepted")["job"]
        wait_until(lambda: scrub_of(daemon)["bytes_done"] >= 16 * MIB, what="a block")
    daemon.kill()
    daemon.configure("")
    daemon.start()
    done = daemon.ask("job.attach", job=job)["value"]
    assert (done["state"], done["value"]["checked"], done["value"]["failed"]) == ("done", 1, 1)


def test_the_rate_holds(stopped: RealDaemon) -> None:
    """Loosely: the benchmark has the figure."""
    stopped.configure('[scrub]\nrate = "20MB"\n')
    daemon = stopped.start()
    add(daemon, "a", b"GGUF" + os.urandom(40_000_000))
    began = time.monotonic()
    assert daemon.ask("store.scrub")["value"]["checked"] == 1
    assert time.monotonic() - began >= 1.7


def test_the_daemon_scrubs_by_itself_when_blobs_are_due(eager: EagerDaemon) -> None:
    eager.configure("[scrub]\nevery = 1\n")
    eager.start()
    added = add(eager, "a", b"GGUF" + os.urandom(20 * MIB))
    wait_until(lambda: scrub_of(eager)["last_checked"] == 1, what="a first scrub")
    flip(added["path"], 5)
    wait_until(lambda: scrub_of(eager)["last_failed"] == 1, what="a scrub that finds it")
    (first, *_) = [line for line in eager.activity() if line["event"] == "job.queued" and line["kind"] == "store.scrub"]
    assert (first["peer"], first["priority"]) == (os.getuid(), 5)


def test_a_scrub_by_itself_that_is_paused_stays_so_over_a_restart(eager: EagerDaemon) -> None:
    eager.configure('[scrub]\nevery = 1\nrate = "1MB"\n')
    eager.start()
    add(eager, "a", b"GGUF" + os.urandom(20 * MIB))
    wait_until(lambda: scrub_of(eager)["job"] is not None, what="a scrub")
    job = scrub_of(eager)["job"]
    eager.ask("job.pause", job=job)
    wait_until(lambda: eager.ask("job.show", job=job)["value"]["state"] == "paused", what="a pause")
    view = scrub_of(eager)
    assert (view["job"], view["paused"], view["next_at"]) == (job, True, None), "no other begins meanwhile"
    assert eager.terminate() == 0
    eager.start()
    wait_until(lambda: eager.ask("daemon.status")["value"]["uptime_s"] > 1.5, what="time for another scrub")
    jobs = [each for each in eager.ask("job.list")["value"]["jobs"] if each["kind"] == "store.scrub"]
    assert [(each["id"], each["state"]) for each in jobs] == [(job, "paused")]


def test_a_daemon_that_a_client_started_ends_beside_its_own_scrub_and_goes_on_with_it(eager: EagerDaemon) -> None:
    eager.configure('[scrub]\nevery = 1\nrate = "4MB"\n[daemon]\nidle_exit = 2\n')
    eager.start("--auto-started")
    add(eager, "a", b"GGUF" + os.urandom(60 * MIB))
    wait_until(lambda: scrub_of(eager)["bytes_done"] > 0, what="a scrub that has something to read")
    job = scrub_of(eager)["job"]
    assert eager.wait(20) == 0
    eager.configure("[scrub]\nevery = 1\n")
    eager.start()
    done = eager.ask("job.attach", job=job)["value"]
    assert (done["state"], done["value"]["checked"]) == ("done", 1)


def test_without_a_period_it_runs_only_on_request(stopped: RealDaemon) -> None:
    stopped.configure('[scrub]\nevery = "none"\n')
    daemon = stopped.start()
    add(daemon, "a", b"GGUF a")
    assert scrub_of(daemon)["mode"] == "off"
    refused = daemon.ask("store.scrub", due=True)
    assert (refused["code"], "[scrub]" in refused["hint"]) == ("invalid_request", True)
    assert daemon.ask("store.scrub")["value"]["checked"] == 1


def test_a_stop_does_not_wait_for_it(stopped: RealDaemon) -> None:
    stopped.configure('[scrub]\nrate = "1MB"\n')
    daemon = stopped.start()
    add(daemon, "a", b"GGUF" + os.urandom(30 * MIB))
    with daemon.connect() as wire:
        wire.request("store.scrub", id="1", on_disconnect="continue")
        wait_until(lambda: scrub_of(daemon)["job"] is not None, what="a scrub")
        began = time.monotonic()
        os.kill(daemon.pid, signal.SIGTERM)
        assert wire.terminal("1")["code"] == "interrupted"
        assert daemon.wait(20) == 0
        assert time.monotonic() - began < 10


def scrubs_of(daemon: RealDaemon) -> list[dict[str, Any]]:
    return [each for each in daemon.ask("job.list")["value"]["jobs"] if each["kind"] == "store.scrub"]


def wait_for_uptime(daemon: RealDaemon, seconds: float) -> None:
    wait_until(lambda: daemon.ask("daemon.status")["value"]["uptime_s"] > seconds, what="time for another scrub")


def test_a_scrub_by_itself_that_is_cancelled_does_not_begin_again_at_once(eager: EagerDaemon) -> None:
    eager.configure('[scrub]\nevery = "1h"\nrate = "1MB"\n')
    foreign(eager.root, "a", b"GGUF" + os.urandom(20 * MIB))
    eager.start()
    wait_until(lambda: scrub_of(eager)["job"] is not None, what="a scrub")
    job = scrub_of(eager)["job"]
    eager.ask("job.cancel", job=job)
    wait_for_uptime(eager, 2)
    assert [(each["id"], each["state"]) for each in scrubs_of(eager)] == [(job, "cancelled")]
    assert scrub_of(eager)["next_at"] is not None
    assert eager.terminate() == 0
    eager.start()
    wait_for_uptime(eager, 1.5)
    assert [(each["id"], each["state"]) for each in scrubs_of(eager)] == [(job, "cancelled")]


def test_a_store_whose_lock_is_away_is_not_scrubbed_all_the_time(eager: EagerDaemon) -> None:
    eager.configure('[scrub]\nevery = "1h"\n')
    eager.start()
    lock = Path(eager.root, ".modeld", "lock")
    lock.rename(lock.with_name("lock.away"))
    foreign(eager.root, "a", b"GGUF" + os.urandom(MIB))
    eager.ask("model.list")
    wait_for_uptime(eager, 2)
    assert scrubs_of(eager) == []


def test_a_scrub_by_itself_reads_nothing_once_the_configuration_says_never(eager: EagerDaemon) -> None:
    eager.configure('[scrub]\nevery = "1h"\nrate = "1MB"\n')
    foreign(eager.root, "a", b"GGUF" + os.urandom(20 * MIB))
    eager.start()
    wait_until(lambda: scrub_of(eager)["job"] is not None, what="a scrub")
    job = scrub_of(eager)["job"]
    eager.kill()
    eager.configure('[scrub]\nevery = "none"\n')
    eager.start()
    wait_until(lambda: eager.ask("job.show", job=job)["value"]["state"] == "failed", what="its end")
    assert scrub_of(eager)["last_checked"] == 0
