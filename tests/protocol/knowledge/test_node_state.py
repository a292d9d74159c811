"""Where a model stands on a machine, transition by transition."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from modelwire.knowledge.node_state import NodeState

FAR = NodeState(
    model_id="m", status="failed", local_path="/m", download_progress=0.5, verified_at="2026-01-01T00:00:00Z", error="e"
)


def test_nulls_are_written() -> None:
    assert json.loads(msgspec.json.encode(NodeState(model_id="m"))) == {
        "model_id": "m",
        "status": "available",
        "local_path": None,
        "download_progress": 0.0,
        "verified_at": None,
        "error": None,
    }


def test_available_has_neither_path_nor_progress() -> None:
    assert FAR.available() == NodeState(model_id="m")


@pytest.mark.parametrize(
    ("given", "progress"), [(0.25, 0.25), (0.0, 0.0), (1.0, 1.0), (-0.5, 0.0), (1.5, 1.0), (math.nan, 0.0)]
)
def test_downloading_clamps_the_progress_and_keeps_the_rest(given: float, progress: float) -> None:
    assert FAR.downloading(given) == msgspec.structs.replace(FAR, status="downloading", download_progress=progress)


def test_ready_is_verified_and_clears_the_error() -> None:
    assert FAR.ready("/new", "2026-02-02T00:00:00Z") == NodeState(
        model_id="m", status="ready", local_path="/new", download_progress=1.0, verified_at="2026-02-02T00:00:00Z"
    )


def test_loaded_changes_only_the_status() -> None:
    assert FAR.loaded() == msgspec.structs.replace(FAR, status="loaded")


def test_failed_keeps_path_and_progress() -> None:
    assert FAR.failed("why") == msgspec.structs.replace(FAR, status="failed", error="why")
