"""The queue's limits and its order, at the socket of a real daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import held_name, status
from rigs.waiting import wait_until

StartHeld = Callable[..., HeldDaemon]


@pytest.fixture
def start(held: HeldDaemon) -> StartHeld:
    """Starts the daemon with some settings of its own. It copies until it is held."""

    def started(**settings: str) -> HeldDaemon:
        held.environ.update({f"MODELD_{name}": value for name, value in settings.items()})
        held.release()
        held.start()
        return held

    return started


@contextlib.contextmanager
def busy_runner(daemon: HeldDaemon) -> Iterator[str]:
    """The only slot is taken for as long as the block runs; the id of the job that has it."""
    path = daemon.file("busy.bin", b"busy")
    with daemon.connect() as wire:
        daemon.hold()
        try:
            wire.request("model.add", path=path, name="busy", id="busy", on_disconnect="continue", priority=1)
            accepted = wire.until("busy", "accepted")
            assert accepted["position"] == 0
            yield accepted["job"]
        finally:
            daemon.release()


def enqueue(wire: Wire, path: str, names: list[str], **fields: object) -> dict[str, str]:
    """Asks for one job for each name; the jobs' ids by name, in the order in which they were accepted."""
    for name in names:
        wire.request("model.add", path=path, name=name, id=name, **fields)
    return {name: wire.until(name, "accepted")["job"] for name in names}


def test_sixteen_jobs_of_one_peer_may_wait(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1")
    path = daemon.file("a.bin", b"a")
    names = [f"n{number}" for number in range(16)]
    with daemon.connect() as wire:
        with busy_runner(daemon):
            enqueue(wire, path, names)
            refused = wire.ask("model.add", path=path, name="late")
            assert refused["code"] == "queue_full"
            assert refused["retryable"]
            assert refused["retry_after_ms"] > 0
            assert refused["details"] == {"depth": 16, "limit": 64, "peer_depth": 16, "peer_limit": 16}
            assert "16" in refused["message"]
            assert refused["hint"]
            queue = status(daemon)["queue"]
            assert (queue["waiting"], queue["running"], queue["capacity"]) == (16, 1, 64)
        for name in names:
            assert wire.terminal(name)["type"] == "result", name
        assert wire.ask("model.add", path=path, name="late", id="again")["type"] == "result"


def test_the_total_of_waiting_jobs_is_bounded_too(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_TOTAL="3", LIMITS_WAITING_PER_PEER="10")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire, busy_runner(daemon):
        enqueue(wire, path, ["a", "b", "c"])
        refused = wire.ask("model.add", path=path, name="d")
        assert refused["code"] == "queue_full"
        assert "limit is 3" in refused["message"]
        assert refused["details"]["depth"] == 3


def test_pause_and_resume_do_not_go_round_the_limits(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_PER_PEER="2")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire, busy_runner(daemon):
        jobs = enqueue(wire, path, ["a", "b"])
        for job in jobs.values():
            assert daemon.ask("job.pause", job=job)["value"]["state"] == "paused"
        more = enqueue(wire, path, ["c", "d"])
        refused = daemon.ask("job.resume", job=jobs["a"])
        assert (refused["code"], refused["retryable"]) == ("queue_full", True)
        assert refused["retry_after_ms"] > 0
        assert daemon.ask("model.add", path=path, name="a")["code"] == "queue_full", "joining it would resume it"
        refused = daemon.ask("job.pause", job=more["c"])
        assert refused["code"] == "queue_full"
        assert refused["details"] == {"peer_paused": 2, "peer_limit": 2}
        assert status(daemon)["queue"]["waiting"] == 2
        daemon.ask("job.cancel", job=more["c"])
        assert daemon.ask("job.resume", job=jobs["a"])["value"]["position"] == 2
        assert status(daemon)["queue"]["waiting"] == 2


def test_joining_a_job_that_waits_needs_no_place(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_TOTAL="1")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire:
        with busy_runner(daemon):
            jobs = enqueue(wire, path, ["a"])
            wire.request("model.add", path=path, name="a", id="joins")
            joined = wire.until("joins", "accepted")
            assert (joined["job"], joined["joined"]) == (jobs["a"], True)
        ends = {reply["id"]: reply["value"]["name"] for reply in (wire.until("a", "result"), wire.terminal("joins"))}
        assert ends == {"a": "a", "joins": "a"}


def test_positions_are_told_and_told_again_when_they_change(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire, busy_runner(daemon):
        jobs = enqueue(wire, path, ["a", "b", "c"])
        told: dict[str, int] = {}
        cancelled = []

        def until_told(wanted: dict[str, int]) -> None:
            while told != wanted:
                reply = wire.read()
                if reply["type"] == "accepted":
                    told[reply["id"]] = reply["position"]
                else:
                    cancelled.append((reply["id"], reply.get("code")))

        shown = [daemon.ask("job.show", job=jobs[name])["value"]["position"] for name in ("a", "b", "c")]
        assert shown == [1, 2, 3]
        assert daemon.ask("job.cancel", job=jobs["a"])["value"]["state"] == "cancelled"
        until_told({"b": 1, "c": 2})
        with daemon.connect() as urgent:
            enqueue(urgent, path, ["first"], priority=1)
            until_told({"b": 2, "c": 3})
        until_told({"b": 1, "c": 2})
        assert cancelled == [("a", "cancelled")], (
            "whoever asked for the first was told, and whoever left gave its place"
        )


@pytest.mark.parametrize("how", ["full close", "half close, then full", "cancel", "half close unread"])
def test_a_waiter_that_vanishes_frees_its_place(start: StartHeld, how: str) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_TOTAL="1")
    path = daemon.file("a.bin", b"a")
    with busy_runner(daemon), daemon.connect() as watching:
        leaver = daemon.connect()
        with leaver:
            gone = enqueue(leaver, path, ["gone"])["gone"]
            assert watching.ask("model.add", path=path, name="mine")["code"] == "queue_full"
            if how == "cancel":
                leaver.request("cancel", target="gone")
            elif how.startswith("half close"):
                leaver.end_sending()
                # Whoever still reads keeps its place.
                assert watching.ask("daemon.status")["value"]["queue"]["waiting"] == 1
            if how != "cancel":
                leaver.close()
            wait_until(lambda: watching.ask("daemon.status")["value"]["queue"]["waiting"] == 0, 20, "a free place")
        wait_until(lambda: watching.ask("job.show", job=gone)["value"]["state"] == "cancelled")
        enqueue(watching, path, ["mine"])


def test_a_job_that_is_to_continue_keeps_its_place_without_its_client(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_TOTAL="1")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as watching:
        with busy_runner(daemon):
            with daemon.connect() as leaver:
                kept = enqueue(leaver, path, ["kept"], on_disconnect="continue")["kept"]
            wait_until(lambda: watching.ask("job.show", job=kept)["value"].get("watchers", 0) == 0)
            assert watching.ask("model.add", path=path, name="other")["code"] == "queue_full"
        wait_until(lambda: watching.ask("job.show", job=kept)["value"]["state"] == "done", 20, "the job is done")
    assert daemon.ask("model.resolve", name="kept")["type"] == "result"


def test_the_lowest_priority_ends_while_the_highest_keeps_coming(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1", JOBS_AGEING="200ms")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as patient, daemon.connect() as pushing:
        with busy_runner(daemon):
            enqueue(pushing, path, [f"first{number}" for number in range(8)], priority=1)
            humble = enqueue(patient, path, ["humble"], priority=5)["humble"]
        # One comes for each that ends: without ageing there would always be eight in front.
        pushed, ended = 8, 0
        while daemon.ask("job.show", job=humble)["value"]["state"] != "done":
            reply = pushing.read()
            if reply["type"] == "result":
                ended += 1
                pushing.request("model.add", path=path, name=f"first{pushed}", id=f"first{pushed}", priority=1)
                pushed += 1
            assert ended < 1000, "the job of priority 5 starves"
        assert patient.terminal("humble")["type"] == "result"


def test_a_job_that_waits_for_a_name_that_another_tool_has_holds_up_nobody(start: StartHeld) -> None:
    """It has no slot meanwhile, and counts as one that waits. The log says for whom it waits."""
    daemon = start(LIMITS_RUNNING_BYTES="1", LIMITS_WAITING_TOTAL="1")
    with daemon.connect() as wire:
        with held_name(daemon, "theirs"):
            enqueue(wire, daemon.file("a.bin", b"a"), ["theirs"])
            wait_until(lambda: status(daemon)["queue"]["waiting"] == 1, what="a job that waits for the name")
            assert wire.ask("model.add", path=daemon.file("b.bin", b"b"), name="free", id="free")["type"] == "result"
            assert status(daemon)["queue"]["running_by_kind"] == {"model.add": 1}
            (event,) = [event for event in daemon.activity() if event["event"] == "name.waiting"]
            assert (event["model"], event["kind"]) == ("theirs", "model.add")
            assert event["message"].endswith(", which has the lock of the name 'theirs'")
        assert wire.terminal("theirs")["type"] == "result"
    assert status(daemon)["queue"]["waiting"] == 0


def test_a_better_priority_goes_first(start: StartHeld) -> None:
    daemon = start(LIMITS_RUNNING_BYTES="1")
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire:
        with busy_runner(daemon):
            for priority in (5, 3, 1, 4, 2):
                enqueue(wire, path, [f"p{priority}"], priority=priority)
        ended = _ends(daemon, {f"p{priority}" for priority in range(1, 6)})
    assert ended == ["p1", "p2", "p3", "p4", "p5"]


def _ends(daemon: RealDaemon, names: set[str]) -> list[str]:
    """The models in the order in which their jobs ended, by the activity log."""
    ends: list[str] = []

    def all_ended() -> bool:
        ends[:] = [event["model"] for event in daemon.activity() if event["event"] == "job.done"]
        return names <= set(ends)

    wait_until(all_ended, 20, f"the ends of {names}")
    return [name for name in ends if name in names]
