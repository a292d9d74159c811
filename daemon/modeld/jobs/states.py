"""The stages of a job, and the events that move it from one to the next.

    stage      start   pause   yield    cancel     park    stop   resume restore end    record    leave  abandon
    queued     running paused  -        ending     -       !      -      queued  ending !         parked -
    running    !       pausing yielding cancelling parking ending -      queued  ending !         left   failed
    pausing    !       -       -        cancelling parking paused -      !       ending !         left   failed
    yielding   !       pausing -        cancelling parking queued -      !       ending !         left   failed
    cancelling !       -       -        -          -       ending -      !       ending !         left   failed
    parking    !       -       -        -          -       parked -      !       ending !         left   failed
    paused     !       -       -        ending     -       !      queued paused  ending !         parked failed
    parked     !       -       -        ending     -       !      -      !       -      !         -      -
    left       !       -       -        -          -       left   -      !       ending *         -      -
    ending     !       -       -        -          -       !      -      !       -      *         left   failed
    done       !       -       -        -          -       !      -      !       -      !         -      -
    failed     !       -       -        -          -       !      -      !       -      !         -      -
    cancelled  !       -       -        -          -       !      -      !       -      !         -      -
    withdrawn  !       -       -        -          -       !      -      !       -      withdrawn -      -

`-`: the event is ignored, it comes too late or means nothing here. `!`: it cannot happen here, and raises ValueError.
`*`: `record` stands for three events, done, failed and cancelled; the job becomes what the event is called.

- start: the gate gives the job a slot.
- pause, cancel: a client asks for it, or the last client has left. Work that runs is asked to stop.
- yield: other jobs wait for its slot, and it can go on later. Work that runs is asked to stop.
- park: the daemon stops. Work that runs is asked to stop.
- stop: the work has stopped because it was asked to.
- resume: a client asks for it, or a new request joins the job.
- restore: the daemon starts and finds the job open in its ledger.
- end: the work has returned or failed, or had taken place before a crash. The ledger is being written.
- record: the ledger has the end, or could not take it.
- leave: the stopping daemon waits no longer. Work that is still under way may yet end: `left`.
- abandon: an unforeseen error has stopped the job on its way.
- withdraw, at any stage, makes it `withdrawn`: the ledger could not take the job, which was never there.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from modelwire.vocabulary import JobState

Moving = Literal["pausing", "yielding", "cancelling", "parking", "ending", "parked", "left", "withdrawn"]
"""Stages that clients do not see: a job that is at one shows the state that it had before."""

Stage = JobState | Moving

End = Literal["done", "failed", "cancelled"]

Asked = Literal["pause", "yield", "cancel", "park", "resume", "end", "leave", "abandon"]
"""Events that may come at any stage, and are ignored where the table has no entry."""

Event = Asked | End | Literal["start", "stop", "restore", "withdraw"]

STATES: Final[dict[Stage, JobState]] = {state: state for state in get_args(JobState)}
"""The stages that clients see."""

TABLE: Final[dict[Stage, dict[Event, Stage]]] = {
    "queued": {
        "start": "running",
        "pause": "paused",
        "cancel": "ending",
        "restore": "queued",
        "end": "ending",
        "leave": "parked",
    },
    "running": {
        "pause": "pausing",
        "yield": "yielding",
        "cancel": "cancelling",
        "park": "parking",
        "stop": "ending",
        "restore": "queued",
        "end": "ending",
        "leave": "left",
        "abandon": "failed",
    },
    "pausing": {
        "cancel": "cancelling",
        "park": "parking",
        "stop": "paused",
        "end": "ending",
        "leave": "left",
        "abandon": "failed",
    },
    "yielding": {
        "pause": "pausing",
        "cancel": "cancelling",
        "park": "parking",
        "stop": "queued",
        "end": "ending",
        "leave": "left",
        "abandon": "failed",
    },
    "cancelling": {"stop": "ending", "end": "ending", "leave": "left", "abandon": "failed"},
    "parking": {"stop": "parked", "end": "ending", "leave": "left", "abandon": "failed"},
    "paused": {
        "cancel": "ending",
        "resume": "queued",
        "restore": "paused",
        "end": "ending",
        "leave": "parked",
        "abandon": "failed",
    },
    "parked": {"cancel": "ending"},
    "left": {"stop": "left", "end": "ending", "done": "done", "failed": "failed", "cancelled": "cancelled"},
    "ending": {"done": "done", "failed": "failed", "cancelled": "cancelled", "leave": "left", "abandon": "failed"},
    "done": {},
    "failed": {},
    "cancelled": {},
    "withdrawn": {"done": "withdrawn", "failed": "withdrawn", "cancelled": "withdrawn"},
}


def after(stage: Stage, event: Event) -> Stage | None:
    """The stage that the event leads to; None when it is ignored."""
    if event == "withdraw":
        return "withdrawn"
    following = TABLE[stage].get(event)
    if following is None and event not in get_args(Asked):
        raise ValueError(f"a job that is {stage} cannot meet the event {event!r}")
    return following
