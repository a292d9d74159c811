"""The names that unfinished update commands need. While a command needs a name, the store refuses to remove, rename or
evict its model."""

from __future__ import annotations

from modeld.jobs.board import Board
from modeld.operations.updating import Update
from modeld.store import ModelName
from modeld.store.publish.holds import NameHold
from modelwire.requests import ModelUpdate


class UpdateHolds:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._names: dict[str, tuple[ModelName, ...]] = {}
        """By job; of one that waits, as its command has them. Threads read it and add to it, so nothing iterates over
        it."""

    def hold(self, job: str, update: Update, rollback: ModelName | None) -> None:
        """Until the job ends. `rollback` is the model that the command may know by an id."""
        live = {each.id for each in self._board.jobs}
        for ended in set(self._names) - live:
            self._names.pop(ended, None)
        self._names[job] = (*update.names, rollback or update.name)

    def of(self, name: ModelName) -> NameHold | None:
        """From any thread."""
        for job in self._board.jobs:
            if isinstance(job.request, ModelUpdate) and not job.terminal:
                names = self._names.get(job.id)
                if names is None:
                    names = self._names.setdefault(job.id, Update.of(job.request.command).names)
                if any(each.key == name.key for each in names):
                    return NameHold(f"job {job.id}, an update that needs it")
        return None
