"""A daemon that was killed: what it had accepted goes on by itself, once, in order; what was done stays known."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.real_jobs import add, show, staging
from rigs.rough_peers import held_name
from rigs.waiting import wait_until

SIZE = 24 << 20


def accepted(wire: Wire, path: str, name: str, **fields: Any) -> str:
    return add(wire, path, name, **fields)[1]


def until_done(daemon: RealDaemon, *jobs: str) -> None:
    wait_until(lambda: all(show(daemon, job)["state"] == "done" for job in jobs), what=f"{jobs} done")


def content_of(daemon: RealDaemon, name: str) -> bytes:
    with open(daemon.ask("model.resolve", name=name)["value"]["path"], "rb") as file:
        return file.read()


def manifest(daemon: RealDaemon, name: str) -> tuple[int, dict[str, Any]]:
    with open(os.path.join(daemon.root, "manifests", f"{name}.json"), encoding="utf-8") as file:
        return os.fstat(file.fileno()).st_ino, json.load(file)


def ends(daemon: RealDaemon, job: str) -> list[str]:
    return [row["event"] for row in daemon.activity() if row.get("job") == job and "outcome" in row]


def recovery(daemon: RealDaemon) -> dict[str, Any]:
    value: dict[str, Any] = daemon.ask("daemon.status")["value"]["recovery"]
    return value


def test_what_ran_and_what_waited_goes_on_and_ends(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    contents = {name: os.urandom(SIZE // 8 + index) for index, name in enumerate("abcd")}
    with held.connect() as wire:
        jobs = [accepted(wire, held.file(name, contents[name]), name) for name in contents]
        held.ask("job.prioritize", job=jobs[3], priority=1)
        wait_until(lambda: staging(held))
        held.kill()
    held.start()
    told = recovery(held)
    assert (told["jobs_resumed"], told["staging_removed"]) == (4, 1)
    assert told["staging_bytes"] >= 0
    assert [show(held, job)["state"] for job in jobs] == ["running", "queued", "queued", "queued"]
    held.release()
    until_done(held, *jobs)
    for name, content in contents.items():
        assert content_of(held, name) == content
    assert staging(held) == []
    assert [show(held, job)["attempts"] for job in jobs] == [1, 1, 1, 1]
    assert [ends(held, job) for job in jobs] == [["job.done"]] * 4
    # The first was admitted first and ran; of the others, the one that was moved up.
    assert sorted(jobs, key=lambda job: show(held, job)["ended_at"]) == [jobs[0], jobs[3], jobs[1], jobs[2]]
    assert {job["id"] for job in held.ask("job.list")["value"]["jobs"]} == set(jobs)


def test_a_job_that_is_still_wanted_can_be_joined_and_attached_after_a_restart(held: HeldDaemon) -> None:
    held.start()
    path = held.file("a", b"GGUF" + os.urandom(1000))
    with held.connect() as wire:
        job = accepted(wire, path, "a", token="t")
        held.kill()
    held.start()
    with held.connect() as one, held.connect() as two:
        assert accepted(one, path, "a") == job
        assert accepted(two, path, "a", token="t") == job
        attached = two.request("job.attach", job=job)
        held.release()
        assert two.terminal(attached)["value"]["state"] == "done"


def test_each_life_is_another_instance_of_the_same_store(daemon: RealDaemon) -> None:
    first = daemon.ask("daemon.status")["value"]
    daemon.kill()
    began = time.monotonic()
    daemon.start()
    assert time.monotonic() - began < 5.0
    second = daemon.ask("daemon.status")["value"]
    assert first["instance"] != second["instance"]
    assert first["store"] == second["store"]


@pytest.mark.parametrize("standing", [False, True], ids=["new", "the same again"])
def test_a_move_whose_source_is_gone_is_found_done(held: HeldDaemon, standing: bool) -> None:
    held.release()
    held.start()
    content = b"GGUF" + os.urandom(5000)
    if standing:
        assert held.ask("model.add", path=held.file("b", content), name="m", license="mit")["type"] == "result"
    held.kill()
    held.dies("named")
    held.start()
    path = held.file("a", content)
    with held.connect() as wire:
        number = wire.request("model.add", path=path, name="m", move=True)
        job = wire.until(number, "accepted")["job"]
        held.wait()
    assert not os.path.exists(path)
    held.lives()
    held.start()
    until_done(held, job)
    assert content_of(held, "m") == content
    assert ends(held, job) == ["job.done"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_was_published_but_not_recorded_is_found_done(held: HeldDaemon, replace: bool) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.dies("named")
    held.start()
    content, later = os.urandom(5000), os.urandom(6000)
    with held.connect() as wire:
        job = accepted(wire, held.file("a", content), "m", replace=replace)
        after = accepted(wire, held.file("b", later), "m", replace=True)
        held.release()
        held.wait()
    published = manifest(held, "m")
    assert published[1]["blob"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    held.lives()
    held.hold()
    held.start()
    assert show(held, job)["state"] == "done"
    assert recovery(held)["jobs_resumed"] == 1
    assert manifest(held, "m") == published
    with held.connect() as wire:
        value = wire.ask("job.attach", job=job)["value"]["value"]
        assert (value["name"], value["size_bytes"]) == ("m", 5000)
    held.release()
    until_done(held, after)
    # The later one stands, as it was admitted later: the first was not done over.
    assert content_of(held, "m") == later
    assert ends(held, job) == ["job.done"]
    assert ends(held, after) == ["job.done"]


def test_what_was_announced_but_not_published_is_done_then(held: HeldDaemon) -> None:
    held.dies("announced")
    held.release()
    held.start()
    content = os.urandom(5000)
    with held.connect() as wire:
        job = accepted(wire, held.file("a", content), "m")
        held.wait()
    assert not os.path.exists(os.path.join(held.root, "manifests", "m.json"))
    held.lives()
    held.start()
    until_done(held, job)
    assert content_of(held, "m") == content
    assert ends(held, job) == ["job.done"]


def test_the_same_bytes_with_another_license_are_not_taken_for_published(held: HeldDaemon) -> None:
    """The content alone does not tell whether this publication took place: it stood there before."""
    held.release()
    held.start()
    path = held.file("a", os.urandom(5000))
    assert held.ask("model.add", path=path, name="m", license="old")["type"] == "result"
    held.kill()
    held.dies("announced")
    held.start()
    with held.connect() as wire:
        job = accepted(wire, path, "m", license="new", replace=True)
        held.wait()
    assert manifest(held, "m")[1]["license"] == "old"
    held.lives()
    held.start()
    until_done(held, job)
    assert manifest(held, "m")[1]["license"] == "new"


def test_a_job_that_cannot_be_done_any_more_fails_after_the_restart(held: HeldDaemon) -> None:
    held.start()
    path = held.file("a", b"GGUF weights")
    with held.connect() as wire:
        job = accepted(wire, path, "a")
        held.kill()
    os.unlink(path)
    held.release()
    held.start()
    wait_until(lambda: show(held, job)["state"] == "failed")
    assert show(held, job)["error"]["code"] == "source_not_found"


def test_a_job_of_another_version_fails_by_name_and_harms_nobody(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        jobs = [accepted(wire, held.file(name, name.encode()), name) for name in "ab"]
        held.kill()
    catalog = sqlite3.connect(os.path.join(held.root, ".modeld", "catalog.sqlite"))
    with catalog:
        catalog.execute("UPDATE jobs SET kind = 'model.teleport' WHERE id = ?", (jobs[0],))
    catalog.close()
    held.release()
    held.start()
    until_done(held, jobs[1])
    broken = show(held, jobs[0])
    assert (broken["state"], broken["error"]["code"]) == ("failed", "unsupported")


@pytest.mark.parametrize("damage", ["deleted", "overwritten", "cut", "empty"])
def test_a_lost_catalogue_costs_history_and_no_model(daemon: RealDaemon, damage: str) -> None:
    contents = {name: os.urandom(3000) for name in "abc"}
    for name, content in contents.items():
        assert daemon.ask("model.add", path=daemon.file(name, content), name=name)["type"] == "result"
    daemon.kill()
    catalog = os.path.join(daemon.root, ".modeld", "catalog.sqlite")
    if damage == "deleted":
        for name in ("", "-wal", "-shm"):
            if os.path.exists(catalog + name):
                os.unlink(catalog + name)
    else:
        # Into the file itself: what was only in the write-ahead log is read from there.
        with sqlite3.connect(catalog) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        size = os.path.getsize(catalog)
        with open(catalog, "r+b") as file:
            if damage == "overwritten":
                file.write(b"\xa5" * size)
            else:
                file.truncate(size // 2 + 100 if damage == "cut" else 0)
    daemon.start()
    aside = recovery(daemon)["catalog_set_aside"]
    if damage in ("overwritten", "cut"):
        assert os.path.exists(aside)
        assert os.path.dirname(aside) == os.path.dirname(catalog)
    else:
        assert aside is None
    for name, content in contents.items():
        assert content_of(daemon, name) == content
    again = daemon.ask("model.add", path=daemon.file("d", b"more"), name="d")
    assert again["type"] == "result"
    daemon.kill()
    daemon.start()
    assert recovery(daemon)["catalog_set_aside"] is None
    assert len(daemon.ask("model.list")["value"]["models"]) == 4


def test_finished_jobs_are_forgotten_after_their_time(held: HeldDaemon) -> None:
    held.release()
    held.start()
    with held.connect() as wire:
        done = accepted(wire, held.file("a", b"a"), "a")
        until_done(held, done)
        held.hold()
        waiting = accepted(wire, held.file("b", b"b"), "b")
    held.kill()
    held.environ["MODELD_JOBS_KEEP"] = "0s"
    held.start()
    wait_until(lambda: held.ask("job.show", job=done).get("code") == "not_found")
    assert show(held, waiting)["state"] == "running"


@pytest.mark.parametrize("op", ["model.remove", "model.move", "model.copy", "model.add"])
def test_an_open_job_of_an_older_catalogue_leaves_newer_content_alone(daemon: RealDaemon, op: str) -> None:
    """Somebody puts a copy of the catalogue back: its open jobs are of the past."""
    old, new, other = (b"GGUF" + os.urandom(1000) for _ in range(3))
    assert daemon.ask("model.add", path=daemon.file("old", old), name="m")["type"] == "result"
    requests: dict[str, dict[str, Any]] = {
        "model.remove": {"name": "m"},
        "model.move": {"source": "m", "destination": "n"},
        "model.copy": {"source": "m", "destination": "n"},
        "model.add": {"path": daemon.file("other", other), "name": "m", "replace": True},
    }
    fields = requests[op]
    private = os.path.join(daemon.root, ".modeld")
    with daemon.connect() as wire, held_name(daemon, "n" if op == "model.copy" else "m"):
        number = wire.request(op, on_disconnect="continue", **fields)
        job = wire.until(number, "accepted")["job"]
        saved = {name: Path(private, name).read_bytes() for name in ("catalog.sqlite", "catalog.sqlite-wal")}
        daemon.ask("job.cancel", job=job)
    assert daemon.ask("model.add", path=daemon.file("new", new), name="m", replace=True)["type"] == "result"
    daemon.terminate()
    for name, content in saved.items():
        Path(private, name).write_bytes(content)
    daemon.start()
    shown = show(daemon, job)
    assert (shown["state"], shown["error"]["code"]) == ("failed", "interrupted")
    assert "'m'" in shown["error"]["message"]
    assert content_of(daemon, "m") == new
    assert [model["name"] for model in daemon.ask("model.list")["value"]["models"]] == ["m"]
    assert daemon.ask(op, **fields)["type"] == "result", "the same request, made anew, is carried out"


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_a_log_of_the_catalogue_that_is_lost_costs_no_accepted_job(held: HeldDaemon, damage: str) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    log = os.path.join(held.root, ".modeld", "catalog.sqlite-wal")
    contents = {name: os.urandom(5000 + index) for index, name in enumerate("abc")}
    with held.connect() as wire:
        jobs = [accepted(wire, held.file(name, contents[name]), name) for name in "ab"]
        cancelled = accepted(wire, held.file("x", b"x"), "x")
        assert held.ask("job.cancel", job=cancelled)["value"]["state"] == "cancelled"
        if damage == "removed":
            os.unlink(log)
        else:
            os.truncate(log, 0)
        jobs.append(accepted(wire, held.file("c", contents["c"]), "c"))
        held.kill()
    held.start()
    assert recovery(held).get("catalog_set_aside") is None
    assert recovery(held)["jobs_resumed"] == 3
    assert show(held, cancelled)["state"] == "cancelled"
    held.release()
    until_done(held, *jobs)
    for name, content in contents.items():
        assert content_of(held, name) == content
