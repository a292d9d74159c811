"""A stop in good order: nobody is left without an answer, nothing is left half done, and the next start goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.real_jobs import add, show, staging
from rigs.waiting import wait_until

CROWD = 50


def until_closed(wire: Wire) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(EOFError):
        while True:
            yield wire.read()


def state_of(daemon: RealDaemon, job: str) -> str:
    return str(show(daemon, job)["state"])


def signalled(daemon: RealDaemon, number: int = signal.SIGTERM) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(number)


def assert_stopped_in_order(daemon: RealDaemon) -> None:
    assert daemon.wait() == 0
    assert not os.path.lexists(daemon.socket)
    assert staging(daemon) == []
    told = [row["event"] for row in daemon.activity()]
    assert told.count("daemon.stopping") == told.count("daemon.stopped") == told.count("daemon.started")
    assert told[-1] == "daemon.stopped"
    assert "Traceback" not in daemon.log()
    assert "incident" not in daemon.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(daemon: RealDaemon, number: int) -> None:
    began = time.monotonic()
    signalled(daemon, number)
    assert_stopped_in_order(daemon)
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("by", ["signal", "request"])
def test_what_runs_may_end_before_the_deadline(held: HeldDaemon, by: str) -> None:
    """And its asker is told the result, not that the daemon stopped."""
    held.start()
    with held.connect() as wire, held.connect() as looker:
        number, job = add(wire, held.file("a", b"GGUF" * 500), "a")
        wait_until(lambda: state_of(held, job) == "running")
        attached = looker.request("job.attach", job=job)
        looker.until(attached, "accepted")
        if by == "signal":
            signalled(held)
        else:
            assert held.ask("daemon.drain", deadline_s=60)["value"] == {"running": 1, "waiting": 0, "deadline_s": 60.0}
        wait_until(lambda: wire.ask("daemon.status")["value"]["state"] == "draining")
        held.release()
        assert wire.terminal(number)["type"] == "result"
        assert looker.terminal(attached)["value"]["state"] == "done"
        assert wire.closed()
    assert_stopped_in_order(held)
    held.start()
    assert state_of(held, job) == "done"


def test_while_it_drains_reads_are_answered_and_writes_refused(held: HeldDaemon) -> None:
    held.release()
    held.start()
    ready = held.file("ready", b"GGUF ready")
    assert held.ask("model.add", path=ready, name="ready")["type"] == "result"
    held.hold()
    with held.connect() as wire:
        number, job = add(wire, held.file("a", b"GGUF weights"), "a", on_disconnect="continue")
        signalled(held)
        wait_until(lambda: wire.ask("daemon.status")["value"]["state"] == "draining")
        for op, fields in {
            "model.resolve": {"name": "ready"},
            "model.show": {"name": "ready"},
            "model.list": {},
            "job.list": {},
            "job.show": {"job": job},
        }.items():
            assert held.ask(op, **fields)["type"] == "result", op
        refused = held.ask("model.add", path=ready, name="other")
        assert (refused["code"], refused["retryable"]) == ("draining", True)
        assert "hint" in refused
        held.release()
        assert wire.terminal(number)["type"] == "result"
    assert_stopped_in_order(held)


def test_what_is_not_done_by_the_deadline_goes_on_at_the_next_start(held: HeldDaemon) -> None:
    held.configure("[limits]\nrunning_bytes = 1\n[daemon]\ndrain_deadline = '200ms'\n")
    held.start()
    with held.connect() as wire:
        numbers, jobs = zip(*[add(wire, held.file(name, name.encode() * 9), name) for name in "abc"], strict=True)
        assert held.ask("job.pause", job=jobs[2])["value"]["state"] == "paused"
        signalled(held)
        ends: dict[str, dict[str, Any]] = {}
        while len(ends) < 3:
            reply = wire.read()
            if reply["type"] in ("result", "error"):
                ends[reply["id"]] = reply
        assert {ends[number]["code"] for number in numbers} == {"interrupted"}
        assert {ends[number]["details"]["job"] for number in numbers} == set(jobs)
        assert all(ends[number]["retryable"] for number in numbers)
        assert wire.closed()
    assert_stopped_in_order(held)
    held.release()
    held.start()
    wait_until(lambda: [state_of(held, job) for job in jobs] == ["done", "done", "paused"])


def test_a_drain_may_shorten_its_deadline(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        number, _ = add(wire, held.file("a", b"GGUF weights"), "a")
        assert wire.ask("daemon.drain", deadline_s=0)["value"]["deadline_s"] == 0
        assert wire.terminal(number)["code"] == "interrupted"
    assert_stopped_in_order(held)


@pytest.mark.parametrize("deadline", [-1, 1e9])
def test_a_drain_without_sense_changes_nothing(daemon: RealDaemon, deadline: float) -> None:
    assert daemon.ask("daemon.drain", deadline_s=deadline)["code"] == "invalid_request"
    assert daemon.ask("daemon.status")["value"]["state"] == "ready"


def test_every_client_of_fifty_jobs_in_flight_is_answered(held: HeldDaemon) -> None:
    held.configure(
        "[limits]\nconnections_per_peer = 200\nrequests_per_peer = 200\nwaiting_per_peer = 100\nwaiting_total = 100\n"
        "[daemon]\ndrain_deadline = '300ms'\n"
    )
    held.start()
    wires = [held.connect() for _ in range(CROWD)]
    watchers = [held.connect() for _ in range(5)]
    subscribed = [watcher.request("events.subscribe") for watcher in watchers]
    numbers, jobs = [], []
    for index, wire in enumerate(wires):
        number, job = add(wire, held.file(f"s{index}", b"%d" % index), f"m{index}")
        numbers.append(number)
        jobs.append(job)
    signalled(held)
    for wire, number, job in zip(wires, numbers, jobs, strict=True):
        end = wire.terminal(number)
        assert (end["code"], end["details"]["job"]) == ("interrupted", job)
        assert not any(reply.get("id") == number for reply in until_closed(wire))
    for watcher, number in zip(watchers, subscribed, strict=True):
        assert watcher.terminal(number)["code"] == "interrupted"
        assert watcher.closed()
    for wire in (*wires, *watchers):
        wire.close()
    assert_stopped_in_order(held)
    assert not os.path.exists(os.path.join(held.root, "manifests", "m0.json"))
    held.release()
    held.start()
    assert held.ask("daemon.status")["value"]["recovery"]["jobs_resumed"] == CROWD
    wait_until(lambda: len(held.ask("job.list", state="done", limit=1000)["value"]["jobs"]) == CROWD)
    assert len(held.ask("model.list")["value"]["models"]) == CROWD


def test_a_client_that_does_not_read_does_not_hold_the_stop_up(held: HeldDaemon) -> None:
    held.slow(0.01)
    held.start()
    with held.connect() as deaf:
        path = held.file("a", b"")
        os.truncate(path, 400 << 20)
        add(deaf, path, "a")
        deaf.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                deaf.request("daemon.describe")
        began = time.monotonic()
        held.ask("daemon.drain", deadline_s=0)
        assert_stopped_in_order(held)
        assert time.monotonic() - began < 15.0


def test_a_second_signal_ends_at_once(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        _, job = add(wire, held.file("a", b"GGUF weights"), "a")
        signalled(held)
        wait_until(lambda: wire.ask("daemon.status")["value"]["state"] == "draining")
        signalled(held)
        assert held.wait(5) == 128 + signal.SIGTERM
    held.release()
    held.start()
    wait_until(lambda: state_of(held, job) == "done")


def test_the_first_signal_after_a_drain_does_not_cut_it_short(held: HeldDaemon) -> None:
    """A service manager stops what somebody has asked to stop already."""
    held.start()
    with held.connect() as wire:
        number, _ = add(wire, held.file("a", b"GGUF weights"), "a")
        held.ask("daemon.drain", deadline_s=60)
        signalled(held)
        wait_until(lambda: "SIGTERM" in held.log())
        held.release()
        assert wire.terminal(number)["type"] == "result"
    assert_stopped_in_order(held)


def test_a_pause_while_it_drains_does_not_keep_it(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire, held.connect() as control:
        number, job = add(wire, held.file("a", b"GGUF weights"), "a")
        signalled(held)
        wait_until(lambda: control.ask("daemon.status")["value"]["state"] == "draining")
        assert control.ask("job.pause", job=job)["type"] == "result"
        assert wire.terminal(number)["code"] == "interrupted"
        assert_stopped_in_order(held)
    held.release()
    held.start()
    assert state_of(held, job) == "paused"


# -- nobody needs it any more


def test_a_daemon_that_a_client_started_ends_when_nobody_needs_it(held: HeldDaemon) -> None:
    held.environ["MODELD_DAEMON_IDLE_EXIT"] = "1s"
    held.start("--auto-started")
    connected = held.connect()
    subscribed = connected.request("events.subscribe")
    number, job = add(connected, held.file("a", b"GGUF weights"), "a", on_disconnect="continue")
    assert held.process is not None
    # Longer than its patience, twice: a connection keeps it, then a job does.
    with pytest.raises(subprocess.TimeoutExpired):
        held.process.wait(1.5)
    assert subscribed != number
    connected.close()
    with pytest.raises(subprocess.TimeoutExpired):
        held.process.wait(1.5)
    held.release()
    ended = time.monotonic()
    assert held.wait() == 0
    assert time.monotonic() - ended > 0.5
    assert not os.path.lexists(held.socket)
    held.start()
    assert state_of(held, job) == "done"


def test_a_daemon_that_was_started_by_hand_stays(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_DAEMON_IDLE_EXIT"] = "1s"
    stopped.start()
    assert stopped.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        stopped.process.wait(1.5)
    assert stopped.ask("daemon.status")["value"].get("auto_started", False) is False


# -- the endpoint is taken away


def test_a_daemon_that_cannot_be_reached_any_more_ends(held: HeldDaemon) -> None:
    held.environ["MODELD_DAEMON_ENDPOINT_CHECK"] = "0.2s"
    held.environ["MODELD_DAEMON_DRAIN_DEADLINE"] = "0s"
    held.start()
    with held.connect() as wire:
        number, _ = add(wire, held.file("a", b"GGUF weights"), "a")
        os.unlink(held.socket)
        assert wire.terminal(number)["code"] == "interrupted"
    assert held.wait() == 1
    assert "the endpoint was removed or replaced" in held.log()
    held.start()


def test_a_foreign_endpoint_is_left_alone(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_DAEMON_ENDPOINT_CHECK"] = "0.2s"
    stopped.start()
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(f"{stopped.socket}.new")
        foreign.listen()
        os.rename(f"{stopped.socket}.new", stopped.socket)
        there = os.lstat(stopped.socket)
        assert stopped.wait() == 1
        assert os.lstat(stopped.socket).st_ino == there.st_ino
    assert "the endpoint was removed or replaced" in stopped.log()
