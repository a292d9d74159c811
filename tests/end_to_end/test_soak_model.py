"""The model that judges the soak and the storm notices a lie, and allows what may have happened."""

from __future__ import annotations

import pytest

from rigs.soak_model import Lie, Model

ONE, TWO, THREE = ("sha256:1",), ("sha256:2", "sha256:3"), ("sha256:4",)


@pytest.fixture
def model() -> Model:
    return Model()


def written(model: Model, name: str, value: tuple[str, ...] | None) -> None:
    model.done(model.begin(name, {value}, "add"), value)


def test_a_name_that_was_never_written_stands_for_nothing(model: Model) -> None:
    model.saw("n", model.now(), None, "show")
    with pytest.raises(Lie):
        model.saw("n", model.now(), ONE, "show")


def test_an_acknowledged_name_that_is_not_there_is_a_lie(model: Model) -> None:
    written(model, "n", ONE)
    with pytest.raises(Lie):
        model.saw("n", model.now(), None, "show")


def test_other_bytes_than_acknowledged_are_a_lie(model: Model) -> None:
    written(model, "n", ONE)
    with pytest.raises(Lie):
        model.saw_blob("n", model.now(), "sha256:2", "resolve")


def test_a_removed_name_that_is_there_again_is_a_lie(model: Model) -> None:
    written(model, "n", ONE)
    written(model, "n", None)
    with pytest.raises(Lie):
        model.saw("n", model.now(), ONE, "show")


def test_an_older_version_that_comes_back_is_a_lie(model: Model) -> None:
    written(model, "n", ONE)
    written(model, "n", TWO)
    with pytest.raises(Lie):
        model.saw("n", model.now(), ONE, "show")


def test_a_change_that_runs_beside_a_look_may_be_seen_or_not(model: Model) -> None:
    written(model, "n", ONE)
    with model.step() as began:
        written(model, "n", TWO)
        assert model.possible("n", began) == {ONE, TWO}
        assert model.possible("n", model.now()) == {TWO}
        model.saw("n", began, ONE, "a look that began before")
    assert model.possible("n", model.now()) == {TWO}


def test_a_look_narrows_what_an_interrupted_change_may_have_done(model: Model) -> None:
    written(model, "n", ONE)
    write = model.begin("n", {TWO}, "add")
    model.over(write, "killed")
    assert model.possible("n", model.now()) == {ONE, TWO}
    model.saw("n", model.now(), ONE, "show")
    with pytest.raises(Lie):
        model.saw("n", model.now(), TWO, "show")


def test_a_change_that_may_still_come_survives_looks_and_other_changes(model: Model) -> None:
    model.begin("n", {ONE}, "add, cut off")
    written(model, "n", TWO)
    model.saw("n", model.now(), TWO, "show")
    assert model.possible("n", model.now()) == {ONE, TWO}
    model.saw("n", model.now(), ONE, "show")


def test_a_cancelled_change_that_took_place_is_a_lie(model: Model) -> None:
    write = model.begin("n", {ONE}, "add")
    model.undone(write, "cancelled")
    with pytest.raises(Lie):
        model.saw("n", model.now(), ONE, "show")


def test_two_changes_at_once_end_in_either(model: Model) -> None:
    first, second = model.begin("n", {ONE}, "add"), model.begin("n", {THREE}, "add")
    model.done(first, ONE)
    model.done(second, THREE)
    assert model.possible("n", model.now()) == {ONE, THREE}
    model.saw("n", model.now(), ONE, "show")
    assert model.possible("n", model.now()) == {ONE}


def test_a_change_that_reports_other_bytes_is_a_lie(model: Model) -> None:
    write = model.begin("n", {ONE}, "add")
    with pytest.raises(Lie):
        model.done(write, TWO)


def test_a_copy_has_what_its_source_stood_for_meanwhile(model: Model) -> None:
    written(model, "source", ONE)
    copy = model.begin("copy", (), "cp", source="source")
    written(model, "source", TWO)
    assert model.possible("copy", model.now()) == {None, ONE, TWO}
    model.done(copy, "sha256:3")
    model.saw("copy", model.now(), TWO, "show")
    stale = model.begin("other", (), "cp", source="source")
    with pytest.raises(Lie):
        model.done(stale, ONE)


def test_two_names_that_may_have_been_copied_from_each_other_have_an_answer(model: Model) -> None:
    written(model, "a", ONE)
    model.begin("b", (), "mv", source="a")
    model.begin("a", (), "mv", source="b")
    assert model.possible("b", model.now()) == {None, ONE}
    assert model.possible("a", model.now()) == {ONE}


def test_what_is_replaced_is_forgotten(model: Model) -> None:
    for _ in range(100):
        written(model, "n", ONE)
        model.saw("n", model.now(), ONE, "show")
    assert len(model._register("n").writes) < 5
