"""Jobs that are left, cancelled, paused, resumed and moved up while they wait or run."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from rigs.command import COMMAND
from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.real_jobs import SIZE, add, rows, running, show, sparse, staging
from rigs.waiting import wait_until


@pytest.mark.parametrize("on_disconnect", ["cancel", "continue"])
def test_a_job_whose_last_client_leaves(held: HeldDaemon, on_disconnect: str) -> None:
    held.start()
    path = sparse(held, "a")
    one, two = held.connect(), held.connect()
    _, job = add(one, path, "a", on_disconnect=on_disconnect)
    add(two, path, "a", on_disconnect=on_disconnect)
    running(held, job)
    one.close()
    wait_until(lambda: show(held, job).get("watchers", 0) == 1)
    assert show(held, job)["state"] == "running"
    two.close()
    wait_until(lambda: show(held, job).get("watchers", 0) == 0)
    if on_disconnect == "cancel":
        wait_until(lambda: show(held, job)["state"] == "cancelled")
        assert "last client" in show(held, job)["error"]["message"]
        assert staging(held) == []
    else:
        assert show(held, job)["state"] == "running"
        held.release()
        wait_until(lambda: show(held, job)["state"] == "done")


def test_a_waiting_job_whose_client_leaves_gives_its_place_back(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    with held.connect() as wire:
        _, first = add(wire, sparse(held, "a"), "a")
        leaver = held.connect()
        _, second = add(leaver, sparse(held, "b"), "b")
        third = wire.request("model.add", path=sparse(held, "c"), name="c")
        assert wire.until(third, "accepted")["position"] == 2
        leaver.close()
        assert wire.until(third, "accepted")["position"] == 1
        wait_until(lambda: show(held, second)["state"] == "cancelled")
        assert show(held, first)["state"] == "running"


def test_cancelling_one_request_of_two_leaves_the_job(held: HeldDaemon) -> None:
    """`cancel` is for a request of this connection; the job stops with its last asker."""
    held.start()
    path = sparse(held, "a")
    with held.connect() as wire:
        first, job = add(wire, path, "a")
        second, _ = add(wire, path, "a")
        running(held, job)
        assert wire.ask("cancel", target=second)["type"] == "result"
        assert show(held, job)["state"] == "running"
        assert wire.ask("cancel", target=first)["type"] == "result"
        wait_until(lambda: show(held, job)["state"] == "cancelled")


def test_a_running_job_is_cancelled_quickly_and_leaves_no_byte(daemon: RealDaemon) -> None:
    """Two gigabytes, of which one chunk more may be written: the answer is that of a person who has pressed Ctrl-C."""
    path = sparse(daemon, "big", 2 << 30)
    with daemon.connect() as asker, daemon.connect() as other:
        number, job = add(asker, path, "big")
        wait_until(lambda: show(daemon, job)["progress"]["bytes_done"] > 0)
        began = time.monotonic()
        reply = other.ask("job.cancel", job=job)
        seconds = time.monotonic() - began
        assert reply["value"]["state"] == "cancelled"
        assert seconds < 2.0
        assert asker.terminal(number)["code"] == "cancelled"
    assert staging(daemon) == []
    assert daemon.ask("model.list")["value"]["models"] == []
    assert daemon.ask("daemon.status")["value"].get("reserved_bytes", 0) == 0


def test_a_queued_and_a_paused_job_are_cancelled(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    with held.connect() as wire:
        first, running_job = add(wire, sparse(held, "a"), "a")
        second, queued = add(wire, sparse(held, "b"), "b")
        third, paused = add(wire, sparse(held, "c"), "c")
        assert held.ask("job.pause", job=paused)["value"]["state"] == "paused"
        for job in (queued, paused, running_job):
            running(held, running_job) if job == running_job else None
            assert held.ask("job.cancel", job=job)["value"]["state"] == "cancelled"
        ends = {number: wire.terminal(number)["code"] for number in (second, third, first)}
        assert set(ends.values()) == {"cancelled"}
        assert held.ask("job.cancel", job=queued)["value"]["state"] == "cancelled"
    assert staging(held) == []
    assert [state for _, state in rows(held)] == ["cancelled"] * 3


def test_the_same_request_right_after_a_cancel_is_done(held: HeldDaemon) -> None:
    """Ctrl-C, arrow up, enter."""
    held.configure("[limits]\nrunning_bytes = 2\n")
    held.start()
    path = sparse(held, "a")
    one = held.connect()
    _, first = add(one, path, "a")
    running(held, first)
    one.close()
    with held.connect() as two:
        number = two.request("model.add", path=path, name="a")
        held.release()
        assert two.terminal(number)["type"] == "result"


def test_a_paused_job_waits_for_its_resume(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    with held.connect() as wire:
        first, job = add(wire, sparse(held, "a"), "a")
        second, other = add(wire, sparse(held, "b"), "b")
        running(held, job)
        assert held.ask("job.pause", job=job)["value"]["state"] == "paused"
        assert staging_sizes(held) <= SIZE
        running(held, other)
        held.release()
        assert wire.terminal(second)["type"] == "result"
        assert show(held, job)["state"] == "paused"
        assert held.ask("job.pause", job=job)["value"]["state"] == "paused"
        held.kill()
        held.start()
        assert show(held, job)["state"] == "paused"
        resumed = held.ask("job.resume", job=job)["value"]
        assert resumed["state"] in ("queued", "running", "done")
        wait_until(lambda: show(held, job)["state"] == "done")
        assert held.ask("job.pause", job=job)["code"] == "invalid_request"
        assert held.ask("job.resume", job=job)["code"] == "invalid_request"
    assert first != second


def staging_sizes(daemon: RealDaemon) -> int:
    directory = os.path.join(daemon.root, ".modeld", "staging")
    return sum(os.stat(os.path.join(directory, name)).st_size for name in os.listdir(directory))


def test_a_request_for_paused_work_makes_it_go_on(held: HeldDaemon) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as one, held.connect() as two:
        first, job = add(one, path, "a")
        held.ask("job.pause", job=job)
        held.release()
        second, same = add(two, path, "a")
        assert same == job
        assert one.terminal(first)["type"] == two.terminal(second)["type"] == "result"


def test_a_job_that_is_moved_up_runs_first(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n")
    held.start()
    with held.connect() as wire:
        numbers, ids = zip(*[add(wire, sparse(held, name), name) for name in "abcd"], strict=True)
        assert [show(held, job)["position"] for job in ids] == [0, 1, 2, 3]
        assert held.ask("job.prioritize", job=ids[3], priority=-7)["value"]["priority"] == 1
        assert [show(held, job)["position"] for job in ids] == [0, 2, 3, 1]
        assert wire.until(numbers[3], "accepted")["position"] == 1
        held.release()
        assert {wire.read()["type"] for _ in range(1)} <= {"accepted", "progress", "result"}
        wait_until(lambda: all(show(held, job)["state"] == "done" for job in ids))
    ended = sorted(ids, key=lambda job: show(held, job)["ended_at"])
    assert ended == [ids[0], ids[3], ids[1], ids[2]]
    assert held.ask("job.prioritize", job=ids[0], priority=2)["code"] == "invalid_request"


@pytest.mark.parametrize("on_disconnect", ["cancel", "continue"])
def test_ctrl_c_in_one_command_says_that_the_job_goes_on(held: HeldDaemon, on_disconnect: str) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as other:
        _, job = add(other, path, "a", on_disconnect=on_disconnect)
        running(held, job)
        if on_disconnect == "continue":
            other.close()
        words = interrupted(held, job, path)
        who = "another client wants" if on_disconnect == "cancel" else "waits for no client"
        assert f"interrupted: job {job}, which {who}, goes on\n" in words
        assert show(held, job)["state"] == "running"
        held.release()
        wait_until(lambda: show(held, job)["state"] == "done")


def test_ctrl_c_in_the_last_command_says_that_the_job_was_stopped(held: HeldDaemon) -> None:
    held.start()
    path = sparse(held, "a")
    with held.connect() as other:
        _, job = add(other, path, "a")
        running(held, job)
        with command(held, job, path) as process:
            other.close()
            wait_until(lambda: show(held, job)["watchers"] == 1)
            words = ctrl_c(process)
    assert f"interrupted: job {job} was stopped, and a was not added\n" in words
    assert show(held, job)["state"] == "cancelled"


def interrupted(held: HeldDaemon, job: str, path: str) -> str:
    with command(held, job, path) as process:
        return ctrl_c(process)


def command(held: HeldDaemon, job: str, path: str) -> subprocess.Popen[str]:
    """One that has joined the job."""
    words = [*COMMAND, "add", path, "--name", "a", "--events"]
    process = subprocess.Popen(words, env=held.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert job in process.stdout.readline()
    return process


def ctrl_c(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    return words
