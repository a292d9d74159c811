"""Where live jobs are found: by id, by work, by token; and for how long a finished one is remembered."""

from __future__ import annotations

from typing import Any

from modeld.jobs.ids import new_id
from modeld.jobs.index import _REMEMBERED, JobIndex
from modeld.jobs.job import AnyJob, Job
from modeld.jobs.record import Unreadable
from modelwire.requests import Write

UID, OTHER = 1000, 2000


def job(key: str = "k", **fields: Any) -> AnyJob:
    defaults: dict[str, Any] = {"peer": UID, "priority": 3, "on_disconnect": "cancel", "created_at": 0.0}
    return Job(id=new_id(), kind=Unreadable("model.add"), key=key, request=Write(), **(defaults | fields))


def test_a_job_is_found_by_what_it_does_and_by_its_token() -> None:
    index, made = JobIndex(), job("k", token="t")
    index.enter(made)
    assert made in index
    assert len(index) == 1
    assert index.live(made.id) is index.get(made.id) is made
    assert index.same_work("k", OTHER, None) is made
    assert index.same_work("other", UID, "t") is made
    assert index.same_work("other", OTHER, "t") is None
    assert index.same_work("other", UID, None) is None


def test_a_token_counts_before_the_work() -> None:
    index, by_token, by_key = JobIndex(), job("a", token="t"), job("b")
    index.enter(by_token)
    index.enter(by_key)
    assert index.same_work("b", UID, "t") is by_token


def test_the_first_of_two_with_the_same_work_is_the_one_to_join() -> None:
    index, first, second = JobIndex(), job("k"), job("k")
    index.enter(first)
    index.enter(second)
    assert index.same_work("k", UID, None) is first
    index.leave(second, remember=True)
    assert index.same_work("k", UID, None) is first


def test_a_job_that_is_closed_to_joining_is_still_found_by_id_and_token() -> None:
    index, made, next_one = JobIndex(), job("k", token="t"), job("k")
    index.enter(made)
    index.close_to_joining(made)
    assert index.same_work("k", UID, None) is None
    assert index.same_work("k", UID, "t") is made
    assert index.live(made.id) is made
    index.enter(next_one)
    index.close_to_joining(made)
    index.leave(made, remember=True)
    assert index.same_work("k", UID, None) is next_one


def test_who_left_is_remembered_for_a_while() -> None:
    index = JobIndex()
    made = [job(str(index), token=str(index)) for index in range(_REMEMBERED + 1)]
    for one in made:
        index.enter(one)
        index.leave(one, remember=True)
    assert len(index) == 0
    assert index.same_work("0", UID, "0") is None
    assert index.live(made[-1].id) is None
    assert index.get(made[-1].id) is made[-1]
    assert index.get(made[1].id) is made[1]
    assert index.get(made[0].id) is None


def test_who_was_never_there_is_not_remembered() -> None:
    index, made = JobIndex(), job()
    index.enter(made)
    index.leave(made, remember=False)
    assert index.get(made.id) is None
    index.leave(made, remember=False)


def test_jobs_may_leave_while_they_are_looked_through() -> None:
    index = JobIndex()
    made = [job(str(index)) for index in range(5)]
    for one in made:
        index.enter(one)
    for one in index:
        index.leave(one, remember=False)
    assert len(index) == 0
