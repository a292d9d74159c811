"""The view of a model with what is known of it beside its bytes: its place on this machine, and an estimate."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modeld.store import ModelName
from modeld.store.catalog.history import History
from modeld.store.manifests.models import Kept
from modelwire.knowledge.document import document_of
from modelwire.knowledge.estimates import estimate
from modelwire.knowledge.node_state import CATALOGUE_STATES, NodeState
from modelwire.requests import ModelShow
from modelwire.values import ModelView, Provenanced


def described(view: ModelView, request: ModelShow, kept: Kept) -> ModelView:
    """Of a view with its document and its history."""
    document = document_of(view.model)
    return msgspec.structs.replace(
        _in_both_words(view, _mismatch(view, view.history)),
        file_name=document.file_name,
        node=msgspec.to_builtins(_place(view, document.model_id, kept)),
        estimated_vram_mb=None if view.facts is None else estimate(view.facts, request.context, request.cache_type),
    )


async def in_both_words(views: Sequence[ModelView], history: History) -> tuple[ModelView, ...]:
    """The views of a list with their `catalogue_state`."""
    mismatched = await history.mismatched([ModelName.parse(view.name) for view in views])
    found = {name.text: await history.of((), name) for name in mismatched}
    return tuple(_in_both_words(view, _mismatch(view, found.get(view.name, ()))) for view in views)


def _in_both_words(view: ModelView, differs: str | None) -> ModelView:
    state = CATALOGUE_STATES[view.state] if differs is None else "failed"
    return msgspec.structs.replace(view, reason=view.reason or differs, catalogue_state=state)


def _mismatch(view: ModelView, history: Sequence[Provenanced]) -> str | None:
    """Of a model whose bytes are not those that were expected, and that was stored all the same: until the same
    reference is found to match. What other users than the owner expect does not count."""
    judged: dict[object, str | None] = {}
    for outcome in history:
        known = outcome.details or {}
        of_these = "id" in known and outcome.actual == view.blob and outcome.peer in (None, view.owner)
        if of_these and outcome.outcome == "match":
            judged[known["id"]] = None
        elif of_these and outcome.outcome == "mismatch" and not known.get("strict"):
            judged[known["id"]] = f"it has the digest {outcome.actual}, {outcome.expected} was expected"
    return next(filter(None, judged.values()), None)


def _place(view: ModelView, model_id: str, kept: Kept) -> NodeState:
    """A model that is not given out has been ready: a failure and a suspicion leave its path, its progress and the time
    when its bytes were last found good."""
    state = NodeState(model_id=model_id)
    path = view.path or kept.path
    if path is not None:
        state = state.ready(path, view.verified_at or kept.verified_at)
    if view.state == "downloading":
        again = state if path is None else state.failed(view.reason or "")
        return again.downloading(view.progress or 0.0)
    if view.state == "loaded":
        return state.loaded()
    if view.state == "failed":
        return state.failed(view.reason or "")
    return msgspec.structs.replace(state, status=view.state)
