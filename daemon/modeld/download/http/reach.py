"""Which addresses a connection may go to, by the resolved address, which is then the one that is connected to.

A user's reference, a redirect, a registry's realm or a mirror may name a host whose address is this machine: services
on its loopback trust whoever can connect, and a cloud's metadata service gives keys to whoever asks. A name that is
looked up twice may have another address the second time, so there is one look-up.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from modelwire.errors import PermissionDenied

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Found = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
"""One answer of `socket.getaddrinfo`."""

_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""An IPv4 address behind a translator (RFC 6052)."""

_OF_CLOUDS: Final = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"))
)
"""Services of Amazon, Google, Alibaba and Azure that give a machine its keys, at addresses that are not link-local."""

_HINT: Final = "Ask the operator: `networks` in [access] of the configuration says where pulls of other users may go."


@dataclass(frozen=True, slots=True)
class Reach:
    """For the pulls of users other than the daemon's own. Without networks: every address but those of this machine,
    of its links, and of no single host."""

    networks: Collection[Network] = ()

    def allowed(self, host: str, found: Sequence[Found]) -> list[Found]:
        """Those of the host's addresses that may be connected to; PermissionDenied when there is none."""
        allowed = [each for each in found if self.refusal(str(each[4][0])) is None]
        if not allowed:
            first = str(found[0][4][0])
            at = "" if host == first else f"at {first}, "
            raise PermissionDenied(
                f"{host} is {at}{self.refusal(first)}: the daemon connects there for its own user only",
                hint=_HINT,
                details={"host": host, "address": first},
            )
        return allowed

    def check(self, host: str) -> None:
        """Raises PermissionDenied when the host of a request through a proxy is an address that is not allowed. The
        proxy alone looks up a name, so a name passes; `localhost` counts as the address that it stands for."""
        name = host.rstrip(".").lower()
        try:
            why = self.refusal("127.0.0.1" if name == "localhost" or name.endswith(".localhost") else _dotted(name))
        except ValueError:
            return
        if why is not None:
            raise PermissionDenied(
                f"{host} is {why}: the daemon has a proxy connect there for its own user only",
                hint=_HINT,
                details={"host": host},
            )

    def refusal(self, text: str) -> str | None:
        """Why nothing connects to this address; None when it is allowed. ValueError when it is none."""
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        if self.networks:
            inside = any(address.version == network.version and address in network for network in self.networks)
            return None if inside else "outside of the networks that are allowed"
        if address.is_loopback or address.is_unspecified:
            return "this machine"
        if address.is_link_local:
            return "an address of this machine's own link"
        if address in _OF_CLOUDS:
            return "a service that a cloud gives this machine alone"
        if address.is_multicast or address.is_reserved:
            return "no address of a single host"
        return "this machine" if _is_own(address) else None


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _dotted(host: str) -> str:
    """An IPv4 address in any spelling that resolvers take (127.1, 0x7f000001) as four numbers; else the host itself."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _is_own(address: Address) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as fault:
        return fault.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
    return True
