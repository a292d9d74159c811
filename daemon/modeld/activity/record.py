"""The items that the log and the watchers share; a record is encoded once."""

from __future__ import annotations

import msgspec


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One event of the log. `line` is its JSON object without the newline; `tail` is what follows the brace, with the
    newline: the end of every watcher's frame, made once."""

    seq: int
    event: str
    job: str | None
    model: str | None
    line: bytes
    tail: bytes


class Latest(msgspec.Struct, frozen=True, gc=False):
    """The newest progress of a job: live only, never in the log. `line` is a JSON object as above."""

    job: str
    model: str | None
    line: bytes


class Lagged(msgspec.Struct, frozen=True, gc=False):
    """`dropped` events were not delivered. A subscription with `since` = `resume_from` reads those that the log has."""

    dropped: int
    resume_from: int


class Filter(msgspec.Struct, frozen=True):
    """Which events a watcher wants. Empty and None mean all; a family (`job`) means all of its events."""

    events: frozenset[str] = frozenset()
    model: str | None = None
    job: str | None = None
    progress: bool = False
    """Whether the watcher wants the progress of jobs too; `events` does not apply to it."""

    def everything(self) -> bool:
        return not self.events and self.model is None and self.job is None

    def wants(self, record: Recorded) -> bool:
        if self.events and record.event not in self.events and record.event.partition(".")[0] not in self.events:
            return False
        return self._about(record.job, record.model)

    def wants_progress(self, latest: Latest) -> bool:
        return self.progress and self._about(latest.job, latest.model)

    def _about(self, job: str | None, model: str | None) -> bool:
        if self.job is not None and job != self.job:
            return False
        if self.model is None:
            return True
        # Names that differ only in case are one name.
        return model is not None and model.casefold() == self.model.casefold()
