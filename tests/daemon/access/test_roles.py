"""Which role the configuration gives to whom, and a refusal for every doubt."""

from __future__ import annotations

import tomllib

import pytest

from modeld.access.accounts import Accounts
from modeld.access.roles import Access
from modeld.platform.posix.peers import Peer
from modelwire.errors import TimedOut, Unauthorized
from modelwire.vocabulary import Role
from rigs.account_database import OWN, STRANGER, AccountDatabase


@pytest.fixture
def accounts(database: AccountDatabase) -> Accounts:
    return Accounts()


def peer(uid: int, gid: int | None = None) -> Peer:
    return Peer(uid, uid if gid is None else gid, 4242)


def access(
    accounts: Accounts, users: dict[str, Role] | None = None, groups: dict[str, Role] | None = None, own: int = OWN
) -> Access:
    return Access(users or {}, groups or {}, own, accounts)


async def test_the_own_user_and_root_are_admin_without_a_look_up(accounts: Accounts, database: AccountDatabase) -> None:
    rights = access(accounts, {"alice": "read"}, {"models": "read"})
    assert rights.role_at_once(peer(OWN)) == "admin"
    assert rights.role_at_once(peer(0)) == "admin"
    assert await rights.role_of(peer(OWN)) == "admin"
    assert database.asked == []


@pytest.mark.parametrize(
    ("users", "groups", "uid", "gid", "role"),
    [
        ({"alice": "read"}, {}, 1000, 1000, "read"),
        ({"1000": "write"}, {}, 1000, 1000, "write"),
        ({"alice": "read", "1000": "admin"}, {}, 1000, 1000, "admin"),
        ({"1000": "admin", "alice": "read"}, {}, 1000, 1000, "admin"),
        ({}, {"models": "write"}, 1000, 1000, "write"),
        ({}, {"500": "write"}, 1000, 1000, "write"),
        ({"alice": "read"}, {"models": "write"}, 1000, 1000, "write"),
        ({"alice": "admin"}, {"models": "read"}, 1000, 1000, "admin"),
        ({}, {"models": "read", "staff": "write"}, 1001, 1001, "write"),
        ({}, {"staff": "write"}, 1000, 501, "write"),
        ({}, {"staff": "read"}, STRANGER, 501, "read"),
        ({"root": "read"}, {}, 0, 0, "admin"),
        ({"daemon-user": "read"}, {}, OWN, OWN, "admin"),
    ],
)
async def test_the_highest_right_wins(
    accounts: Accounts, users: dict[str, Role], groups: dict[str, Role], uid: int, gid: int, role: Role
) -> None:
    assert await access(accounts, users, groups).role_of(peer(uid, gid)) == role


@pytest.mark.parametrize(
    ("users", "groups", "uid"),
    [
        ({}, {}, 1000),
        ({"bob": "admin"}, {}, 1000),
        ({}, {"staff": "admin"}, 1000),
        ({"alice": "admin"}, {"models": "admin"}, STRANGER),
    ],
)
async def test_everybody_else_is_refused(
    accounts: Accounts, users: dict[str, Role], groups: dict[str, Role], uid: int
) -> None:
    with pytest.raises(Unauthorized):
        await access(accounts, users, groups).role_of(peer(uid))


@pytest.mark.parametrize(
    ("name", "seen", "key"),
    [("alice", "uid 1000 (alice)", "alice"), ("", "uid 1000", "1000"), ("a.b-c", "uid 1000 (a.b-c)", "a.b-c")],
)
async def test_a_refusal_says_who_was_seen_and_what_to_write(
    accounts: Accounts, database: AccountDatabase, name: str, seen: str, key: str
) -> None:
    database.users = {name: 1000} if name else {}
    with pytest.raises(Unauthorized) as refusal:
        await access(accounts).role_of(peer(1000))
    assert refusal.value.message == f"{seen} has no right to this daemon, which runs as uid {OWN}"
    hint = refusal.value.hint
    assert hint is not None
    assert "[access] in /etc/modeld/config.toml" in hint
    assert tomllib.loads(hint[hint.index("users =") :])["users"] == {key: "read"}


async def test_unknown_names_warn_and_grant_nothing(accounts: Accounts) -> None:
    rights = access(accounts, {"carol": "admin", "alice": "read"}, {"ghosts": "admin"})
    assert len(rights.warnings) == 2
    assert "no user 'carol'" in rights.warnings[0]
    assert "no group 'ghosts'" in rights.warnings[1]
    assert await rights.role_of(peer(1000)) == "read"
    with pytest.raises(Unauthorized):
        await rights.role_of(peer(STRANGER))


async def test_nobody_can_be_let_in_as_the_user_who_stands_for_everybody(accounts: Accounts) -> None:
    rights = access(accounts, {"nobody": "admin", "65534": "admin"}, {"wheel": "admin"})
    assert len(rights.warnings) == 1
    with pytest.raises(Unauthorized, match="stands for every user") as refusal:
        await rights.role_of(peer(65534))
    assert "PrivateUsers" in (refusal.value.hint or "")


async def test_a_subordinate_uid_has_no_role_by_the_group_that_it_runs_as(
    accounts: Accounts, database: AccountDatabase
) -> None:
    """A container of a user who is in the group starts such processes, for anybody."""
    rights = access(accounts, {"100001": "read"}, {"staff": "admin"})
    database.subordinate = range(100_000, 165_536)
    with pytest.raises(Unauthorized):
        await rights.role_of(peer(100_000, 501))
    assert await rights.role_of(peer(100_001, 501)) == "read", "what the configuration says of the number itself holds"
    assert await rights.role_of(peer(99_999, 501)) == "admin"


async def test_subordinate_uids_count_as_the_user_to_whom_they_are_lent(
    accounts: Accounts, database: AccountDatabase
) -> None:
    database.subordinate, database.lender = range(100_000, 165_536), 1001
    rights = access(accounts, {"100001": "read", "100002": "write", "alice": "read"}, {})
    assert [rights.user_of(uid) for uid in (100_001, 100_002, 1000, 1001, OWN)] == [1001, 1001, 1000, 1001, OWN]


@pytest.mark.parametrize(
    ("users", "groups", "uid", "admin"),
    [
        ({}, {}, OWN, True),
        ({}, {}, 0, True),
        ({"alice": "admin"}, {}, 1000, True),
        ({"alice": "write"}, {"models": "admin"}, 1000, True),
        ({"alice": "write"}, {"staff": "admin"}, 1000, False),
        ({"alice": "admin"}, {"models": "read"}, 1000, True),
        ({}, {"models": "admin"}, STRANGER, False),
        ({"65534": "admin"}, {"wheel": "admin"}, 65_534, False),
    ],
)
async def test_a_user_is_admin_by_name_or_by_a_group_that_lists_it(
    accounts: Accounts, users: dict[str, Role], groups: dict[str, Role], uid: int, admin: bool
) -> None:
    assert await access(accounts, users, groups).is_admin(uid) is admin


async def test_a_broken_account_database_gives_no_right(accounts: Accounts, database: AccountDatabase) -> None:
    rights = access(accounts, {}, {"models": "write"})
    database.broken = True
    with pytest.raises(Unauthorized):
        await rights.role_of(peer(1000))


def test_users_alone_need_no_groups(accounts: Accounts, database: AccountDatabase) -> None:
    assert access(accounts, {"alice": "read"}).role_at_once(peer(1000)) == "read"
    assert database.asked == []


def test_the_highest_right_of_all_needs_no_groups(accounts: Accounts, database: AccountDatabase) -> None:
    assert access(accounts, {"alice": "admin"}, {"models": "write"}).role_at_once(peer(1000)) == "admin"
    assert database.asked == []


async def test_what_is_remembered_is_known_at_once(accounts: Accounts, database: AccountDatabase) -> None:
    rights = access(accounts, {}, {"models": "write"})
    assert rights.role_at_once(peer(1000)) is None
    assert await rights.role_of(peer(1000)) == "write"
    assert rights.role_at_once(peer(1000)) == "write"
    assert database.asked == [1000]
    with pytest.raises(Unauthorized):
        await rights.role_of(peer(STRANGER))
    with pytest.raises(Unauthorized):
        rights.role_at_once(peer(STRANGER))


async def test_groups_that_do_not_come_are_an_error_that_may_be_tried_again(database: AccountDatabase) -> None:
    rights = access(Accounts(timeout=0.01), {"alice": "read"}, {"models": "write"})
    database.hold()
    with pytest.raises(TimedOut, match="uid 1000") as fault:
        await rights.role_of(peer(1000))
    assert fault.value.retryable
    assert fault.value.hint


async def test_a_name_that_does_not_come_is_left_out_of_the_refusal(database: AccountDatabase) -> None:
    database.hold()
    with pytest.raises(Unauthorized, match=r"^uid 1000 has no right"):
        await access(Accounts(timeout=0.01), {"bob": "read"}).role_of(peer(1000))
