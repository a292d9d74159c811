"""The account database. Each call may ask a directory server and block for seconds."""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from typing import Final, NamedTuple

from modeld.platform.posix.peers import GroupId, UserId

ROOT: Final[UserId] = 0
"""The user to whom the system refuses nothing, whatever the daemon decides."""


class Account(NamedTuple):
    """`groups` are those that the database lists for the user; a process of the user may run with others.
    `subordinate`: the uid is one of those lent to another user for its containers, whose processes have that user's
    groups too."""

    name: str
    groups: frozenset[GroupId]
    subordinate: bool = False


UNKNOWN: Final = Account("", frozenset())


def account_of(uid: UserId) -> Account:
    """UNKNOWN for a user that the database does not list, and when the look-up fails."""
    try:
        found = pwd.getpwuid(uid)
        return Account(found.pw_name, frozenset(os.getgrouplist(found.pw_name, found.pw_gid)))
    except (KeyError, OSError, OverflowError, ValueError):
        return UNKNOWN._replace(subordinate=is_subordinate(uid))


SUBORDINATE: Final = "/etc/subuid"


def is_subordinate(uid: UserId, ranges: str = SUBORDINATE) -> bool:
    """Whether the uid is in one of these ranges; in doubt it is."""
    try:
        return _lender(uid, ranges) is not None
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def lender_of(uid: UserId, ranges: str = SUBORDINATE) -> UserId | None:
    """The user to whom a subordinate uid is lent; None for any other uid, and in doubt. Only a uid in a range is looked
    up: no directory server delays a start because the configuration has numbers."""
    with suppress(KeyError, OSError, ValueError):
        lender = _lender(uid, ranges)
        if lender is not None and not _has_account(uid):
            return user_id(lender)
    return None


def _has_account(uid: UserId) -> bool:
    try:
        pwd.getpwuid(uid)
    except (KeyError, OSError, OverflowError, ValueError):
        return False
    return True


def _lender(uid: UserId, ranges: str) -> str | None:
    with open(ranges, encoding="utf-8", errors="replace") as file:
        rows = [line.split(":") for line in file if line.strip() and not line.startswith("#")]
    return next((lender for lender, first, count in rows if 0 <= uid - int(first) < int(count)), None)


def user_id(name: str) -> UserId:
    """A name of digits is the number itself, without a look-up. Raises KeyError, OSError or ValueError if unknown."""
    return int(name) if name.isascii() and name.isdigit() else pwd.getpwnam(name).pw_uid


def group_id(name: str) -> GroupId:
    """As `user_id`."""
    return int(name) if name.isascii() and name.isdigit() else grp.getgrnam(name).gr_gid


def overflow_uid() -> UserId:
    """The user that stands for every user whom this user namespace cannot name."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534
