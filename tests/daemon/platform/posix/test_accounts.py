"""The account database, asked as it is, and with answers that it may give."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from modeld.platform.posix import accounts


def test_an_account_of_this_machine() -> None:
    listed = pwd.getpwuid(os.getuid())
    found = accounts.account_of(os.getuid())
    assert found.name == listed.pw_name
    assert listed.pw_gid in found.groups
    assert accounts.user_id(listed.pw_name) == os.getuid()
    group = grp.getgrgid(listed.pw_gid)
    assert accounts.group_id(group.gr_name) == group.gr_gid


@pytest.mark.parametrize("fault", [KeyError(1000), OSError(5, "directory server away"), OverflowError()])
def test_a_user_that_is_not_listed_or_cannot_be_asked_for_has_no_group(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(_uid: int) -> None:
        raise fault

    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert accounts.account_of(1000) == accounts.UNKNOWN


def test_numbers_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", None)
    monkeypatch.setattr(grp, "getgrnam", None)
    assert accounts.user_id("1000") == 1000
    assert accounts.group_id("500") == 500


@pytest.mark.parametrize("name", ["no-such-user-here", "²", "-1"])
def test_a_name_that_nobody_has(name: str) -> None:
    with pytest.raises(KeyError):
        accounts.user_id(name)
    with pytest.raises(KeyError):
        accounts.group_id(name)


def test_the_overflow_uid_is_the_kernels() -> None:
    source = Path("/proc/sys/kernel/overflowuid")
    assert accounts.overflow_uid() == (int(source.read_text()) if source.exists() else 65534)


@pytest.mark.parametrize(
    ("ranges", "subordinate"),
    [
        ("ada:100000:65536\n", [100_000, 165_535]),
        ("# lent\n\nada:100000:1\n1001:200000:2\n", [100_000, 200_000, 200_001]),
        ("", []),
    ],
)
def test_subordinate_uids_are_those_of_the_ranges(tmp_path: Path, ranges: str, subordinate: list[int]) -> None:
    file = tmp_path / "subuid"
    file.write_text(ranges)
    asked = (0, 1000, 99_999, 100_000, 165_535, 165_536, 200_000, 200_001, 200_002)
    assert [uid for uid in asked if accounts.is_subordinate(uid, str(file))] == subordinate


def test_ranges_that_cannot_be_read_leave_every_unknown_uid_in_doubt(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    assert not accounts.is_subordinate(5, str(file))
    file.write_text("ada:many:65536\n")
    assert accounts.is_subordinate(5, str(file))


def test_the_lender_of_a_subordinate_uid_is_known_by_name_or_number(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("root:4000000000:10\n1234:4000000010:10\nnobody-here:4000000020:10\n0:0:1\n")
    asked = (4_000_000_000, 4_000_000_019, 4_000_000_020, 4_000_000_030, 0)
    assert [accounts.lender_of(uid, str(file)) for uid in asked] == [0, 1234, None, None, None]
    assert accounts.lender_of(4_000_000_000, str(tmp_path / "none")) is None
