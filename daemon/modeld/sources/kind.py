"""The description of a kind of place. The module of each kind ends with its `Kind`, and `kinds` lists them; no other
module of the daemon depends on which kinds exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from modeld.download.http.client import HttpClient
from modeld.download.source import Source
from modeld.sources.reference import Reference, Written


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind without a source: its references name something on this machine."""

    name: str
    """Also the title of its section in docs/sources.md."""

    reference: type[Reference]
    forms: tuple[str, ...]
    """The accepted forms, as errors show them; one string holds the forms of one meaning."""

    read: Callable[[Written], Reference | None]
    """Parses a text: None for a text of another kind. Raises NotAReference for a wrong text of this kind."""

    sites: tuple[str, ...] = ()
    """Hosts whose addresses are recognised without `https://` in front."""

    authorities: tuple[str, ...] = ()
    """Schemes that a user and password may follow: errors leave out what is in front of the `@`."""


@dataclass(frozen=True)
class Setup:
    """What a source is made from. The configuration allows plain HTTP to `plain_hosts`; loopback is always allowed."""

    http: HttpClient
    environ: Mapping[str, str]
    plain_hosts: Collection[str]
    lends: bool = True
    """Whether the source may use the credentials of the daemon's user; those of a reference it may always use."""


class For(NamedTuple):
    """The user that a source works for, as far as sources differ by it."""

    lends: bool
    """As in `Setup`."""
    anywhere: bool
    """Whether it may connect to every address, this machine's own included; else to those within the `Reach`."""


@dataclass(frozen=True, kw_only=True)
class NetworkKind(Kind):
    """A kind with a source. `source` also chooses where its credentials come from, in `credentials`."""

    source: Callable[[Setup], Source[Any]]
    """Makes the source of the place that references name. It is made once for all of them, for each
    kind of user (`For`)."""

    mirror: Callable[[Setup, str, str], Source[Any]]
    """From `match` and `url` of a [[mirror]], makes the source of the references at `url`, without credentials."""
