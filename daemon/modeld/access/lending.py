"""Who may use the credentials of the daemon's user: its hub token, netrc, docker logins and AWS keys.

They serve that user and root. The configuration lends them to others, for references that begin with a given text:

    [[access.credentials]]
    match = "hf:org/"
    users = ["alice"]
    groups = ["research"]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from modeld.access.accounts import Accounts
from modeld.access.roles import by_id
from modeld.platform import accounts as system
from modeld.platform import peers

_LEADS_UP: Final = re.compile(r"[/\\]\.\.(?:[/\\;?#]|$)")
"""A server takes `https://host/a/../b` for `https://host/b`, and some decode an address twice."""


@dataclass(frozen=True, slots=True)
class _Loan:
    match: str
    users: frozenset[peers.UserId]
    groups: frozenset[peers.GroupId]

    def covers(self, reference: str) -> bool:
        """Whether the reference begins with `match`, as a whole part of it: `hf:org` covers `hf:org/repo`, and not
        `hf:organisation/repo`; `oci://host` does not cover `oci://host:5000/repo`. One whose path leads up again is not
        covered."""
        if not reference.startswith(self.match) or _LEADS_UP.search(unquote(unquote(reference))):
            return False
        following = reference[len(self.match) : len(self.match) + 1]
        if not following or self.match.endswith(("/", ":")) or following in "/@?":
            return True
        return following == ":" and "/" in self.match.partition(":")[2].removeprefix("//")


class Lending:
    """The loans of the configuration. Made anew when it is reloaded."""

    def __init__(
        self,
        loans: Iterable[tuple[str, Sequence[str], Sequence[str]]],
        own_uid: peers.UserId,
        accounts: Accounts,
    ) -> None:
        """`loans` has the match, the users and the groups of each. Blocks while the system looks up these names: not
        for the event loop."""
        self._own_uid = own_uid
        self._accounts = accounts
        self._unnamed = system.overflow_uid()
        self._loans: list[_Loan] = []
        warnings: list[str] = []
        for match, user_names, group_names in loans:
            users, unknown_users = by_id(user_names, system.user_id)
            groups, unknown_groups = by_id(group_names, system.group_id)
            named = frozenset(users.values()) - {self._unnamed}
            self._loans.append(_Loan(match, named, frozenset(groups.values())))
            for kind, unknown in (("user", unknown_users), ("group", unknown_groups)):
                warnings += (
                    f"[[access.credentials]] for {match}: this machine has no {kind} {name!r}: it lends nothing"
                    for name in unknown
                )
        self.warnings = tuple(warnings)

    async def lends(self, uid: peers.UserId, reference: str) -> bool:
        """Whether a pull of this reference by this user may use them. Raises TimedOut when the groups that decide
        cannot be looked up."""
        if uid in (system.ROOT, self._own_uid):
            return True
        loans = [loan for loan in self._loans if loan.covers(reference)]
        if any(uid in loan.users for loan in loans):
            return True
        groups = frozenset[peers.GroupId]().union(*(loan.groups for loan in loans))
        if not groups or uid == self._unnamed:
            return False
        return not groups.isdisjoint((await self._accounts.account_of(uid)).groups)
