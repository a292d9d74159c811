"""Verifies models: checks their blobs, and judges each model by what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modeld.progress import JobProgress
from modeld.store.digest import Digest
from modeld.store.disk.locks import StoreLock
from modeld.store.maintain.checking import IN_FULL, Checker, Finding, Manner
from modeld.store.manifests.entries import Entry
from modeld.store.publish.holds import Holds
from modelwire.values import Verification, Verified

SHOWN: Final = 10_000
"""Models of one answer: 3 MB, where a reply may have 8."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The models that were looked at, and the finding for each of their blobs."""

    entries: Sequence[Entry]
    findings: Mapping[Digest, Finding]
    size: int
    """Of all blobs."""


class Verifier:
    """For the event loop."""

    def __init__(self, checker: Checker, lock: StoreLock, holds: Holds) -> None:
        self._checker = checker
        self._name_changes = checker.name_changes
        self._lock = lock
        self._holds = holds

    async def verify(
        self, names: Sequence[str] | None = None, manner: Manner = IN_FULL, *, progress: JobProgress | None = None
    ) -> Verification:
        """These models, or all of them. `NotFound`, before the first byte is read, for an unknown name."""
        look = await self.look(names, manner, progress=progress)
        return await self._name_changes.in_thread(
            lambda: _verification([_judged(entry, look.findings) for entry in look.entries], look.size, manner.quick)
        )

    async def look(self, names: Sequence[str] | None, manner: Manner, *, progress: JobProgress | None = None) -> Looked:
        """A verification with its findings."""
        in_thread = self._name_changes.in_thread
        await in_thread(self._lock.check)
        index, progress = self._name_changes.index, progress or JobProgress()
        if names is None:
            entries = [entry async for entry in index.entries()]
        else:
            found = await in_thread(lambda: [index.find(name) for name in names])
            entries = list({entry.name: entry for entry in found}.values())
        progress.phase("verify")
        digests = list(dict.fromkeys(blob.digest for entry in entries for blob in entry.blobs))
        size = sum((await in_thread(lambda: _sizes(entries))).values())
        progress.total(size)
        with self._holds.relying_on(*digests, self._name_changes.layout.staging):
            findings = await self._checker.check(digests, manner, progress)
        return Looked(entries, findings, size)


def _sizes(entries: Iterable[Entry]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes.update(entry.sizes())
    return sizes


def _judged(entry: Entry, findings: Mapping[Digest, Finding]) -> Verified:
    look, manifest = entry.look(), entry.manifest
    if manifest is None:
        return Verified(name=entry.name.text, ok=False, expected="", actual=None, files=0, reason=look.reason)
    named = manifest.blobs()
    bad = (findings[digest] for digest in named if findings[digest].fault is not None)
    first = next(bad, findings[manifest.digest])
    compared = any(findings[digest].outcome.outcome == "checked" for digest in named)
    return Verified(
        name=manifest.name,
        ok=first.fault is None and look.has_bytes,
        expected=first.outcome.digest.text,
        actual=None if first.outcome.actual is None else first.outcome.actual.text,
        size_bytes=sum(entry.sizes().values()),
        files=max(1, len(manifest.files)),
        reason=first.fault or look.reason or None,
        quarantine_path=first.kept_at,
        by="checksums" if compared else "sha256",
    )


def _verification(models: list[Verified], size: int, quick: bool) -> Verification:
    bad = [model for model in models if not model.ok]
    shown = models if len(models) <= SHOWN else [*bad, *(model for model in models if model.ok)][:SHOWN]
    return Verification(
        models=tuple(shown), ok=not bad, checked=len(models), failed=len(bad), size_bytes=size, quick=quick
    )
