"""The share of one user: of what is free for them, all that is unfinished counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.store.catalog.left_files import LeftFiles
from modeld.store.disk.space import Allotment, Space
from modeld.store.disk.user_space import ShareExceeded, UserSpaces
from modelwire.errors import NoSpace

ANN, BOB = 1001, 1002
MIB = 1 << 20


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self) -> int:
        return self.free


def spaces(whole: Space, root: Path, percent: int = 50) -> tuple[UserSpaces, LeftFiles]:
    left = LeftFiles(None, str(root))
    return UserSpaces(whole, left, percent=percent), left


def kept(root: Path, name: str, size: int) -> str:
    (root / name).write_bytes(b"x" * size)
    return f"{root}/{name}"


def test_one_user_takes_half_of_what_is_free_for_them_and_the_next_half_of_the_rest(tmp_path: Path) -> None:
    users, _ = spaces(Space(Disk(1000)), tmp_path)
    ann = users.of(ANN).reserve(500)
    with pytest.raises(ShareExceeded) as refused:
        users.of(ANN).reserve(1)
    details = {"needed_bytes": 1, "limit_bytes": 500, "promised_bytes": 500, "left_bytes": 0, "uid": ANN}
    assert refused.value.details == details
    assert "Let running jobs end" in (refused.value.hint or "")
    users.of(BOB).reserve(250)
    with pytest.raises(ShareExceeded):
        users.of(BOB).reserve(1)
    ann.release()
    users.of(BOB).reserve(250)


def test_bytes_on_the_disk_count_as_much_as_those_that_are_to_come(tmp_path: Path) -> None:
    disk = Disk(1000)
    users, _ = spaces(Space(disk), tmp_path)
    held = users.of(ANN).reserve(400)
    held.settle(400)
    disk.free = 600
    with pytest.raises(ShareExceeded):
        users.of(ANN).reserve(101)
    users.of(ANN).reserve(100)


def test_what_fits_for_nobody_is_told_so(tmp_path: Path) -> None:
    users, _ = spaces(Space(Disk(1000)), tmp_path)
    with pytest.raises(NoSpace):
        users.of(ANN).reserve(1001)


def test_the_limit_of_the_store_is_shared_too(tmp_path: Path) -> None:
    users, _ = spaces(Space(Disk(10_000), max_bytes=1000, used=lambda: 200), tmp_path)
    with pytest.raises(ShareExceeded) as refused:
        users.of(ANN).reserve(401)
    assert refused.value.details["limit_bytes"] == 400


def test_who_has_nothing_unfinished_is_not_told_to_end_it(tmp_path: Path) -> None:
    users, _ = spaces(Space(Disk(3_000_000)), tmp_path)
    with pytest.raises(ShareExceeded) as refused:
        users.of(ANN).reserve(2_000_000)
    assert refused.value.message == (
        "2.00 MB are needed; what is unfinished may take 1.50 MB for each user, and yours takes 0 B (0 B by running"
        " jobs, 0 B by what earlier ones left)"
    )
    assert refused.value.hint == "Ask an admin to do this, or to raise `unfinished_percent` in `[store]`."


def test_all_of_it_may_be_taken_where_the_configuration_says_so(tmp_path: Path) -> None:
    users, _ = spaces(Space(Disk(1000)), tmp_path, percent=100)
    users.of(ANN).reserve(1000)
    with pytest.raises(NoSpace):
        users.of(BOB).reserve(1)


def test_a_file_that_a_job_left_counts_until_it_is_gone(tmp_path: Path) -> None:
    users, left = spaces(Space(Disk(10 * MIB)), tmp_path)
    reserved = users.of(ANN).reserve(4 * MIB)
    path = kept(tmp_path, "a", 4 * MIB)
    reserved.settle(4 * MIB)
    reserved.leave(path, 4 * MIB)
    reserved.release()
    with pytest.raises(ShareExceeded) as refused:
        users.of(ANN).reserve(4 * MIB)
    assert refused.value.details["left_bytes"] == 4 * MIB
    (tmp_path / "a").unlink()
    users.of(ANN).reserve(4 * MIB)
    assert left.bytes_of(ANN) == 0


def test_a_file_of_an_allotment_counts_for_its_user(tmp_path: Path) -> None:
    users, left = spaces(Space(Disk(10 * MIB)), tmp_path)
    with users.of(ANN).reserve(2 * MIB) as whole:
        Allotment(whole).reserve(MIB).leave(kept(tmp_path, "a", MIB), MIB)
    assert left.bytes_of(ANN) == MIB


def test_a_file_counts_for_who_left_it_last(tmp_path: Path) -> None:
    users, left = spaces(Space(Disk(10 * MIB)), tmp_path)
    path = kept(tmp_path, "a", MIB)
    users.of(ANN).leave(path, 4096)
    users.of(BOB).leave(path, MIB)
    assert (left.bytes_of(ANN), left.bytes_of(BOB)) == (0, MIB)


def test_a_file_that_shrank_counts_with_what_is_left(tmp_path: Path) -> None:
    users, left = spaces(Space(Disk(10 * MIB)), tmp_path)
    path = kept(tmp_path, "a", MIB)
    users.of(ANN).leave(path, MIB)
    kept(tmp_path, "a", 4096)
    assert left.look_again(ANN) == 4096
