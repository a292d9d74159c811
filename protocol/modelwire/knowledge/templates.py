"""Documents of well-known models, to be filled in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from modelwire.errors import NotFound
from modelwire.knowledge.document import ModelDocument, built
from modelwire.knowledge.requirements import MEDIUM_LLM, SMALL_LLM, YOLO_NANO, Requirements

_FEATURES: Final = ("chat", "function_calling", "vision")


def _ministral(size: str, billions: float, requirements: Requirements, quantization: str | None) -> ModelDocument:
    return built(
        f"ministral-{size.lower()}",
        f"Ministral {size} Instruct",
        "llm",
        version="25.12",
        quantization=quantization or "Q4_K_M",
        params_billions=billions,
        context_length=256_000,
        requirements=requirements,
        source="Mistral AI",
        license="Apache-2.0",
        features=_FEATURES,
    )


def _yolov8n(quantization: str | None) -> ModelDocument:
    return built(
        "yolov8n",
        "YOLOv8 Nano",
        "detector",
        version="8.0.0",
        format="onnx",
        quantization=quantization or "F16",
        requirements=YOLO_NANO,
        source="Ultralytics",
        license="AGPL-3.0",
        features=("coco_80",),
    )


TEMPLATES: Final[dict[str, Callable[[str | None], ModelDocument]]] = {
    "ministral-3b": partial(_ministral, "3B", 3.0, SMALL_LLM),
    "ministral-8b": partial(_ministral, "8B", 8.0, MEDIUM_LLM),
    "yolov8n": _yolov8n,
}


def template(model_id: str, quantization: str | None = None) -> ModelDocument:
    """Raises NotFound."""
    if model_id not in TEMPLATES:
        raise NotFound(f"there is no template {model_id!r}", hint=f"There are {', '.join(TEMPLATES)}.")
    return TEMPLATES[model_id](quantization)
