"""The table of a job's stages: written down as it is, and kept for each stage and event, alone and on a real board."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from modeld.jobs import states
from modeld.jobs.job import AnyJob, Job
from modeld.jobs.record import Unreadable
from modeld.jobs.restart import drain
from modeld.jobs.states import STATES, TABLE, Asked, End, Event, Stage, after
from modelwire.errors import Draining, WireError
from modelwire.requests import Write
from modelwire.vocabulary import JobState
from rigs.board_rig import Desk, desk
from rigs.waiting import eventually

STAGES: tuple[Stage, ...] = tuple(TABLE)
EVENTS: tuple[Event, ...] = (*get_args(Asked), "start", "stop", "restore", *get_args(End), "withdraw")
PAIRS = list(product(STAGES, EVENTS))

WAYS: dict[Stage, tuple[Event, ...]] = {
    "queued": (),
    "running": ("start",),
    "pausing": ("start", "pause"),
    "yielding": ("start", "yield"),
    "cancelling": ("start", "cancel"),
    "parking": ("start", "park"),
    "paused": ("pause",),
    "parked": ("leave",),
    "left": ("start", "leave"),
    "ending": ("start", "end"),
    "done": ("start", "end", "done"),
    "failed": ("start", "end", "failed"),
    "cancelled": ("start", "cancel", "stop", "cancelled"),
    "withdrawn": ("withdraw",),
}
"""How a new job comes to each stage."""


def job_at(stage: Stage) -> AnyJob:
    kind, request = Unreadable("model.add"), Write()
    made = Job(id="j", kind=kind, key="k", request=request, peer=1, priority=3, on_disconnect="cancel", created_at=0.0)
    for event in WAYS[stage]:
        assert made.move(event) is not None
    assert made.stage == stage
    return made


def written_table() -> dict[tuple[str, str], str]:
    """The one in the module's docstring, by stage and column."""
    rows = re.findall(r"^    (\w.*)$", str(states.__doc__), re.MULTILINE)
    head, *body = [row.split() for row in rows]
    return {(cells[0], column): cell for cells in body for column, cell in zip(head[1:], cells[1:], strict=True)}


def test_the_table_that_is_written_is_the_one_that_counts() -> None:
    written = written_table()
    assert {stage for stage, _ in written} == set(STAGES)
    assert {column for _, column in written} == {*EVENTS, "record"} - {*get_args(End), "withdraw"}
    for stage, event in PAIRS:
        if event == "withdraw":
            continue
        following = TABLE[stage].get(event) or ("-" if event in get_args(Asked) else "!")
        if event in get_args(End):
            assert written[stage, "record"] == ("*" if following == event else following), (stage, event)
        else:
            assert written[stage, event] == following, (stage, event)


@pytest.mark.parametrize(("stage", "event"), PAIRS)
def test_each_event_at_each_stage_moves_the_job_or_is_refused_or_ignored(stage: Stage, event: Event) -> None:
    job = job_at(stage)
    state, position, sign = job.state, job.position, job.progress.stop_reason
    following: Stage | None = "withdrawn" if event == "withdraw" else TABLE[stage].get(event)
    if following is None and event not in get_args(Asked):
        with pytest.raises(ValueError, match=f"{stage}.*{event}"):
            job.move(event)
    else:
        assert job.move(event) == following
    if following is None:
        assert (job.stage, job.state, job.position, job.progress.stop_reason) == (stage, state, position, sign)
        return
    assert job.stage == following
    assert job.state == STATES.get(following, state), "a client sees the state, or the one before"
    if following in STATES:
        assert job.position == (0 if following == "running" else None)
    wanted = {"pausing": "pause", "yielding": "yield", "cancelling": "cancel", "parking": "park", "queued": None}
    assert job.progress.stop_reason == wanted.get(following, sign)


def test_what_is_over_stays_over_for_clients() -> None:
    """Ended, about to end, or left to the next start."""
    over: tuple[Stage, ...] = ("parked", "left", "ending", "done", "failed", "cancelled", "withdrawn")
    asked_by_clients: tuple[Event, ...] = ("pause", "resume")
    for stage, event in product(over, asked_by_clients):
        assert after(stage, event) is None


def test_a_state_that_ends_a_job_is_never_left() -> None:
    for stage in get_args(End):
        assert TABLE[stage] == {}


def test_a_cancel_is_never_weakened() -> None:
    job = job_at("cancelling")
    weaker: tuple[Event, ...] = ("pause", "park")
    for event in weaker:
        assert job.move(event) is None
    assert job.progress.stop_reason == "cancel"


# -- on a board: what a client, or the stop of the daemon, does to a job at each stage that it can meet


async def queued(at: Desk) -> AnyJob:
    await at.job("other")
    return await at.job("llama")


async def running(at: Desk) -> AnyJob:
    job = await at.job("llama")
    await eventually(lambda: job.attempts)
    return job


async def paused(at: Desk) -> AnyJob:
    job = await queued(at)
    await at.board.pause(job)
    return job


def asked_to(event: Event) -> Callable[[Desk], Awaitable[AnyJob]]:
    """Running, and deaf until the control that is tested was given."""

    async def make(at: Desk) -> AnyJob:
        at.work.deaf = True
        job = await running(at)
        job.cancel_reason = "first"
        assert job.move(event)
        return job

    return make


async def ending(at: Desk) -> AnyJob:
    """Cancelled while it waited, and the ledger takes its time."""
    job = await queued(at)
    at.ledger.gate = anyio.Event()
    at.tasks.start_soon(at.board.cancel, job, "first")
    await eventually(lambda: job.stage == "ending")
    return job


async def parked(at: Desk) -> AnyJob:
    job = await queued(at)
    at.board.draining = True
    at.gate.withdraw(job.id)
    at.board.runner.leave(job)
    return job


async def left(at: Desk) -> AnyJob:
    """At work when the daemon stopped, and deaf."""
    at.work.deaf = True
    job = await running(at)
    await drain(at.board, 0.0, stop_seconds=0.01)
    return job


async def done(at: Desk) -> AnyJob:
    at.finish.set()
    job = await at.job("llama")
    await job.ended.wait()
    return job


MAKERS: dict[Stage, Callable[[Desk], Awaitable[AnyJob]]] = {
    "queued": queued,
    "running": running,
    "pausing": asked_to("pause"),
    "yielding": asked_to("yield"),
    "cancelling": asked_to("cancel"),
    "parking": asked_to("park"),
    "paused": paused,
    "ending": ending,
    "parked": parked,
    "left": left,
    "done": done,
}

OUTCOMES: dict[tuple[Stage, str], tuple[JobState, JobState, str]] = {
    # what the job is in the end, what the ledger has, the last event that the log has of it
    ("queued", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("queued", "pause"): ("paused", "paused", "job.paused"),
    ("queued", "resume"): ("queued", "queued", "job.queued"),
    ("queued", "drain"): ("queued", "queued", "job.parked"),
    ("running", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("running", "pause"): ("paused", "paused", "job.paused"),
    ("running", "resume"): ("running", "queued", "job.started"),
    ("running", "drain"): ("running", "queued", "job.parked"),
    ("pausing", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("pausing", "pause"): ("paused", "paused", "job.paused"),
    ("pausing", "resume"): ("running", "queued", "job.started"),
    ("pausing", "drain"): ("running", "queued", "job.parked"),
    ("yielding", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("yielding", "pause"): ("paused", "paused", "job.paused"),
    ("yielding", "resume"): ("running", "queued", "job.started"),
    ("yielding", "drain"): ("running", "queued", "job.parked"),
    ("cancelling", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("cancelling", "pause"): ("cancelled", "cancelled", "job.cancelled"),
    ("cancelling", "resume"): ("cancelled", "cancelled", "job.cancelled"),
    ("cancelling", "drain"): ("cancelled", "cancelled", "job.cancelled"),
    ("parking", "cancel"): ("running", "queued", "job.parked"),
    ("parking", "pause"): ("running", "queued", "job.parked"),
    ("parking", "resume"): ("running", "queued", "job.parked"),
    ("parking", "drain"): ("running", "queued", "job.parked"),
    ("paused", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("paused", "pause"): ("paused", "paused", "job.paused"),
    ("paused", "resume"): ("queued", "queued", "job.resumed"),
    ("paused", "drain"): ("paused", "paused", "job.parked"),
    ("ending", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("ending", "pause"): ("cancelled", "cancelled", "job.cancelled"),
    ("ending", "resume"): ("cancelled", "cancelled", "job.cancelled"),
    ("ending", "drain"): ("cancelled", "cancelled", "job.cancelled"),
    ("parked", "cancel"): ("cancelled", "cancelled", "job.cancelled"),
    ("parked", "pause"): ("queued", "queued", "job.parked"),
    ("parked", "resume"): ("queued", "queued", "job.parked"),
    ("parked", "drain"): ("queued", "queued", "job.parked"),
    ("left", "cancel"): ("running", "queued", "job.parked"),
    ("left", "pause"): ("running", "queued", "job.parked"),
    ("left", "resume"): ("running", "queued", "job.parked"),
    ("left", "drain"): ("running", "queued", "job.parked"),
    ("done", "cancel"): ("done", "done", "job.done"),
    ("done", "pause"): ("done", "done", "job.done"),
    ("done", "resume"): ("done", "done", "job.done"),
    ("done", "drain"): ("done", "done", "job.done"),
}


@pytest.mark.parametrize(("stage", "control"), OUTCOMES)
async def test_each_control_at_each_stage_has_its_effects(tmp_path: Path, stage: Stage, control: str) -> None:
    async with desk(tmp_path) as at:
        job = await MAKERS[stage](at)
        assert job.stage == stage
        controls: dict[str, Callable[[], Awaitable[Any]]] = {
            "cancel": lambda: at.board.cancel(job, "second"),
            "pause": lambda: at.board.pause(job),
            "resume": lambda: at.board.resume(job),
            "drain": lambda: drain(at.board, 0.0),
        }
        faults: list[WireError] = []

        async def give() -> None:
            try:
                await controls[control]()
            except WireError as fault:
                faults.append(fault)

        async with anyio.create_task_group() as given:
            given.start_soon(give)
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            at.work.deaf = False
            at.ledger.gate.set()
        state, stored, event = OUTCOMES[stage, control]
        await eventually(lambda: at.diary.events_of(job)[-1] == event)
        row = await at.ledger.get(job.id)
        assert row is not None
        assert (job.state, row.state) == (state, stored)
        assert [type(fault) for fault in faults] == []
        assert job.ended.is_set() == (event not in ("job.queued", "job.started", "job.resumed", "job.paused"))
        if event == "job.cancelled" and stage != "done":
            words = "first" if stage in ("ending",) or (stage == "cancelling" and control != "cancel") else "second"
            assert job.failure is not None
            assert job.failure.message.endswith(f"was cancelled: {words}")
        if event == "job.parked":
            assert job.failure is not None
            assert job.failure.code == "interrupted"
        holds_a_place = event in ("job.queued", "job.started", "job.resumed")
        await eventually(lambda: (job.id in at.gate) == holds_a_place)


async def test_work_that_a_stop_has_left_is_recorded_when_it_ends_after_all(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await left(at)
        at.finish.set()
        await eventually(lambda: job.stage == "done")
        row = await at.ledger.get(job.id)
        assert row is not None
        assert row.state == "done"
        assert at.diary.events_of(job)[-2:] == ["job.parked", "job.done"]


async def test_what_was_paused_is_not_resumed_by_a_daemon_that_stops(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await paused(at)
        await drain(at.board, 0.0)
        with pytest.raises(Draining):
            await at.board.resume(job)
        assert job.stage == "parked"
