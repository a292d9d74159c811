"""Finds the candidates for a sweep in one walk over the store; the sweep checks each again before it removes it.

It looks only at files with names that the store gives: all others belong to another program. It follows no link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

from modeld.platform import files
from modeld.store.blobs.quarantine import KEPT_SECONDS, taken_at
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.removal import Identity
from modeld.store.maintain.walk import BlobFile, Partial, Unusable, blob_file, keyed_partials, walk
from modeld.store.publish.holds import Held, Holds

NAMED: Final = 10
"""Strange entries that a note names."""

PARTIAL_SECONDS: Final = 7 * 86_400
"""A download that was not resumed for a week is removed."""

STAGING_SECONDS: Final = 86_400
"""Running work writes to its staged file at least each minute; a day leaves room for a machine that was asleep."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`parts` is its path below the root. `digest`, in hex, is that of the blob, or of the bytes of the
    partial."""

    kind: str
    parts: tuple[str, ...]
    size: int
    gives_back: int
    reason: str
    identity: Identity
    digest: str | None = None

    @property
    def is_blob(self) -> bool:
        return self.kind == "blob"

    def held_as(self, root: str) -> Held:
        """What running work holds when it needs this one."""
        return "/".join((root, *self.parts)) if self.digest is None else Digest(self.digest)


Links = Mapping[tuple[int, int], int]
"""By device and inode: how many names of a file are among the candidates."""


Since = Callable[[str], float | None]
"""When a blob, in hex, lost a name; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Ages:
    """The time of the sweep, and from which age on it takes what, in seconds."""

    now: float
    grace: float
    partial: float = PARTIAL_SECONDS
    quarantine: float = KEPT_SECONDS
    since: Since = lambda _digest: None

    def unused(self, info: os.stat_result) -> float:
        """Seconds since the last change of the file, of its names or of its times."""
        return self.now - max(info.st_mtime, info.st_ctime)

    def unnamed(self, blob: BlobFile) -> float:
        """The same for a blob, whose loss of a name counts as a change."""
        unused, since = self.unused(blob.info), self.since(blob.digest)
        return unused if since is None else min(unused, self.now - since)


@dataclass(slots=True)
class Waiting:
    """Blobs that nothing holds but that are too young: the youngest may be removed in `longest` seconds."""

    blobs: int = 0
    gives_back: int = 0
    longest: float | None = None

    def count(self, candidate: Candidate, seconds: float) -> None:
        self.blobs += 1
        self.gives_back += candidate.gives_back
        self.longest = max(self.longest or 0.0, seconds)


class Victims:
    """Blocking. `blobs` counts all blobs; `notes` lists what could not be read."""

    def __init__(
        self,
        layout: Layout,
        ages: Ages,
        held: frozenset[str],
        holds: Holds,
        links: Links,
        stopped: Callable[[], bool],
    ) -> None:
        """`held` are blobs in hex."""
        self._layout = layout
        self._links = links
        self._ages = ages
        self._held = held
        self._holds = holds
        self._waiting_partials = holds.partials()
        self._stopped = stopped
        self.blobs = 0
        self.waiting = Waiting()
        self.unfinished: list[int] = []
        """Sizes of downloads that are kept, to be resumed."""

        self.notes: list[str] = []

    def among(self, digests: Iterable[Digest]) -> Iterator[Candidate]:
        """Those of these blobs."""
        for digest in digests:
            found = blob_file(self._layout, digest)
            if found is not None and found.digest not in self._held and (victim := self._blob(found)) is not None:
                yield victim

    def in_quarantine(self) -> Iterator[Candidate]:
        for entry in self._entries(self._layout.quarantine_dir):
            info = _stat(entry)
            if info is None:
                continue
            age = self._ages.now - taken_at(entry.name, info)
            if age >= self._ages.quarantine:
                parts = ("locks", "quarantine", entry.name)
                yield self._candidate("quarantine", parts, info, f"kept for {span(age)}")

    def candidates(self, *, blobs_too: bool = True) -> Iterator[Candidate]:
        """Everything that may go."""
        strange = list(self._beside())
        yield from self._in_staging()
        yield from self._in_locks()
        yield from self.in_quarantine()
        for found in chain(keyed_partials(self._layout), walk(self._layout, self._stopped)):
            if isinstance(found, BlobFile):
                self.blobs += 1
                if blobs_too and found.digest not in self._held and (victim := self._blob(found)) is not None:
                    yield victim
            elif isinstance(found, Partial):
                # One of bytes that a model names as well: they came from elsewhere since it was left.
                if (victim := self._partial(found)) is not None:
                    yield victim
            elif isinstance(found, Unusable):
                self.notes.append(f"{self._layout.root}/{'/'.join(found.parts)} {found.reason}")
            elif not found.gone:
                strange.append("/".join(found.parts))
        if strange:
            more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
            self.notes.append(f"not of this store, and left alone: {', '.join(strange[:NAMED])}{more}")

    def _beside(self) -> Iterator[str]:
        """What lies in the root and in its directory of blobs beside the store's own directories."""
        own = {path[len(self._layout.root) + 1 :] for path in self._layout.skeleton} | {"lost+found"}
        for above in ("", "blobs/"):
            for entry in self._entries(f"{self._layout.root}/{above}"):
                if f"{above}{entry.name}" not in own:
                    yield f"{above}{entry.name}"

    def _blob(self, blob: BlobFile) -> Candidate | None:
        unused = self._ages.unnamed(blob)
        reason = f"no model names it, unchanged for {span(unused)}"
        found = self._candidate("blob", blob.parts, blob.info, reason, digest=blob.digest)
        if unused >= self._ages.grace:
            return found
        self.waiting.count(found, self._ages.grace - unused)
        return None

    def _partial(self, partial: Partial) -> Candidate | None:
        age = self._ages.now - partial.newest
        reason = f"a download that was not resumed for {span(age)}"
        identity = Identity.of(partial.info)
        found = Candidate("partial", partial.parts, partial.size, partial.size, reason, identity, partial.digest)
        held = found.held_as(self._layout.root)
        if self._holds.is_held(held):
            return None
        # Other tools write in the blob tree: how long one of them may rest is not for a user of this one to say.
        longest = PARTIAL_SECONDS if partial.parts[0] == "blobs" else self._ages.partial
        if age >= longest and held not in self._waiting_partials and not self._is_being_written(partial):
            return found
        self.unfinished.append(partial.size)
        return None

    def _is_being_written(self, partial: Partial) -> bool:
        """Whether a program has one of its files open for writing: a clock may have been set since."""
        directory = "/".join((self._layout.root, *partial.parts))
        with suppress(OSError):
            for name in os.listdir(directory):
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                with files.closing(os.open(f"{directory}/{name}", flags)) as descriptor:
                    if files.has_writer(descriptor):
                        return True
        return False

    def _in_staging(self) -> Iterator[Candidate]:
        for entry in self._entries(self._layout.staging):
            info = _stat(entry)
            if info is None:
                continue
            unused = self._ages.unused(info)
            if unused >= max(STAGING_SECONDS, self._ages.grace):
                parts = (".modeld", "staging", entry.name)
                found = self._candidate("staging", parts, info, f"unfinished, unchanged for {span(unused)}")
                if not self._holds.is_held(found.held_as(self._layout.root)):
                    yield found

    def _in_locks(self) -> Iterator[Candidate]:
        """The locks of names that stand for nothing, as this daemon makes and leaves them: those of other tools are
        theirs."""
        for entry in self._entries(self._layout.locks_dir):
            stem, suffix = os.path.splitext(entry.name)
            if suffix != ".lock" or (info := _stat(entry)) is None or not stat.S_ISREG(info.st_mode):
                continue
            ours = info.st_uid == os.geteuid() and info.st_size == 0 and not info.st_mode & 0o7
            unused = self._ages.unused(info)
            named = os.path.lexists(f"{self._layout.manifests_dir}/{stem}.json")
            if ours and not named and unused >= max(STAGING_SECONDS, self._ages.grace):
                yield self._candidate(
                    "lock", ("locks", entry.name), info, f"its name stands for nothing, unused for {span(unused)}"
                )

    def _candidate(
        self, kind: str, parts: tuple[str, ...], info: os.stat_result, reason: str, digest: str | None = None
    ) -> Candidate:
        # One of two names of the same bytes gives nothing back, unless the other goes too.
        names = info.st_nlink - self._links.get((info.st_dev, info.st_ino), 0)
        gives_back = info.st_size if names <= 1 and not stat.S_ISDIR(info.st_mode) else 0
        return Candidate(kind, parts, info.st_size, gives_back, reason, Identity.of(info), digest)

    def _entries(self, path: str) -> Iterator[os.DirEntry[str]]:
        """In the order of names, so that a plan is the same each time; entries that disappear meanwhile are skipped."""
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as fault:
            self.notes.append(f"{path} cannot be looked at: {fault.strerror}")
            return
        yield from found


def span(seconds: float) -> str:
    """A length of time for a message."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The stat of the entry itself; None when it has disappeared since it was listed."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
