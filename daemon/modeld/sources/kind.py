"""What a kind of place says of itself. A module of this room defines one kind and ends with its `Kind`; `kinds` lists
them. Nothing else in the daemon knows which kinds there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from modeld.download.http.client import HttpClient
from modeld.download.source import Source
from modeld.sources.reference import Reference, Written


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind that only says how it is written: what it names is on this machine."""

    name: str
    """The title of its section in docs/sources.md."""

    reference: type[Reference]
    forms: tuple[str, ...]
    """The accepted forms, as a refusal shows them; those of one string mean the same sort of thing."""

    read: Callable[[Written], Reference | None]
    """None for a text of another kind; NotAReference for one of this kind that is wrong."""

    sites: tuple[str, ...] = ()
    """Hosts whose addresses are known without `https://` in front."""

    authorities: tuple[str, ...] = ()
    """Schemes after which a user and password may stand: a refusal does not repeat what is in front of the `@`."""


@dataclass(frozen=True)
class Setup:
    """What sources are made with. `plain_hosts` are those that the configuration allows to be asked without
    encryption, loopback beside them."""

    http: HttpClient
    environ: Mapping[str, str]
    plain_hosts: Collection[str]


@dataclass(frozen=True, kw_only=True)
class NetworkKind(Kind):
    """A kind with a source. Where its credentials are found is the rule of `credentials` that `source` names."""

    source: Callable[[Setup], Source[Any]]
    """Where a reference itself points. Made once for all of them."""

    mirror: Callable[[Setup, str, str], Source[Any]]
    """Given `match` and `url` of a [[mirror]]: the same references at `url`. A mirror gets no credentials."""
