"""Each verb on a disk without a free block: a typed error and nothing half done, and after a removal the same request
succeeds without a restart. In the end not one byte is left over."""

from __future__ import annotations

import os
from typing import Any

import pytest

from end_to_end.test_full_disk import fill, small
from end_to_end.test_names_killed import whole_names
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import staging

__all__ = ["small"]

VERBS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "add": ("model.add", {"name": "b"}, ["a", "b"]),
    "cp": ("model.copy", {"source": "a", "destination": "b"}, ["a", "b"]),
    "mv": ("model.move", {"source": "a", "destination": "b"}, ["b"]),
}
"""With what is there after it, and after `spare` was removed."""

SPARE = 3 << 20


@pytest.fixture
def stocked(small: RealDaemon) -> RealDaemon:
    """With the models `a` and `spare`, and then to the last block full of something else."""
    small.start()
    small.root = small.environ["MODELS_HOME"]
    for name, size in (("a", 1 << 20), ("spare", SPARE)):
        path = small.file(f"{name}.bin", os.urandom(size))
        assert small.ask("model.add", path=path, name=name)["type"] == "result"
    return small


def files(daemon: RealDaemon) -> dict[str, int]:
    """All that takes room in the store but the catalogue, which keeps what has happened, and empty locks."""
    found = {}
    for directory, _, names in os.walk(daemon.root):
        for name in names:
            info = os.lstat(f"{directory}/{name}")
            if not name.startswith("catalog") and info.st_size:
                found[f"{directory}/{name}"] = info.st_size
    return found


def refused(daemon: RealDaemon, op: str, fields: dict[str, Any]) -> None:
    """Each time, in words that help; and nothing has changed."""
    before, names = files(daemon), whole_names(daemon)
    for _attempt in range(3):
        reply = daemon.ask(op, **fields)
        assert (reply["type"], reply["code"]) == ("error", "no_space"), reply
        assert reply["hint"]
        assert (whole_names(daemon), files(daemon)) == (names, before)


def assert_no_byte_is_left(daemon: RealDaemon, before: dict[str, int]) -> None:
    for left in whole_names(daemon):
        assert daemon.ask("model.remove", name=left)["type"] == "result"
    assert daemon.ask("store.sweep")["type"] == "result"
    now = files(daemon)
    assert [path for path in now if "/blobs/" in path or "/manifests/" in path] == []
    assert now.keys() <= before.keys()
    assert staging(daemon) == []


@pytest.mark.parametrize("name", VERBS)
def test_a_change_is_refused_until_there_is_room(stocked: RealDaemon, name: str) -> None:
    op, fields, after = VERBS[name]
    if name == "add":
        fields = fields | {"path": stocked.file("b.bin", os.urandom(1 << 20))}
    before = files(stocked)
    filler = fill(stocked.room)
    refused(stocked, op, fields)
    assert stocked.ask("model.remove", name="spare")["type"] == "result"
    assert stocked.ask("store.sweep")["value"]["freed_bytes"] >= SPARE
    assert stocked.ask(op, **fields)["type"] == "result", "the same request, no restart"
    assert whole_names(stocked) == after
    os.unlink(filler)
    assert_no_byte_is_left(stocked, before)


def test_a_removal_needs_no_room(stocked: RealDaemon) -> None:
    before = files(stocked)
    filler = fill(stocked.room)
    assert stocked.ask("model.remove", name="a")["type"] == "result"
    assert whole_names(stocked) == ["spare"]
    assert staging(stocked) == []
    os.unlink(filler)
    assert_no_byte_is_left(stocked, before)
