"""A user who fills the log pushes out lines of their own: the outcomes of all others stay."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modeld.activity import Activity, shares
from rigs.activity_log import lines

FLOOD, QUIET = 1000, 1001


def kept(path: str) -> list[dict[str, Any]]:
    files = [f"{path}.{number}" for number in range(9, 0, -1)] + [path]
    return [line for file in files if Path(file).exists() for line in lines(file)]


def of(path: str, peer: int | None) -> list[str]:
    return [line["job"] for line in kept(path) if line.get("peer") == peer]


async def flood(activity: Activity, count: int, peer: int = FLOOD) -> None:
    for number in range(count):
        activity.record("job.failed", job=f"f{number}", peer=peer, outcome="not_found")
        if not number % 50:
            await activity.flush()
    await activity.flush()


@pytest.mark.parametrize("generations", [1, 3])
async def test_a_flood_of_one_user_costs_nobody_else_a_line(
    path: str, opened: Callable[..., Activity], generations: int
) -> None:
    activity = opened(max_bytes=4000, generations=generations)
    activity.record("daemon.started", job="start")
    for number in range(10):
        activity.record("job.done", job=f"q{number}", peer=QUIET, outcome="ok")
        await flood(activity, 200)
    assert of(path, QUIET) == [f"q{number}" for number in range(10)]
    assert of(path, None) == ["start"]
    flooded = of(path, FLOOD)
    assert flooded[-1] == "f199", "the newest of the flood are there too"
    numbers = [line["seq"] for line in kept(path)]
    assert numbers == sorted(set(numbers))
    sizes = [os.path.getsize(f"{path}.{number}") for number in range(1, generations + 1)]
    assert all(size <= 4000 for size in sizes)
    assert sorted(os.listdir(os.path.dirname(path)))[-1] == f"activity.ndjson.{generations}", "nothing is left over"


async def test_uids_that_count_as_one_user_have_one_share(path: str, opened: Callable[..., Activity]) -> None:
    """The subordinate uids of one account."""
    lent = {FLOOD + number: FLOOD for number in range(100, 109)}
    activity = opened(max_bytes=4000, user_of=lambda uid: lent.get(uid, uid))
    for number in range(10):
        activity.record("job.done", job=f"q{number}", peer=QUIET, outcome="ok")
    for uid in (FLOOD, *lent):
        await flood(activity, 200, uid)
    assert of(path, QUIET) == [f"q{number}" for number in range(10)]


async def test_refused_connections_push_out_nothing_else(path: str, opened: Callable[..., Activity]) -> None:
    """Whoever has many uids has them."""
    activity = opened(max_bytes=4000)
    activity.record("job.done", job="q", peer=QUIET, outcome="ok")
    for uid in range(100_000, 101_000):
        activity.record("peer.refused", peer=uid, outcome="unauthorized")
    await activity.flush()
    assert of(path, QUIET) == ["q"]


async def test_a_replay_goes_over_what_was_pushed_out(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=4000)
    activity.record("job.done", job="q", peer=QUIET, outcome="ok")
    await flood(activity, 1000)
    with activity._log.replay(0) as replay:
        seen = []
        while batch := replay.batch():
            seen += [record.seq for record in batch]
    assert seen[0] == 1
    assert seen == sorted(set(seen))
    assert seen[-1] == 1001


def test_who_needs_less_than_a_share_leaves_the_rest_to_others() -> None:
    assert shares._surplus(Counter({None: 10, 1: 100, 2: 400}), 300) == {None: 0, 1: 0, 2: 210}
    assert shares._surplus(Counter({1: 400, 2: 400}), 300) == {1: 250, 2: 250}


@pytest.mark.parametrize("call", ["pread", "write", "fsync"])
async def test_when_the_disk_has_no_room_for_the_merge_the_log_goes_on(
    path: str, opened: Callable[..., Activity], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    activity = opened(max_bytes=4000)
    with monkeypatch.context() as patched:
        calls = {"pread": os.pread, "write": os.write, "fsync": os.fsync, call: fail}
        patched.setattr(shares, "os", SimpleNamespace(**calls))
        await flood(activity, 500)
    assert activity.view().lost == 0
    assert activity.view().last_error is None
    assert of(path, FLOOD)[-1] == "f499"
    assert sorted(os.listdir(os.path.dirname(path)))[-1] == "activity.ndjson.3"


async def test_a_merge_that_a_crash_cut_short_repeats_no_line(path: str, opened: Callable[..., Activity]) -> None:
    """Between two renames the second oldest file is in the oldest one too."""
    activity = opened(max_bytes=4000)
    await flood(activity, 300)
    activity.close()
    Path(f"{path}.3").write_bytes(Path(f"{path}.3").read_bytes() + Path(f"{path}.2").read_bytes())
    again = opened(max_bytes=4000)
    with again._log.replay(0) as replay:
        seen = []
        while batch := replay.batch():
            seen += [record.seq for record in batch]
    assert seen == sorted(set(seen))
    await flood(again, 300)
    assert again.view().lost == 0
