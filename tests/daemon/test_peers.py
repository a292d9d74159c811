"""Who is asking: the kernel's word, the configuration's rights, and a refusal for every doubt."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld import peers
from modeld.peers import ACCOUNT_ENTRIES, ACCOUNT_SECONDS, Access, Accounts, Peer, identify, parse_xucred, uid_of
from modelwire.errors import Unauthorized
from modelwire.vocabulary import Role

OWN = 900_001
STRANGER = 900_002
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")


class Database:
    """An account database that counts how often it is asked."""

    def __init__(self) -> None:
        self.users = {"daemon-user": OWN, "alice": 1000, "bob": 1001, "root": 0, "nobody": 65534}
        self.groups = {"models": 500, "staff": 501, "wheel": 502}
        self.members = {"alice": [1000, 500], "bob": [1001, 500, 501], "nobody": [65534, 502]}
        self.asked: list[int] = []
        self.broken = False

    def getpwuid(self, uid: int) -> pwd.struct_passwd:
        self.asked.append(uid)
        if self.broken:
            raise OSError(5, "directory server away")
        for name, number in self.users.items():
            if number == uid:
                return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))
        raise KeyError(uid)

    def getpwnam(self, name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", self.users[name], self.users[name], "", "/", "/bin/sh"))

    def gid_of(self, name: str) -> int:
        return self.groups[name]

    def getgrouplist(self, name: str, gid: int) -> list[int]:
        return self.members.get(name, [gid])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(pwd, "getpwuid", made.getpwuid)
    monkeypatch.setattr(pwd, "getpwnam", made.getpwnam)
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", made.gid_of(name), [])))
    monkeypatch.setattr(os, "getgrouplist", made.getgrouplist)
    monkeypatch.setattr(peers, "overflow_uid", lambda: 65534)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    made = Accounts(OWN, clock=clock)
    database.asked.clear()
    return made


def peer(uid: int, gid: int | None = None, name: str = "") -> Peer:
    return Peer(uid, uid if gid is None else gid, 4242, name)


def access(
    accounts: Accounts, users: dict[str, Role] | None = None, groups: dict[str, Role] | None = None, own: int = OWN
) -> Access:
    return Access(users or {}, groups or {}, own, accounts)


# --- what the kernel says ---


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        os.chmod(directory, 0o755)
        yield os.path.join(directory, "s")


def test_identifies_a_peer_of_our_own() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        found = identify(left, Accounts(os.getuid()))
        assert uid_of(left) == os.getuid()
    assert (found.uid, found.gid, found.pid) == (os.getuid(), os.getgid(), os.getpid())
    assert found.name == pwd.getpwuid(os.getuid()).pw_name


@AS_ROOT
def test_a_peer_is_who_it_was_when_it_connected(address: str) -> None:
    script = (
        "import os, socket, sys; os.setgroups([]); os.setgid(54322); os.setuid(54321)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        os.chmod(address, 0o666)
        listening.listen()
        listening.settimeout(60)
        with subprocess.Popen([sys.executable, "-c", script, address]) as child:
            connection, _ = listening.accept()
            with connection:
                accounts = Accounts(0)
                found = identify(connection, accounts)
                assert (found.uid, found.gid, found.pid) == (54321, 54322, child.pid)
                refusing = Access({}, {}, 0, accounts)
                with pytest.raises(Unauthorized, match=r"^uid 54321 has no right"):
                    refusing.role_of(found)
                assert Access({"54321": "write"}, {}, 0, accounts).role_of(found) == "write"
                assert Access({}, {"54322": "read"}, 0, accounts).role_of(found) == "read"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux reports uid -1 here")
def test_a_socket_without_a_peer_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as lonely, pytest.raises(Unauthorized, match="the socket has no peer"):
        identify(lonely, Accounts(os.getuid()))


def test_a_network_socket_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as client, pytest.raises(Unauthorized):
            identify(client, Accounts(os.getuid()))


@pytest.mark.parametrize("answer", [OSError(22, "Invalid argument"), b"", b"x" * 11, b"x" * 13])
def test_every_failed_look_up_is_a_refusal(answer: OSError | bytes) -> None:
    class Odd(socket.socket):
        def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
            if isinstance(answer, OSError):
                raise answer
            return answer

    with Odd(socket.AF_UNIX) as odd:
        assert uid_of(odd) is None
        with pytest.raises(Unauthorized) as refusal:
            identify(odd, Accounts(os.getuid()))
    assert "\n" not in refusal.value.message
    assert refusal.value.hint


def xucred(version: int, uid: int, count: int, *groups: int) -> bytes:
    return struct.pack("IIh2x16I", version, uid, count, *groups, *[0] * (16 - len(groups)))


def test_reads_the_credentials_of_macos() -> None:
    assert len(xucred(0, 1, 1, 1)) == 76
    assert parse_xucred(xucred(0, 501, 2, 20, 80)) == (501, 20)


@pytest.mark.parametrize(
    "raw", [xucred(1, 501, 1, 20), xucred(0, 501, 0), xucred(0, 501, -1, 20), xucred(0, 501, 17, 20)]
)
def test_refuses_credentials_of_macos_that_it_does_not_understand(raw: bytes) -> None:
    with pytest.raises(ValueError, match="xucred has"):
        parse_xucred(raw)


@pytest.mark.parametrize("raw", [b"", xucred(0, 501, 1, 20)[:-1]])
def test_refuses_short_credentials_of_macos(raw: bytes) -> None:
    with pytest.raises(struct.error):
        parse_xucred(raw)


# --- rights ---


def test_the_own_user_and_root_are_admin_without_a_look_up(accounts: Accounts, database: Database) -> None:
    rights = access(accounts, {"alice": "read"}, {"models": "read"})
    assert rights.role_of(peer(OWN)) == "admin"
    assert rights.role_of(peer(0)) == "admin"
    assert accounts.name_of(0) == "root"
    assert accounts.name_of(OWN) == "daemon-user"
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
def test_the_highest_right_wins(
    accounts: Accounts, users: dict[str, Role], groups: dict[str, Role], uid: int, gid: int, role: Role
) -> None:
    assert access(accounts, users, groups).role_of(peer(uid, gid)) == role


@pytest.mark.parametrize(
    ("users", "groups", "uid"),
    [
        ({}, {}, 1000),
        ({"bob": "admin"}, {}, 1000),
        ({}, {"staff": "admin"}, 1000),
        ({"alice": "admin"}, {"models": "admin"}, STRANGER),
    ],
)
def test_everybody_else_is_refused(
    accounts: Accounts, users: dict[str, Role], groups: dict[str, Role], uid: int
) -> None:
    with pytest.raises(Unauthorized):
        access(accounts, users, groups).role_of(peer(uid))


@pytest.mark.parametrize(
    ("name", "seen", "key"),
    [("alice", "uid 1000 (alice)", "alice"), ("", "uid 1000", "1000"), ("a.b-c", "uid 1000 (a.b-c)", "a.b-c")],
)
def test_a_refusal_says_who_was_seen_and_what_to_write(accounts: Accounts, name: str, seen: str, key: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        access(accounts).role_of(peer(1000, name=name))
    assert refusal.value.message == f"{seen} has no right to this daemon, which runs as uid {OWN}"
    hint = refusal.value.hint
    assert hint is not None
    assert "[access] in /etc/modeld/config.toml" in hint
    assert tomllib.loads(hint[hint.index("users =") :])["users"] == {key: "read"}


def test_unknown_names_warn_and_grant_nothing(accounts: Accounts) -> None:
    rights = access(accounts, {"carol": "admin", "alice": "read"}, {"ghosts": "admin"})
    assert len(rights.warnings) == 2
    assert "no user 'carol'" in rights.warnings[0]
    assert "no group 'ghosts'" in rights.warnings[1]
    assert rights.role_of(peer(1000)) == "read"
    with pytest.raises(Unauthorized):
        rights.role_of(peer(STRANGER))


def test_nobody_can_be_let_in_as_the_user_who_stands_for_everybody(accounts: Accounts) -> None:
    rights = access(accounts, {"nobody": "admin", "65534": "admin"}, {"wheel": "admin"})
    assert len(rights.warnings) == 1
    with pytest.raises(Unauthorized, match="stands for everybody") as refusal:
        rights.role_of(peer(65534))
    assert "PrivateUsers" in (refusal.value.hint or "")


def test_a_broken_account_database_gives_no_right(accounts: Accounts, database: Database) -> None:
    rights = access(accounts, {}, {"models": "write"})
    database.broken = True
    with pytest.raises(Unauthorized):
        rights.role_of(peer(1000))


# --- what is remembered ---


def test_foreign_users_are_asked_for_once_a_minute(accounts: Accounts, database: Database, clock: Clock) -> None:
    rights = access(accounts, {}, {"models": "write"})
    assert not accounts.answers_at_once(1000)
    for _ in range(5):
        assert accounts.name_of(1000) == "alice"
        assert rights.role_of(peer(1000)) == "write"
    assert len(database.asked) == 2  # once for the name, once for the groups
    assert accounts.answers_at_once(1000)
    database.members["alice"] = [1000]
    clock.now += ACCOUNT_SECONDS - 1
    assert rights.role_of(peer(1000)) == "write"
    clock.now += 1
    assert not accounts.answers_at_once(1000)
    with pytest.raises(Unauthorized):
        rights.role_of(peer(1000))


def test_users_alone_need_no_groups(accounts: Accounts, database: Database) -> None:
    assert access(accounts, {"alice": "read"}).role_of(peer(1000)) == "read"
    assert database.asked == []


def test_strangers_cannot_fill_the_memory(accounts: Accounts) -> None:
    for uid in range(100_000, 100_000 + 3 * ACCOUNT_ENTRIES):
        accounts.name_of(uid)
    assert len(accounts._names._known) <= ACCOUNT_ENTRIES


def test_the_overflow_uid_is_the_kernels() -> None:
    source = Path("/proc/sys/kernel/overflowuid")
    assert peers.overflow_uid() == (int(source.read_text()) if source.exists() else 65534)
