"""Names to models for readers: the manifests on disk, remembered, and believed only as long as stat agrees.

Other tools publish and remove manifests without telling anybody. So nothing here is trusted by itself: each answer
costs a stat of the manifest and one of the blob, and that is nearly all it costs. Answers are synchronous.
`models` may also be called from a worker thread: entries never change once made, and single dict operations are atomic.
"""

from __future__ import annotations

import difflib
import os
import stat
import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

from modeld.store import durable, manifests
from modeld.store.digest import Digest
from modeld.store.layout import Layout
from modeld.store.manifests import Manifest
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, Internal, InvalidName, NotFound, WireError
from modelwire.values import ModelFile, ModelView, Provenance, Resolved

_SETTLED_NS: Final = 50_000_000
"""File times tick as coarsely as the kernel's timer, 10 ms at the slowest: a file that was written this shortly
before it was read can change again under the same times."""

_RESCAN_SHARE: Final = 10
"""Look-ups of names that are not there spend at most a tenth of the time on reading the directory again."""

_HINT_NEIGHBOURS: Final = 100
"""Names compared on each side of where a missing name would stand: a hint must not cost milliseconds."""

_Times = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest as it was read: what it says, or why it cannot be used."""

    name: ModelName
    manifest_path: str
    times: _Times
    settled: bool
    manifest: Manifest | None
    fault: WireError | None
    blobs: tuple[tuple[str, int], ...]
    """Each blob's path and size; the first is what the name resolves to."""
    resolved: Resolved | None


class Index:
    """Reads of one store's manifests."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._entries: dict[str, Entry] = {}
        """By the name's exact spelling."""
        self._spellings: dict[str, str] = {}
        """Key → the spelling that has it, of the last look at the directory and of what was published since."""
        self._directory_times: _Times | None = None
        self._next_scan = 0.0
        self._damaged: tuple[str, ...] = ()

    # -- answers

    def resolve(self, text: str) -> Resolved:
        """The path behind a name. `NotFound`, `InvalidName`, or `Corrupt` when the bytes are not all there."""
        entry = self._entries.get(text)
        if entry is not None and entry.resolved is not None and entry.settled:
            path, size = entry.blobs[0]
            try:
                info = os.lstat(entry.manifest_path)
                blob = os.lstat(path)
            except OSError:
                pass
            else:
                if (
                    (info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_size) == entry.times
                    and blob.st_size == size
                    and stat.S_ISREG(blob.st_mode)
                    and (len(entry.blobs) == 1 or self.missing(entry) is None)
                ):
                    return entry.resolved
        return self._resolve_anew(text)

    def find(self, text: str) -> Entry:
        """The entry a name means: itself, else another spelling of it, else its default tag."""
        name = ModelName.parse(text)
        for candidate in (name, name.with_default_tag):
            if candidate is not None:
                entry = self.entry(candidate)
                if entry is not None:
                    return entry
        raise self._not_found(name)

    def entry(self, name: ModelName) -> Entry | None:
        """The model of exactly this name, in whichever spelling; None when there is none."""
        entry = self._load(name)
        if entry is None:
            spelling = self.spelling(name)
            if spelling is not None and spelling != name.text:
                entry = self._load(ModelName.parse(spelling))
        return entry

    def spelling(self, name: ModelName) -> str | None:
        """How the model of this name spells it, when there is one."""
        self._refresh_spellings()
        return self._spellings.get(name.key)

    def models(self) -> list[ModelView]:
        """Every model, by name. Files that cannot be used are in `damaged` afterwards."""
        entries, damaged = self._scan()
        views = [self.view(entry) for entry in entries]
        self._damaged = tuple(damaged)
        return views

    @property
    def damaged(self) -> tuple[str, ...]:
        """One sentence for each file of the last `models` that is no usable manifest."""
        return self._damaged

    def view(self, entry: Entry) -> ModelView:
        """Raises the entry's fault when its manifest cannot be used."""
        if entry.manifest is None:
            raise entry.fault or _unreadable(entry.manifest_path)
        manifest, reason = entry.manifest, self.missing(entry)
        return ModelView(
            name=manifest.name,
            format=manifest.format,
            blob=manifest.blob if manifest.blob.startswith("sha256:") else f"sha256:{manifest.blob}",
            size_bytes=manifest.size_bytes,
            state="ready" if reason is None else "failed",
            path=entry.blobs[0][0] if reason is None else None,
            license=manifest.license,
            source=_provenance(manifest),
            produced_by=manifest.produced_by,
            produced_at=manifest.produced_at,
            reason=reason,
            files=tuple(
                ModelFile(path=file.path, blob=file.blob, size_bytes=file.size_bytes, role=file.role)
                for file in manifest.files
            ),
        )

    def document(self, entry: Entry) -> dict[str, Any]:
        """The manifest file with all its fields."""
        with durable.store_faults("read the manifest", entry.manifest_path):
            return manifests.read_document(entry.manifest_path)

    @staticmethod
    def missing(entry: Entry) -> str | None:
        """Why the model cannot be used, judged by its blobs' names and sizes; None when it can."""
        for path, size in entry.blobs:
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                return f"its blob is missing: {path}"
            except OSError as fault:
                return f"its blob cannot be read: {path}: {fault.strerror}"
            if not stat.S_ISREG(info.st_mode):
                return f"its blob is not a regular file: {path}"
            if info.st_size != size:
                return f"its blob has {info.st_size} bytes, the manifest says {size}: {path}"
        return None

    # -- changes that this daemon makes itself

    def published(self, name: ModelName) -> None:
        self._entries.pop(name.text, None)
        self._spellings[name.key] = name.text

    def removed(self, name: ModelName) -> None:
        self._entries.pop(name.text, None)
        self._spellings.pop(name.key, None)

    # -- the disk

    def _resolve_anew(self, text: str) -> Resolved:
        entry = self.find(text)
        if entry.manifest is None or entry.resolved is None:
            raise entry.fault or _unreadable(entry.manifest_path)
        reason = self.missing(entry)
        if reason is not None:
            raise Corrupt(
                f"'{entry.name.text}' cannot be used: {reason}",
                hint="add or pull it again; the manifest is kept",
                details={"name": entry.name.text, "blob": entry.resolved.blob, "reason": reason},
            )
        return entry.resolved

    def _load(self, name: ModelName) -> Entry | None:
        """The entry of this spelling, from memory when the file is still the one that was read."""
        text = name.text
        path = self._layout.manifest(name)
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._entries.pop(text, None)
            return None
        except OSError as fault:
            raise durable.store_fault(fault, "look for the manifest", path) from fault
        entry = self._entries.get(text)
        if entry is None or not entry.settled or entry.times != _times(info):
            entry = self._read(name, path, info)
            if entry is None:
                self._entries.pop(text, None)
                return None
            self._entries[text] = entry
        return entry

    def _read(self, name: ModelName, path: str, seen: os.stat_result) -> Entry | None:
        started = time.time_ns()
        try:
            manifest, info = manifests.read(path, name)
        except FileNotFoundError:
            return None
        except WireError as fault:
            return Entry(name, path, _times(seen), _is_settled(seen, started), None, fault, (), None)
        except OSError as fault:
            problem = durable.store_fault(fault, "read the manifest", path)
            return Entry(name, path, _times(seen), False, None, problem, (), None)
        blob = self._layout.blob(manifest.digest)
        blobs = [(blob, manifest.size_bytes)] if not manifest.files else []
        blobs += [(self._layout.blob(Digest.parse(file.blob)), file.size_bytes) for file in manifest.files]
        resolved = Resolved(name=name.text, path=blob, blob=manifest.digest.text, state="ready")
        blobs.sort(key=lambda pair: pair[0] != blob)
        return Entry(name, path, _times(info), _is_settled(info, started), manifest, None, tuple(blobs), resolved)

    def _scan(self) -> tuple[list[Entry], list[str]]:
        stems, times, started = self._list_directory()
        entries: list[Entry] = []
        damaged: list[str] = []
        spellings: dict[str, str] = {}
        for stem in stems:
            try:
                name = ModelName.from_stem(stem)
            except InvalidName as fault:
                damaged.append(f"{self._layout.manifests_dir}/{stem}.json: {fault.message}")
                continue
            entry = self._load(name)
            if entry is None:
                continue
            first = spellings.setdefault(name.key, name.text)
            if entry.fault is not None:
                damaged.append(entry.fault.message)
            elif first != name.text:
                damaged.append(f"{entry.manifest_path}: '{name.text}' is another spelling of '{first}'")
            else:
                entries.append(entry)
        self._keep_spellings(spellings, times, started)
        for gone in self._entries.keys() - {entry.name.text for entry in entries}:
            self._load(ModelName.parse(gone))
        return entries, damaged

    def _list_directory(self) -> tuple[list[str], _Times, int]:
        started = time.time_ns()
        path = self._layout.manifests_dir
        with durable.store_faults("read", path):
            times = _times(os.stat(path))
            with os.scandir(path) as files:
                stems = [file.name[:-5] for file in files if file.name.endswith(".json") and file.name[0] != "."]
        stems.sort()
        return stems, times, started

    def _refresh_spellings(self) -> None:
        path = self._layout.manifests_dir
        with durable.store_faults("read", path):
            if self._directory_times == _times(os.stat(path)):
                return
        now = time.monotonic()
        if now < self._next_scan:
            return
        stems, times, started = self._list_directory()
        spellings: dict[str, str] = {}
        for stem in stems:
            text = stem.replace("+", ":", 1)
            spellings.setdefault(text.lower(), text)
        self._keep_spellings(spellings, times, started)
        self._next_scan = time.monotonic() + (time.monotonic() - now) * _RESCAN_SHARE

    def _keep_spellings(self, spellings: dict[str, str], times: _Times, started: int) -> None:
        self._spellings = spellings
        self._directory_times = times if times[0] < started - _SETTLED_NS else None

    def _not_found(self, name: ModelName) -> NotFound:
        close = self._close_names(name)
        hint = f"did you mean {' or '.join(close)}?" if close else "`modelctl list` shows what is there"
        return NotFound(
            f"there is no model named '{name.text}'", hint=hint, details={"name": name.text, "close": close}
        )

    def _close_names(self, name: ModelName) -> list[str]:
        keys = sorted(self._spellings)
        at = bisect_left(keys, name.key)
        near = keys[max(0, at - _HINT_NEIGHBOURS) : at + _HINT_NEIGHBOURS]
        return [self._spellings[key] for key in difflib.get_close_matches(name.key, near, n=3, cutoff=0.6)]


def _times(info: os.stat_result) -> _Times:
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_size)


def _is_settled(info: os.stat_result, read_at: int) -> bool:
    return max(info.st_mtime_ns, info.st_ctime_ns) < read_at - _SETTLED_NS


def _provenance(manifest: Manifest) -> Provenance | None:
    source = manifest.source
    if source is None:
        return None
    return Provenance(
        registry=source.registry or "",
        repo=source.repo or "",
        revision=source.revision or "",
        filename=source.filename or "",
    )


def _unreadable(path: str) -> Internal:
    return Internal(f"the manifest {path} cannot be used")
