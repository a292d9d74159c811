"""Where bytes of the store can be fetched again: the references by which they were pulled, as sources of one file.

A file is found at a source by its digest, else by its path: then it is fetched, and its digest decides. A reference may
mean another version by now; where its kind can name the recorded revision, that is asked too.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from modeld.download.source import Body, Description, FileInfo, Source
from modeld.pulls.context import PullContext
from modeld.pulls.recorded import Recorded, recorded_source
from modeld.sources.kind import For
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName
from modelwire.errors import Corrupt, SourceNotFound, WireError


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob, and the file that it is in a model."""

    digest: Digest
    model: str
    path: str
    size: int | None
    """By the checksums of its blocks; None without them: the size in a manifest is a hint."""


@dataclass(slots=True, eq=False)
class Place:
    """A reference at one of its sources. It is described once for all files of a job."""

    source: Source[Any]
    reference: Reference
    _description: Description | None = None
    _describing: threading.Lock = field(default_factory=threading.Lock)

    def describe(self) -> Description:
        with self._describing:
            if self._description is None:
                self._description = self.source.describe(self.reference)
            return self._description


class FileAt:
    """The file at one place, as a source of it alone."""

    def __init__(self, place: Place, wanted: Wanted) -> None:
        self._place = place
        self._wanted = wanted
        self._path = wanted.path

    @property
    def name(self) -> str:
        return self._place.source.name

    def origin(self, _reference: None) -> str | None:
        return self._place.source.origin(self._place.reference)

    def describe(self, _reference: None) -> Description:
        description = self._place.describe()
        file = self._file(description.files)
        self._path = file.path
        named = replace(file, path=self._wanted.path, digest=self._wanted.digest)
        preferred = description.preferred.get(file.path)
        return replace(
            description, files=(named,), preferred={} if preferred is None else {self._wanted.path: preferred}
        )

    def _file(self, files: Iterable[FileInfo]) -> FileInfo:
        wanted, unproven = self._wanted, list[FileInfo]()
        for file in files:
            if file.digest is not None and file.digest.matches(wanted.digest):
                return file
            if file.digest is None and (wanted.size is None or file.size in (None, wanted.size)):
                unproven.append(file)
        for file in unproven:
            if file.path == wanted.path or len(unproven) == 1:
                return file
        raise SourceNotFound(f"{self._place.reference.text} has no file {wanted.digest.text} any more")

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        return self._place.source.open(replace(file, path=self._path), start, end, validator)


UserOf = Callable[[str], Awaitable[For]]
"""On whose behalf a source is asked, by the text of the reference."""


class RecordedPlaces:
    """Finds the places for one job: what a description says is asked once. For the event loop."""

    def __init__(self, context: PullContext, user_of: UserOf) -> None:
        self._context = context
        self._in_thread = context.store.ingest.in_thread
        self._user_of = user_of
        self._places: dict[Reference, list[Place]] = {}
        """Of each reference, at its mirrors and its own source."""

    async def of(self, digest: Digest, models: Sequence[str]) -> tuple[list[Place], WireError | None]:
        """In the order in which to ask them; and why a place that is known is not asked."""
        unasked: WireError | None = None
        texts: dict[str, Recorded] = {}
        for name in map(ModelName.parse, models):
            found = await self._in_thread(partial(self._recorded, name))
            if found is not None and found.signed:
                unasked = NoMoreBytes("the address of its source had a secret, which is kept nowhere")
            elif found is not None:
                texts[found.text] = found
        for past in await self._context.store.history.of([digest], ModelName.parse(models[0])):
            if past.outcome == "added" and past.source is not None:
                texts.setdefault(past.source, Recorded(past.source, (), (), (), signed=False))
        places: list[Place] = []
        for recorded in texts.values():
            for reference in await self._in_thread(partial(self._references, recorded)):
                if reference not in self._places:
                    user = await self._user_of(reference.text)
                    self._places[reference] = await self._in_thread(partial(self._at, reference, user))
                places += self._places[reference]
        if places and self._context.settings.transfer.offline:
            return [], self._context.offline_fault(places[0].reference)
        return places, unasked

    def _recorded(self, name: ModelName) -> Recorded | None:
        """Blocking."""
        with suppress(WireError):
            entry = self._context.store.index.entry(name)
            return None if entry is None else recorded_source(entry)
        return None

    def _references(self, recorded: Recorded) -> list[Reference]:
        """Blocking: at the recorded revision, and as it was written; none for what is on this machine."""
        with suppress(WireError):
            reference = self._context.sources.read(recorded.text)
            if reference.network:
                if recorded.include or recorded.exclude:
                    reference = reference.choosing(recorded.include, recorded.exclude)
                return list(dict.fromkeys([reference.pinned(recorded.revision), reference]))
        return []

    def _at(self, reference: Reference, user: For) -> list[Place]:
        return [Place(source, reference) for source in self._context.route(reference, user).sources]


class NoMoreBytes(Corrupt):
    """Bytes are missing, and there is no source of them."""


class Nowhere:
    """The source of a file whose bytes are all here. That it is asked for some means that they are not."""

    name = "store"

    def __init__(self, wanted: Wanted, size: int) -> None:
        self._file = FileInfo(path=wanted.path, locator="", size=size, digest=wanted.digest)

    def origin(self, _reference: None) -> None:
        return None

    def describe(self, _reference: None) -> Description:
        return Description(source=self.name, files=(self._file,), registry="")

    def open(self, file: FileInfo, _start: int, _end: int | None, _validator: str | None) -> Body:
        raise NoMoreBytes(f"what was copied of {file.path} cannot be read back")
