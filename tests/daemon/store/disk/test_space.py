"""Room is promised once, with all running jobs counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.store.disk.space import Space, free_bytes_under
from modelwire.errors import NoSpace, QuotaExceeded


class Disk:
    """A filesystem with so many free bytes."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self) -> int:
        return self.free


def test_no_space_names_both_numbers() -> None:
    space = Space(Disk(1000), min_free=300)
    with pytest.raises(NoSpace, match="701 bytes are needed and 700 are free") as caught:
        space.reserve(701)
    assert caught.value.details["needed_bytes"] == 701
    assert caught.value.details["free_bytes"] == 700
    assert caught.value.retryable
    space.reserve(700).release()


def test_running_jobs_count() -> None:
    space = Space(Disk(1000))
    first = space.reserve(600)
    with pytest.raises(NoSpace, match="600 promised"):
        space.reserve(401)
    first.release()
    space.reserve(1000).release()


def test_what_is_on_the_disk_is_not_counted_twice() -> None:
    disk = Disk(1000)
    space = Space(disk)
    first = space.reserve(600)
    disk.free -= 600
    first.settle(600)
    second = space.reserve(400)
    first.release()
    second.release()
    assert space.promised == 0


def test_settling_more_than_was_promised_frees_nothing() -> None:
    space = Space(Disk(1000))
    first, second = space.reserve(100), space.reserve(900)
    first.settle(5000)
    with pytest.raises(NoSpace):
        space.reserve(101)
    first.release()
    second.release()


def test_release_happens_once_and_on_every_way_out() -> None:
    space = Space(Disk(1000))
    other = space.reserve(500)
    with pytest.raises(RuntimeError), space.reserve(500) as held:
        raise RuntimeError
    held.release()
    assert space.promised == 500
    other.release()
    assert space.promised == 0


def test_quota_counts_what_is_used_and_what_is_promised() -> None:
    used = 400
    space = Space(Disk(10_000), max_bytes=1000, used=lambda: used)
    held = space.reserve(500)
    held.settle(500)
    with pytest.raises(QuotaExceeded, match="may hold 1000") as caught:
        space.reserve(101)
    assert caught.value.details == {
        "needed_bytes": 101,
        "max_bytes": 1000,
        "used_bytes": 400,
        "promised_bytes": 500,
    }
    held.release()
    space.reserve(600).release()


def test_a_full_disk_still_takes_an_empty_file() -> None:
    Space(Disk(0), min_free=5).reserve(0).release()


def test_a_limit_without_a_count_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="how many there are"):
        Space(Disk(1), max_bytes=1)


def test_free_bytes_of_a_real_filesystem(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 < free_bytes_under(str(tmp_path)) <= status.f_blocks * status.f_frsize
