"""The seam between what knows a kind of source and what moves bytes: "describe, then stream a range".

A source is stateless and shared by all jobs: it is one kind at one endpoint (Hugging Face at its hub, a mirror of it,
an OCI registry, plain https). It turns a reference into a `Description`, and gives the bytes of a described file from
any offset. It neither writes, hashes, retries nor fails over; whatever is wrong it says with an error of the wire
whose `retryable` tells whether the same request may succeed later:

- `SourceNotFound`, `SourceUnauthorized`: the same request fails again;
- `SourceUnavailable`, `TimedOut`: by default worth another try; `retry_after_ms` is obeyed;
- `Offline`: the settings allow no network.

All calls block and come from byte threads, several at once for one file. Neither errors nor names hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar, runtime_checkable

from modeld.store.digest import Digest

_AT = " at "

WEAK: Final = "W/"
"""In front of a validator that two versions of a file may share: when it differs the version does, not vice versa."""

R_contra = TypeVar("R_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One file of a description, with all that its source told without giving the bytes."""

    path: str
    """Within the model, with `/` between parts, never absolute and never with `..`."""

    locator: str = field(repr=False)
    """What the source's own `open` needs: an address, a key. It may hold a signature, so it is never logged."""

    size: int | None = None
    digest: Digest | None = None
    """A SHA-256 of exactly these bytes that the source vouches for; not an ETag that merely looks like one."""

    validator: str | None = None
    """A strong ETag, with its quotes, or a Last-Modified date that is one: what If-Range takes. Never a weak one."""

    ranges: bool = True
    """False when the source is known to give the whole file only."""

    long_requests: int | None = None
    """None: many short requests over as many connections as bring something. Else one request at a time, for all that
    is missing in a row, and no more than so many over all files: what gives the bytes fetches them in parallel by
    itself, costs something to begin, and takes memory."""

    origin: str | None = None
    """Scheme, host and port that `open` talks to first. Failures, connections and waiting are counted for it.
    None for a source without a network."""

    address: str | None = None
    """The locator for people: without user, password, fragment and what is secret in a query."""

    role: str | None = None
    """As in the manifest's `files`: weights, mmproj, config, license…"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a reference means now. `registry`, `repo` and `revision` go into the manifest."""

    source: str
    """Name for people, without secrets: `hf:org/repo`, `https://host/path`."""

    files: tuple[FileInfo, ...]
    registry: str
    repo: str | None = None
    revision: str | None = None
    """Immutable: the commit or digest that a branch or tag meant at this moment."""

    license: str | None = None

    note: str | None = None
    """What the reference left open, and how the source decided it: a sentence without a full stop."""

    preferred: Mapping[str, tuple[Opener, FileInfo]] = field(default_factory=dict)
    """By path: another way to the same bytes, tried before the source's own `open`."""


@runtime_checkable
class Narrowable(Protocol):
    """A body that can be kept from running ahead of its reader."""

    def narrow(self, window: int | None) -> None: ...


class Body(Protocol):
    """Bytes on their way. `readinto` blocks in one thread; `abort` may be called from another."""

    @property
    def start(self) -> int:
        """Offset in the file of the first byte that comes: 0 when the source ignored the range."""

    @property
    def end(self) -> int | None:
        """Offset after the last byte that this answer announced; None when it did not say."""

    @property
    def total(self) -> int | None:
        """Size of the whole file as this answer tells it."""

    @property
    def partial(self) -> bool:
        """Whether the range was honoured."""

    @property
    def validator(self) -> str | None:
        """What the answer says of its version; `strong` keeps what only one version can have."""

    def readinto(self, into: memoryview) -> int:
        """At least one byte, as soon as there are any; 0 at the end, and never more than was announced.

        An end that comes before `end` raises SourceUnavailable: it is a fault of the transport.
        """

    def abort(self) -> None:
        """Makes a `readinto` that blocks in another thread return or raise at once."""

    def close(self) -> None:
        """Idempotent; a body that was read to its end may leave its connection for the next one."""


class Opener(Protocol):
    """The half of a source that moves bytes."""

    @property
    def name(self) -> str:
        """The kind, for people and logs: `https`, `hf`. With the file's origin it says who gave the bytes, and is
        the same after a restart."""

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        """From `start` up to `end` (exclusive; None for the whole rest). With a validator the range is asked for
        on the condition that the file is still that one (If-Range)."""


def strong(validator: str | None) -> str | None:
    """The validator, when equality proves that two answers are of one version; None for a weak one."""
    return None if validator is None or validator.startswith(WEAK) else validator


def giver(opener: Opener, file: FileInfo) -> str:
    """Who gives the bytes of a file: what is condemned, and recorded beside the bytes. People see `giver_shown`."""
    return opener.name if file.origin is None else f"{opener.name}{_AT}{file.origin}"


def kind_shown(opener: Opener, origin: str | None) -> str:
    """The name of an opener for people: plain HTTP is not called https."""
    return "http" if opener.name == "https" and (origin or "").startswith("http:") else opener.name


def giver_shown(who: str) -> str:
    """What `giver` says, for people. What is recorded and compared stays as it is: older daemons wrote it, too."""
    return who.replace("https", "http", 1) if who.startswith(f"https{_AT}http:") else who


def address_of(who: str | None) -> str | None:
    """The address in what `giver` says; None for a source without a network."""
    return (who or "").partition(_AT)[2] or None


class Source(Opener, Protocol[R_contra]):
    def origin(self, reference: R_contra) -> str | None:
        """Which host `describe` will talk to, for the breaker; None without a network."""

    def describe(self, reference: R_contra) -> Description: ...
