"""Who is asking, and what they may do.

Identity comes from the kernel at accept (SO_PEERCRED, LOCAL_PEERCRED), never from what a peer says and never by its
pid: a pid can be another process by the time one looks. Every failed look-up ends in a refusal.

The daemon's own user and root are admin. Everybody else has what the configuration's [access] table gives to their
user or to one of their groups, the highest right of them, or nothing.

A platform whose peers are no uids (a Windows pipe has a SID) needs its own `identify` and a `Peer` of its own kind.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from modelwire.errors import Unauthorized
from modelwire.vocabulary import ROLE_ORDER, Role

ACCOUNT_SECONDS: Final = 60.0
"""How long a foreign user's name and groups are remembered. A directory server is asked once a minute and user, and a
user who is taken out of a group loses its right within that minute."""

ACCOUNT_ENTRIES: Final = 1024
"""A user with subordinate uids can appear under 65,536 of them; the memory for strangers stays bounded."""

_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_XUCRED: Final = struct.Struct("IIh2x16I")  # struct xucred: version, uid, number of groups, padding, groups
_XUCRED_VERSION: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_NOBODY_ID: Final = 0xFFFFFFFF
"""(uid_t) -1, which the kernel reports for a socket that has no peer."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer as the kernel knows it. `pid` is for the log only, 0 where the kernel does not tell."""

    uid: int
    gid: int
    pid: int
    name: str

    def __str__(self) -> str:
        return f"uid {self.uid} ({self.name})" if self.name else f"uid {self.uid}"


class _Remembered(Generic[_T]):
    """Answers of the account database, for a while and for a bounded number of accounts."""

    def __init__(self, ask: Callable[[int], _T], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[int, tuple[float, _T]] = {}

    def get(self, uid: int) -> _T:
        now = self._clock()
        known = self._known.get(uid)
        if known is not None and now < known[0]:
            return known[1]
        answer = self._ask(uid)
        if len(self._known) >= ACCOUNT_ENTRIES:
            self._known.clear()
        self._known[uid] = (now + ACCOUNT_SECONDS, answer)
        return answer

    def fresh(self, uid: int) -> bool:
        known = self._known.get(uid)
        return known is not None and self._clock() < known[0]


class Accounts:
    """Names and groups of users. The own user and root are known without asking; others may cost a look-up that
    blocks, on a machine with a directory server even for seconds: see `answers_at_once`."""

    def __init__(self, own_uid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = {0: "root"}
        self._own.setdefault(own_uid, _name_of(own_uid))
        self._names = _Remembered(_name_of, clock)
        self._groups = _Remembered(_member_of, clock)

    def name_of(self, uid: int) -> str:
        """The user's name, empty when it has none."""
        return self._own.get(uid) or self._names.get(uid)

    def groups_of(self, uid: int) -> frozenset[int]:
        """The groups that the account database lists for this user; empty for one that it does not know."""
        return self._groups.get(uid)

    def answers_at_once(self, uid: int) -> bool:
        """Whether nothing would block. If not, identify the peer in a thread."""
        return uid in self._own or (self._names.fresh(uid) and self._groups.fresh(uid))


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError, OverflowError):
        return ""


def _member_of(uid: int) -> frozenset[int]:
    try:
        account = pwd.getpwuid(uid)
        return frozenset(os.getgrouplist(account.pw_name, account.pw_gid))
    except (KeyError, OSError, OverflowError):
        return frozenset()


def identify(connection: socket.socket, accounts: Accounts) -> Peer:
    """Who is at the other end, by the kernel's word at the time of connect. Raises Unauthorized when it cannot tell."""
    try:
        uid, gid, pid = _credentials(connection)
    except (OSError, struct.error, ValueError) as error:
        raise Unauthorized(
            f"the system does not tell who is at the other end of this connection: {error}",
            hint="connect through the daemon's Unix socket, not through a proxy",
        ) from error
    return Peer(uid, gid, pid, accounts.name_of(uid))


def uid_of(connection: socket.socket) -> int | None:
    """The peer's uid without any look-up, or None when the system does not tell: `identify` says why."""
    try:
        return _credentials(connection)[0]
    except (OSError, struct.error, ValueError):
        return None


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    if sys.platform == "darwin":
        raw = connection.getsockopt(0, _LOCAL_PEERCRED, _XUCRED.size)
        uid, gid = parse_xucred(raw)
        return uid, gid, _peer_pid(connection)
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError("this platform has no SO_PEERCRED")
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid == _NOBODY_ID or gid == _NOBODY_ID:
        raise OSError("the socket has no peer")
    return uid, gid, pid


def _peer_pid(connection: socket.socket) -> int:
    try:
        return connection.getsockopt(0, _LOCAL_PEERPID)
    except OSError:
        return 0  # only the log would have shown it


def parse_xucred(raw: bytes) -> tuple[int, int]:
    """uid and effective gid out of macOS' `struct xucred`."""
    version, uid, count, *groups = _XUCRED.unpack(raw)
    if version != _XUCRED_VERSION:
        raise ValueError(f"xucred has version {version}, expected {_XUCRED_VERSION}")
    if not 1 <= count <= len(groups):
        raise ValueError(f"xucred has {count} groups, expected 1 to {len(groups)}")
    return uid, groups[0]


def overflow_uid() -> int:
    """The uid that stands for every user whom this user namespace cannot name."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


class Access:
    """What each peer may do. Made anew when the configuration is reloaded."""

    def __init__(
        self,
        users: Mapping[str, Role],
        groups: Mapping[str, Role],
        own_uid: int,
        accounts: Accounts,
        *,
        config_path: str = "/etc/modeld/config.toml",
    ) -> None:
        self._own_uid = own_uid
        self._accounts = accounts
        self._config_path = config_path
        self._unnamed = overflow_uid()
        self._users, unknown_users = _by_id(users, lambda name: pwd.getpwnam(name).pw_uid)
        self._groups, unknown_groups = _by_id(groups, lambda name: grp.getgrnam(name).gr_gid)
        self.warnings: tuple[str, ...] = (
            *(f"[access] users: this machine has no user {name!r}: it grants nothing" for name in unknown_users),
            *(f"[access] groups: this machine has no group {name!r}: it grants nothing" for name in unknown_groups),
        )
        """Names that nobody has. No reason to stay down: the others keep their rights, and a reload looks again."""
        if self._users.pop(self._unnamed, None) and self._unnamed != own_uid:
            self.warnings += (
                f"[access] users: uid {self._unnamed} stands for everybody without a name here: it grants nothing",
            )

    def role_of(self, peer: Peer) -> Role:
        """The peer's right; raises Unauthorized when it has none."""
        if peer.uid in (0, self._own_uid):
            return "admin"
        granted: list[Role] = []
        # Whoever appears under the overflow uid is somebody else there: neither user nor groups can be believed.
        if peer.uid != self._unnamed:
            if peer.uid in self._users:
                granted.append(self._users[peer.uid])
            if self._groups:
                granted += [self._groups[gid] for gid in self.gids_of(peer) if gid in self._groups]
        if not granted:
            raise self._refusal(peer)
        return max(granted, key=ROLE_ORDER.__getitem__)

    def gids_of(self, peer: Peer) -> frozenset[int]:
        """The group that the peer runs as, and those that the account database lists for its user."""
        return self._accounts.groups_of(peer.uid) | {peer.gid}

    def _refusal(self, peer: Peer) -> Unauthorized:
        if peer.uid == self._unnamed:
            return Unauthorized(
                f"uid {peer.uid} has no right to this daemon: in its user namespace that uid stands for everybody",
                hint="run the daemon without PrivateUsers= and in the namespace of its users",
            )
        name = peer.name if peer.name.isidentifier() else f'"{peer.name or peer.uid}"'
        return Unauthorized(
            f"{peer} has no right to this daemon, which runs as uid {self._own_uid}",
            hint=f'its operator can add to [access] in {self._config_path}: users = {{ {name} = "read" }}',
        )


def _by_id(rights: Mapping[str, Role], look_up: Callable[[str], int]) -> tuple[dict[int, Role], list[str]]:
    """Rights by number, and the names that have none. A name of digits is a number already."""
    found: dict[int, Role] = {}
    unknown = []
    for name, role in rights.items():
        try:
            number = int(name) if name.isascii() and name.isdigit() else look_up(name)
        except (KeyError, OSError, ValueError):
            unknown.append(name)
            continue
        # Two spellings of one account: the higher right, as with several groups.
        found[number] = max(role, found.get(number, role), key=ROLE_ORDER.__getitem__)
    return found, unknown
