"""The models that live pulls bring, as clients see them before there is a manifest."""

from __future__ import annotations

from typing import Final

from modeld.jobs.board import Board
from modeld.jobs.job import AnyJob, timestamp
from modeld.jobs.states import Stage
from modeld.operations.job_operation import JobOperation
from modeld.store import Digest, ModelName
from modeld.store.manifests.coming import ComingModel
from modelwire.errors import AlreadyExists
from modelwire.knowledge.document import built
from modelwire.requests import ModelAdd, ModelPull
from modelwire.values import ModelView

FETCHING: Final = ("model.pull", "model.provision")
"""The kinds of jobs after whose failure a registered model has failed."""

_UNKNOWN: Final = "unknown"
"""The format, which the bytes say."""

_DECIMALS: Final = 4
"""Of the progress: hundredths of a percent, which no list shows in full."""

_OVER: Final[frozenset[Stage]] = frozenset({"cancelling", "ending", "withdrawn"})
"""Stages of jobs that bring no model any more, or have brought it."""


def arriving(board: Board) -> tuple[ComingModel, ...]:
    """For the event loop. Of two pulls for one name, the one that is further: a job that runs is, and then the one that
    has more of its bytes."""
    found: dict[str, tuple[tuple[bool, float], ComingModel]] = {}
    for job in board.jobs:
        if (pull := _pull_of(job)) is None:
            continue
        coming = _coming(job, pull)
        place = (job.state == "running", coming.view.progress or 0.0)
        known = found.get(coming.name.key)
        if known is None or known[0] < place:
            found[coming.name.key] = (place, coming)
    return tuple(coming for _, coming in found.values())


def check_not_coming(board: Board, name: ModelName, uid: int) -> None:
    """Raises AlreadyExists when a live job brings a model that a registration of this name would refuse at its end: one
    of the same name, or another user's of which one would hide the other."""
    others = {each.key for each in (name.with_default_tag, name.without_default_tag) if each is not None}
    for job in board.jobs:
        if job.model is None or not (_pull_of(job) or (isinstance(job.request, ModelAdd) and _is_live(job))):
            continue
        coming = ModelName.parse(job.model)
        if coming.key == name.key or (coming.key in others and job.peer != uid):
            raise AlreadyExists(
                f"'{coming.text}' is on its way: job {job.id} of uid {job.peer} brings it",
                hint=f"Wait for that job (`modelctl attach {job.id}`), or register the model under another name.",
                details={"name": name.text, "existing": coming.text, "job": job.id},
            )


def _is_live(job: AnyJob) -> bool:
    """A job that is not on the disk may never have been."""
    return job.recorded.is_set() and not job.terminal and job.stage not in _OVER


def _pull_of(job: AnyJob) -> ModelPull | None:
    """Not a pull of a name alone, which only looks the model up."""
    if not isinstance(job.kind, JobOperation) or not _is_live(job):
        return None
    pull = job.kind.pull_of(job.request)
    return None if pull is None or pull.ref in (pull.name, job.model) else pull


def _coming(job: AnyJob, request: ModelPull) -> ComingModel:
    name = request.name or job.model
    assert name is not None, "a job that brings in a model has its name"
    counters = job.progress.snapshot()
    expected = None if request.sha256 is None else Digest.parse(request.sha256)
    size = counters.bytes_total or 0
    view = ModelView(
        name=name,
        format=_UNKNOWN,
        blob="" if expected is None else expected.text,
        size_bytes=size,
        state="downloading",
        license=request.license,
        owner=job.peer,
        reason=f"job {job.id} is {job.state}",
        progress=round(counters.bytes_done / size, _DECIMALS) if size else None,
    )
    document = built(
        name,
        name,
        "custom",
        format=_UNKNOWN,
        quantization="",
        size_bytes=size,
        sha256="" if expected is None else expected.hex,
        license=request.license or "",
        source=request.ref,
        created_at=timestamp(job.created_at),
    )
    return ComingModel(ModelName.parse(name), view, lambda: document)
