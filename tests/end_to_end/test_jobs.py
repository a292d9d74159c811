"""Jobs as their askers see them: on the disk before they are acknowledged, shared, followed, and ended exactly once."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.real_jobs import CHUNK, SIZE, add, replies_until_end, rows, running, show, sparse
from rigs.rough_peers import incidents
from rigs.waiting import wait_until

COUNTERS = ("bytes_done", "network_bytes", "verified_bytes", "reused_bytes", "committed_bytes", "files_done", "attempt")


def test_a_job_is_on_the_disk_before_it_is_acknowledged(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        number = wire.request("model.add", path=sparse(held, "a"), name="a")
        job = wire.until(number, "accepted")["job"]
        held.kill()
        assert [row[0] for row in rows(held)] == [job]


def test_ids_sort_by_time(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        ids = [add(wire, sparse(held, f"s{index}"), f"m{index}")[1] for index in range(5)]
    assert ids == sorted(ids)
    listed = [job["id"] for job in held.ask("job.list")["value"]["jobs"]]
    assert listed == sorted(ids, reverse=True)


def test_the_same_work_is_one_job_for_two_connections(held: HeldDaemon) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as one, held.connect() as two:
        first, job = add(one, path, "a")
        second = two.request("model.add", path=path, name="a")
        joined = two.until(second, "accepted")
        assert (joined["job"], joined["joined"]) == (job, True)
        assert show(held, job)["watchers"] == 2
        held.release()
        values = [one.terminal(first)["value"], two.terminal(second)["value"]]
    assert values[0] == values[1]
    assert values[0]["size_bytes"] == SIZE
    assert len(rows(held)) == 1


@pytest.mark.parametrize("other", [{"name": "b"}, {"replace": True}, {"license": "mit"}, {"sha256": "0" * 64}])
def test_other_work_is_a_job_of_its_own(held: HeldDaemon, other: dict[str, Any]) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as wire:
        _, job = add(wire, path, "a")
        number = wire.request("model.add", **{"path": path, "name": "a"} | other)
        accepted = wire.until(number, "accepted")
        assert accepted["job"] != job
        assert not accepted["joined"]


def test_a_token_stands_for_one_job(held: HeldDaemon) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as one, held.connect() as two:
        first, job = add(one, path, "a", token="t-1")
        second, same = add(two, path, "a", token="t-1")
        assert same == job
        held.release()
        value = one.terminal(first)["value"]
        assert two.terminal(second)["value"] == value
        again = two.request("model.add", path=path, name="a", token="t-1")
        replies = replies_until_end(two, again)
        assert replies[0]["job"] == job
        assert replies[0]["joined"]
        assert replies[-1]["value"] == value
        assert add(two, path, "a", token="t-2")[1] != job


def test_a_token_finds_its_job_after_a_restart(held: HeldDaemon) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as wire:
        held.release()
        number, job = add(wire, path, "a", token="t-1")
        value = wire.terminal(number)["value"]
        failed = wire.request("model.add", path=path, name="b", sha256="0" * 64, token="t-2")
        failure = wire.terminal(failed)
    held.kill()
    held.start()
    os.unlink(path)
    with held.connect() as wire:
        number, same = add(wire, path, "a", token="t-1")
        assert same == job
        assert wire.terminal(number)["value"] == value
        again = wire.ask("model.add", path=path, name="b", sha256="0" * 64, token="t-2")
        assert {**again, "id": failure["id"]} == failure


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("model.add", {"name": "b"}),
        ("model.remove", {"name": "a"}),
        ("store.sweep", {}),
    ],
)
def test_a_token_is_not_taken_for_other_work(held: HeldDaemon, op: str, fields: dict[str, str]) -> None:
    held.start()
    path = sparse(held, "a")
    fields = fields | ({"path": path} if op == "model.add" else {})
    with held.connect() as wire:
        number, job = add(wire, path, "a", token="t")
        while_it_runs = wire.ask(op, token="t", **fields)
        held.release()
        wire.terminal(number)
        for refused in (while_it_runs, wire.ask(op, token="t", **fields)):
            assert refused["code"] == "invalid_request"
            assert "$.token" in refused["message"]
            assert refused["details"]["job"] == job
            assert "new token" in refused["hint"]
    assert not incidents(held)


def test_whoever_attaches_sees_the_state_the_progress_and_the_outcome(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as asker, held.connect() as other:
        number, job = add(asker, sparse(held, "a"), "a")
        running(held, job)
        attached = other.request("job.attach", job=job)
        assert other.until(attached, "accepted")["joined"]
        standing = other.until(attached, "progress")
        assert (standing["phase"], standing["bytes_total"]) == ("copy", SIZE)
        held.slow(0.12)
        while other.until(attached, "progress")["bytes_done"] == 0:
            pass
        held.release()
        seen = replies_until_end(other, attached)
        assert seen[-2]["phase"] == "done"
        assert seen[-1]["value"]["state"] == "done"
        assert seen[-1]["value"]["value"] == asker.terminal(number)["value"]


def test_leaving_a_job_that_runs_unattended_does_not_end_it(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as asker:
        _, job = add(asker, sparse(held, "a"), "a")
        held.kill()
    held.start()
    running(held, job)
    with held.connect() as looker:
        looker.until(looker.request("job.attach", job=job), "accepted")
        assert show(held, job)["watchers"] == 1
    wait_until(lambda: not show(held, job).get("watchers"))
    assert show(held, job)["state"] == "running"
    held.release()
    wait_until(lambda: show(held, job)["state"] == "done")


def test_attaching_to_what_has_ended_gives_the_outcome_at_once(held: HeldDaemon) -> None:
    held.release()
    held.start()
    with held.connect() as wire:
        number, job = add(wire, sparse(held, "a"), "a")
        wire.terminal(number)
        bad, failed = add(wire, sparse(held, "b"), "b", sha256="0" * 64)
        wire.terminal(bad)
        for _ in range(2):
            assert wire.ask("job.attach", job=job)["value"]["state"] == "done"
            ended = wire.ask("job.attach", job=failed)["value"]
            assert (ended["state"], ended["error"]["code"]) == ("failed", "digest_mismatch")
            held.kill()
            held.start()
            wire.close()
            wire = held.connect()
        wire.close()


def test_what_is_no_job_is_not_found(daemon: RealDaemon) -> None:
    for op in ("job.show", "job.attach", "job.cancel", "job.pause", "job.resume"):
        assert daemon.ask(op, job="0" * 26)["code"] == "not_found"
    assert daemon.ask("job.prioritize", job="nonsense", priority=1)["code"] == "not_found"


def test_progress_only_grows_and_ends_with_done(held: HeldDaemon) -> None:
    held.slow(0.05)
    held.start()
    with held.connect() as wire:
        number, job = add(wire, sparse(held, "a", 16 * CHUNK), "a")
        running(held, job)
        assert held.ask("job.pause", job=job)["value"]["state"] == "paused"
        assert held.ask("job.resume", job=job)["type"] == "result"
        replies = replies_until_end(wire, number)
    progress = [reply for reply in replies if reply["type"] == "progress"]
    assert len(progress) >= 4
    for before, after in itertools.pairwise(progress):
        assert all(after[name] >= before[name] for name in COUNTERS), (before, after)
    last = progress[-1]
    assert replies[-2] == last
    assert (last["phase"], last["attempt"]) == ("done", 2)
    assert last["bytes_done"] == last["bytes_total"] == last["committed_bytes"] == last["verified_bytes"] == 16 * CHUNK
    assert [reply["type"] for reply in replies].count("result") == 1


def test_progress_comes_at_most_ten_times_a_second(held: HeldDaemon) -> None:
    held.slow(0.01)
    held.start()
    with held.connect() as wire:
        began = time.monotonic()
        number, _ = add(wire, sparse(held, "a", 64 * CHUNK), "a")
        replies = replies_until_end(wire, number)
        seconds = time.monotonic() - began
    told = sum(reply["type"] == "progress" for reply in replies)
    assert told <= 10 * seconds + 5


def test_the_list_of_jobs_has_filters_and_a_limit(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    with held.connect() as wire:
        ids = [add(wire, sparse(held, name), name, on_disconnect="continue")[1] for name in "abc"]
        held.ask("job.cancel", job=ids[2])

        def listed(**fields: Any) -> list[str]:
            return [job["id"] for job in wire.ask("job.list", **fields)["value"]["jobs"]]

        assert listed() == ids[::-1]
        assert listed(limit=2) == ids[:0:-1]
        assert [listed(state=state) for state in ("running", "queued", "cancelled", "done")] == [
            [ids[0]],
            [ids[1]],
            [ids[2]],
            [],
        ]
        assert wire.ask("job.list", limit=0)["code"] == "invalid_request"
        assert wire.ask("job.list", limit=100_000)["code"] == "invalid_request"
        assert wire.ask("job.list", state="dead")["code"] == "invalid_request"
        held.kill()
    held.release()
    held.start()
    with held.connect() as wire:
        wait_until(lambda: len(wire.ask("job.list", state="done")["value"]["jobs"]) == 2)
        assert [job["id"] for job in wire.ask("job.list")["value"]["jobs"]] == ids[::-1]


def test_two_adds_of_one_name_end_in_one_winner(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        first, _ = add(wire, sparse(held, "a", mark=b"GGUF1"), "same")
        second, _ = add(wire, sparse(held, "b", mark=b"GGUF2"), "same")
        held.release()
        ends = {number: replies_until_end(wire, number)[-1] for number in (first,)}
        other = wire.ask("job.list")["value"]["jobs"]
        wait_until(lambda: all(show(held, job["id"])["state"] in ("done", "failed") for job in other))
    states = sorted(show(held, job["id"])["state"] for job in other)
    assert states == ["done", "failed"]
    assert ends[first]["type"] in ("result", "error")
    assert second != first
