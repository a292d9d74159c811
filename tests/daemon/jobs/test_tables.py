"""Where live jobs are found: by id, by work, by token; and for how long a finished one is remembered."""

from __future__ import annotations

from typing import Any

from modeld.jobs.ids import new_id
from modeld.jobs.job import Job
from modeld.jobs.tables import _REMEMBERED, Tables
from modelwire.requests import Write

UID, OTHER = 1000, 2000


def job(key: str = "k", **fields: Any) -> Job:
    defaults: dict[str, Any] = {"peer": UID, "priority": 3, "on_disconnect": "cancel", "created_at": 0.0}
    return Job(id=new_id(), kind="model.add", key=key, request=Write(), **(defaults | fields))


def test_a_job_is_found_by_what_it_does_and_by_its_token() -> None:
    tables, made = Tables(), job("k", token="t")
    tables.enter(made)
    assert made in tables
    assert len(tables) == 1
    assert tables.live(made.id) is tables.get(made.id) is made
    assert tables.same_work("k", OTHER, None) is made
    assert tables.same_work("other", UID, "t") is made
    assert tables.same_work("other", OTHER, "t") is None
    assert tables.same_work("other", UID, None) is None


def test_a_token_counts_before_the_work() -> None:
    tables, by_token, by_key = Tables(), job("a", token="t"), job("b")
    tables.enter(by_token)
    tables.enter(by_key)
    assert tables.same_work("b", UID, "t") is by_token


def test_the_first_of_two_with_the_same_work_is_the_one_to_join() -> None:
    tables, first, second = Tables(), job("k"), job("k")
    tables.enter(first)
    tables.enter(second)
    assert tables.same_work("k", UID, None) is first
    tables.leave(second, remember=True)
    assert tables.same_work("k", UID, None) is first


def test_a_job_that_is_closed_to_joining_is_still_found_by_id_and_token() -> None:
    tables, made, next_one = Tables(), job("k", token="t"), job("k")
    tables.enter(made)
    tables.close_to_joining(made)
    assert tables.same_work("k", UID, None) is None
    assert tables.same_work("k", UID, "t") is made
    assert tables.live(made.id) is made
    tables.enter(next_one)
    tables.close_to_joining(made)
    tables.leave(made, remember=True)
    assert tables.same_work("k", UID, None) is next_one


def test_who_left_is_remembered_for_a_while() -> None:
    tables = Tables()
    made = [job(str(index), token=str(index)) for index in range(_REMEMBERED + 1)]
    for one in made:
        tables.enter(one)
        tables.leave(one, remember=True)
    assert len(tables) == 0
    assert tables.same_work("0", UID, "0") is None
    assert tables.live(made[-1].id) is None
    assert tables.get(made[-1].id) is made[-1]
    assert tables.get(made[1].id) is made[1]
    assert tables.get(made[0].id) is None


def test_who_was_never_there_is_not_remembered() -> None:
    tables, made = Tables(), job()
    tables.enter(made)
    tables.leave(made, remember=False)
    assert tables.get(made.id) is None
    tables.leave(made, remember=False)


def test_jobs_may_leave_while_they_are_looked_through() -> None:
    tables = Tables()
    made = [job(str(index)) for index in range(5)]
    for one in made:
        tables.enter(one)
    for one in tables:
        tables.leave(one, remember=False)
    assert len(tables) == 0
