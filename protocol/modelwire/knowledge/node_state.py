"""Where a model stands on this machine, in the words of `node`. Absent values are written as null.

transition      what it changes
available       everything: no path, no progress, no time of a verification, no error
downloading(p)  the progress, which is between 0 and 1
ready(path)     the path; the progress is 1, with the time of the last verification, and no error is left
loaded          nothing but the status
failed(error)   the error
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from modelwire.vocabulary import ModelState

CatalogueState = Literal["pending", "active", "failed"]

CATALOGUE_STATES: Final[dict[ModelState, CatalogueState]] = {
    "available": "pending",
    "downloading": "pending",
    "ready": "active",
    "loaded": "active",
    "suspect": "pending",
    "failed": "failed",
    "unavailable": "pending",
}
"""The words of `catalogue_state`, by those of `node`."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    status: ModelState = "available"
    local_path: str | None = None
    download_progress: float = 0.0
    verified_at: str | None = None
    error: str | None = None

    def available(self) -> NodeState:
        return NodeState(model_id=self.model_id)

    def downloading(self, progress: float) -> NodeState:
        return msgspec.structs.replace(self, status="downloading", download_progress=min(1.0, max(0.0, progress)))

    def ready(self, path: str, verified_at: str | None) -> NodeState:
        return msgspec.structs.replace(
            self, status="ready", local_path=path, download_progress=1.0, verified_at=verified_at, error=None
        )

    def loaded(self) -> NodeState:
        return msgspec.structs.replace(self, status="loaded")

    def failed(self, error: str) -> NodeState:
        return msgspec.structs.replace(self, status="failed", error=error)
