"""Who may use the credentials of the daemon's user, and for which references."""

from __future__ import annotations

import pytest

from modeld.access.accounts import Accounts
from modeld.access.lending import Lending
from modelwire.errors import TimedOut
from rigs.account_database import NOBODY, OWN, STRANGER, AccountDatabase

ALICE, BOB = 1000, 1001
Loan = tuple[str, tuple[str, ...], tuple[str, ...]]


@pytest.fixture
def accounts(database: AccountDatabase) -> Accounts:
    return Accounts()


def lending(accounts: Accounts, *loans: Loan) -> Lending:
    return Lending(loans, OWN, accounts)


async def test_they_serve_the_own_user_and_root_without_a_look_up(
    accounts: Accounts, database: AccountDatabase
) -> None:
    assert await lending(accounts).lends(OWN, "hf:org/repo")
    assert await lending(accounts).lends(0, "hf:org/repo")
    assert database.asked == []


@pytest.mark.parametrize("uid", [ALICE, BOB, STRANGER, NOBODY])
async def test_without_a_loan_they_serve_nobody_else(accounts: Accounts, database: AccountDatabase, uid: int) -> None:
    assert not await lending(accounts).lends(uid, "hf:org/repo")
    assert database.asked == []


@pytest.mark.parametrize(
    ("users", "groups", "borrowers"),
    [
        (("alice",), (), {ALICE}),
        (("1001",), (), {BOB}),
        ((), ("models",), {ALICE, BOB}),
        ((), ("501",), {BOB}),
        (("alice",), ("staff",), {ALICE, BOB}),
        (("nobody-knows",), ("none",), set[int]()),
        (("nobody",), ("wheel",), set[int]()),
    ],
)
async def test_a_loan_is_for_its_users_and_groups(
    accounts: Accounts, users: tuple[str, ...], groups: tuple[str, ...], borrowers: set[int]
) -> None:
    lent = lending(accounts, ("hf:org/", users, groups))
    everybody = {ALICE, BOB, STRANGER, NOBODY}
    assert {uid for uid in everybody if await lent.lends(uid, "hf:org/repo")} == borrowers


@pytest.mark.parametrize(
    ("match", "covered", "not_covered"),
    [
        ("hf:", ["hf:org/repo", "hf:gpt2"], ["oci://h/r"]),
        ("hf:org", ["hf:org/repo", "hf:org@main"], ["hf:organisation/repo", "hf:org:Q4_K_M"]),
        ("hf:org/", ["hf:org/repo"], ["hf:other/repo"]),
        ("hf:org/repo", ["hf:org/repo", "hf:org/repo/f.gguf", "hf:org/repo:Q8_0", "hf:org/repo@v1"], ["hf:org/repo2"]),
        ("oci://host", ["oci://host/repo:v1"], ["oci://host:5000/repo", "oci://host.evil/repo", "oci://hosts/repo"]),
        ("oci://host:5000/", ["oci://host:5000/repo:v1"], ["oci://host/repo:v1"]),
        ("oci://host/repo", ["oci://host/repo:v1", "oci://host/repo@sha256:0"], ["oci://host/repository:v1"]),
        ("https://host", ["https://host/m"], ["https://host.evil/m", "https://host:8443/m", "http://host/m"]),
        ("s3://bucket/", ["s3://bucket/key"], ["s3://bucket-of-others/key"]),
        (
            "https://host/a/",
            ["https://host/a/m..gguf", "https://host/a/.../m", "https://host/a/.m"],
            [
                *("https://host/a/../b/m", "https://host/a/%2e%2E/b/m", "https://host/a/..%2fb/m"),
                *(
                    "https://host/a/..%5Cb/m",
                    "https://host/a/..;/b/m",
                    "https://host/a/%252e%252e/b/m",
                    "https://host/a/..",
                ),
            ],
        ),
    ],
)
async def test_a_loan_is_for_the_references_that_begin_with_its_match(
    accounts: Accounts, match: str, covered: list[str], not_covered: list[str]
) -> None:
    lent = lending(accounts, (match, ("alice",), ()))
    tried = covered + not_covered
    assert [reference for reference in tried if await lent.lends(ALICE, reference)] == covered


async def test_names_that_the_machine_does_not_have_are_told(accounts: Accounts) -> None:
    warnings = lending(accounts, ("hf:", ("gone", "alice"), ("lost",))).warnings
    assert [("gone" in each, "lost" in each) for each in warnings] == [(True, False), (False, True)]


async def test_a_look_up_without_an_answer_lends_nothing(database: AccountDatabase) -> None:
    lent = lending(Accounts(timeout=0.01), ("hf:", (), ("models",)))
    database.hold()
    with pytest.raises(TimedOut):
        await lent.lends(ALICE, "hf:org/repo")
    database.release()
