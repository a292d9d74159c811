"""The role of a peer.

The daemon's own user and root are admin. Any other user has the highest role that the configuration's [access] table
gives to it or to one of its groups, or none. In doubt the peer is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from modeld.access.accounts import Accounts
from modeld.platform import accounts as system
from modeld.platform import peers
from modelwire.errors import TimedOut, Unauthorized
from modelwire.vocabulary import ROLE_ORDER, Role


class Access:
    """The roles that the configuration gives. Made anew when it is reloaded."""

    def __init__(
        self,
        users: Mapping[str, Role],
        groups: Mapping[str, Role],
        own_uid: peers.UserId,
        accounts: Accounts,
        *,
        quotas: Mapping[str, int] = MappingProxyType({}),
        config_path: str = "/etc/modeld/config.toml",
    ) -> None:
        """Blocks while the system looks up the configured names: not for the event loop."""
        self._own_uid = own_uid
        self._accounts = accounts
        self._config_path = config_path
        self._unnamed = system.overflow_uid()
        self._users, unknown_users = _roles_by_id(users, system.user_id)
        self._groups, unknown_groups = _roles_by_id(groups, system.group_id)
        self.warnings: tuple[str, ...] = (
            *(f"[access] users: this machine has no user {name!r}: it grants nothing" for name in unknown_users),
            *(f"[access] groups: this machine has no group {name!r}: it grants nothing" for name in unknown_groups),
        )
        """Unknown names in the configuration. They do not prevent the start: a reload looks them up again."""
        quota_users, unknown_users = by_id(quotas, system.user_id)
        self._quotas = {uid: int(quotas[name]) for name, uid in quota_users.items()}
        self.warnings += tuple(
            f"[quota]: this machine has no user {name!r}: it limits nobody" for name in unknown_users
        )
        lent = ((uid, system.lender_of(uid)) for uid in self._users)
        self._lenders = {uid: lender for uid, lender in lent if lender is not None}
        if self._users.pop(self._unnamed, None) and self._unnamed != own_uid:
            self.warnings += (f"[access] users: uid {self._unnamed} stands for every unknown user: it grants nothing",)

    def user_of(self, uid: peers.UserId) -> peers.UserId:
        """The user for whom this uid counts in all limits: that of a subordinate one, which has no role unless the
        configuration names it, is the user to whom it is lent."""
        return self._lenders.get(uid, uid)

    def quota_of(self, uid: peers.UserId) -> int | None:
        """The most bytes that the models of this user may have; None for no limit."""
        if uid in (system.ROOT, self._own_uid):
            return None
        return self._quotas.get(self.user_of(uid))

    def role_at_once(self, peer: peers.Peer) -> Role | None:
        """The peer's role if that takes no look-up, else None: then await `role_of`. Raises Unauthorized for a peer
        without a role."""
        if peer.uid in (system.ROOT, self._own_uid):
            return "admin"
        # The overflow uid stands for a user of another namespace: neither its uid nor its groups identify it.
        if peer.uid == self._unnamed:
            raise Unauthorized(
                f"uid {peer.uid} has no right to this daemon: it stands for every user unknown to its namespace",
                hint="Run the daemon without PrivateUsers=, in the user namespace of its users.",
            )
        granted = self._users.get(peer.uid)
        if granted is not None and (granted == "admin" or not self._groups):
            return granted
        account = self._accounts.known(peer.uid)
        return None if account is None else self._highest(peer, account)

    async def role_of(self, peer: peers.Peer) -> Role:
        """The peer's role. Raises Unauthorized when it has none, TimedOut when its groups cannot be looked up."""
        role = self.role_at_once(peer)
        if role is not None:
            return role
        try:
            account = await self._accounts.account_of(peer.uid)
        except TimedOut:
            if self._groups:
                raise
            account = system.UNKNOWN  # only the error would show its name
        return self._highest(peer, account)

    async def is_admin(self, uid: peers.UserId) -> bool:
        """Whether the user has the role admin, without regard to what one of its processes runs as: for work that is
        done when the process may be gone. Raises TimedOut when its groups cannot be looked up."""
        if uid in (system.ROOT, self._own_uid):
            return True
        if uid == self._unnamed:
            return False
        if self._users.get(uid) == "admin" or "admin" not in self._groups.values():
            return self._users.get(uid) == "admin"
        return any(self._groups.get(gid) == "admin" for gid in (await self._accounts.account_of(uid)).groups)

    def _highest(self, peer: peers.Peer, account: system.Account) -> Role:
        """The highest role of the peer's user, of the group that it runs as, and of the groups that list the user.

        A process in a user's container may run as a subordinate uid and as a group of that user: no group counts for
        it, because who is in the container is not the user."""
        groups = account.groups if account.subordinate else account.groups | {peer.gid}
        granted = [self._groups[gid] for gid in groups if gid in self._groups]
        if peer.uid in self._users:
            granted.append(self._users[peer.uid])
        if not granted:
            raise self._refusal(peer.uid, account.name)
        return max(granted, key=ROLE_ORDER.__getitem__)

    def _refusal(self, uid: peers.UserId, name: str) -> Unauthorized:
        key = name if name.isidentifier() else f'"{name or uid}"'
        return Unauthorized(
            f"uid {uid}{f' ({name})' if name else ''} has no right to this daemon, which runs as uid {self._own_uid}",
            hint=f'Ask its operator to add to [access] in {self._config_path}: users = {{ {key} = "read" }}',
        )


def by_id(names: Iterable[str], look_up: Callable[[str], int]) -> tuple[dict[str, int], list[str]]:
    """The system's ids of these users or groups, and the names that it does not know. Blocks."""
    found: dict[str, int] = {}
    unknown = []
    for name in names:
        try:
            found[name] = look_up(name)
        except (KeyError, OSError, ValueError):
            unknown.append(name)
    return found, unknown


def _roles_by_id(rights: Mapping[str, Role], look_up: Callable[[str], int]) -> tuple[dict[int, Role], list[str]]:
    ids, unknown = by_id(rights, look_up)
    roles: dict[int, Role] = {}
    for name, number in ids.items():
        # Two names of one account: the higher role, as with several groups.
        roles[number] = max(rights[name], roles.get(number, rights[name]), key=ROLE_ORDER.__getitem__)
    return roles, unknown
