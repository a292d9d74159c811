"""Which role a peer has.

The daemon's own user and root are admin. Everybody else has what the configuration's [access] table gives to their
user or to one of their groups, the highest right of them, or nothing. Every doubt ends in a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modeld.access.accounts import Accounts
from modeld.platform import accounts as system
from modeld.platform import peers
from modelwire.errors import TimedOut, Unauthorized
from modelwire.vocabulary import ROLE_ORDER, Role


class Access:
    """What each peer may do. Made anew when the configuration is reloaded."""

    def __init__(
        self,
        users: Mapping[str, Role],
        groups: Mapping[str, Role],
        own_uid: peers.UserId,
        accounts: Accounts,
        *,
        config_path: str = "/etc/modeld/config.toml",
    ) -> None:
        """Blocks while the system looks up the configured names: not for the event loop."""
        self._own_uid = own_uid
        self._accounts = accounts
        self._config_path = config_path
        self._unnamed = system.overflow_uid()
        self._users, unknown_users = _by_id(users, system.user_id)
        self._groups, unknown_groups = _by_id(groups, system.group_id)
        self.warnings: tuple[str, ...] = (
            *(f"[access] users: this machine has no user {name!r}: it grants nothing" for name in unknown_users),
            *(f"[access] groups: this machine has no group {name!r}: it grants nothing" for name in unknown_groups),
        )
        """Names that nobody has. No reason to stay down: the others keep their rights, and a reload looks again."""
        if self._users.pop(self._unnamed, None) and self._unnamed != own_uid:
            self.warnings += (
                f"[access] users: uid {self._unnamed} stands for everybody without a name here: it grants nothing",
            )

    def role_at_once(self, peer: peers.Peer) -> Role | None:
        """The peer's role where that takes no look-up, else None: then `role_of` has to be awaited. Raises Unauthorized
        when the peer has no right."""
        if peer.uid in (system.ROOT, self._own_uid):
            return "admin"
        # Whoever appears under the overflow uid is somebody else there: neither user nor groups can be believed.
        if peer.uid == self._unnamed:
            raise Unauthorized(
                f"uid {peer.uid} has no right to this daemon: in its user namespace that uid stands for everybody",
                hint="run the daemon without PrivateUsers= and in the namespace of its users",
            )
        granted = self._users.get(peer.uid)
        if granted is not None and (granted == "admin" or not self._groups):
            return granted
        account = self._accounts.known(peer.uid)
        return None if account is None else self._judged(peer, account)

    async def role_of(self, peer: peers.Peer) -> Role:
        """The peer's role; Unauthorized when it has none, TimedOut when the system does not report its groups."""
        role = self.role_at_once(peer)
        if role is not None:
            return role
        try:
            account = await self._accounts.account_of(peer.uid)
        except TimedOut:
            if self._groups:
                raise
            account = system.UNKNOWN  # its name would only have been for the refusal
        return self._judged(peer, account)

    def _judged(self, peer: peers.Peer, account: system.Account) -> Role:
        """By the peer's own right, by the group that it runs as, and by those that its user is listed in."""
        granted = [self._groups[gid] for gid in account.groups | {peer.gid} if gid in self._groups]
        if peer.uid in self._users:
            granted.append(self._users[peer.uid])
        if not granted:
            raise self._refusal(peer.uid, account.name)
        return max(granted, key=ROLE_ORDER.__getitem__)

    def _refusal(self, uid: peers.UserId, name: str) -> Unauthorized:
        key = name if name.isidentifier() else f'"{name or uid}"'
        return Unauthorized(
            f"uid {uid}{f' ({name})' if name else ''} has no right to this daemon, which runs as uid {self._own_uid}",
            hint=f'its operator can add to [access] in {self._config_path}: users = {{ {key} = "read" }}',
        )


def _by_id(rights: Mapping[str, Role], look_up: Callable[[str], int]) -> tuple[dict[int, Role], list[str]]:
    """Rights by what the system knows users or groups by, and the names that it does not know."""
    found: dict[int, Role] = {}
    unknown = []
    for name, role in rights.items():
        try:
            number = look_up(name)
        except (KeyError, OSError, ValueError):
            unknown.append(name)
            continue
        # Two spellings of one account: the higher right, as with several groups.
        found[number] = max(role, found.get(number, role), key=ROLE_ORDER.__getitem__)
    return found, unknown
