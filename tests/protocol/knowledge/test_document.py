"""The document that describes a model: its fields, what is usual, templates, requirements, and the name of its file."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from modelwire.errors import InvalidDigest, InvalidRequest, NotFound
from modelwire.knowledge.document import ModelDocument, built, decoded, document_of
from modelwire.knowledge.estimates import vram_by_formula
from modelwire.knowledge.requirements import MEDIUM_LLM, SMALL_LLM, YOLO_NANO, Requirements
from modelwire.knowledge.templates import TEMPLATES, template

REQUIRED = [
    "model_id",
    "name",
    "model_type",
    "format",
    "version",
    "quantization",
    "size_bytes",
    "sha256",
    "requirements",
    "features",
    "license",
    "source",
    "created_at",
]


def written(document: ModelDocument) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(msgspec.json.encode(document))
    return made


def given(**changes: Any) -> dict[str, Any]:
    return written(built("m", "M", "llm")) | changes


def test_what_is_usual() -> None:
    made = written(built("m", "M", "llm"))
    assert list(made) == REQUIRED
    assert made.pop("created_at").endswith("Z")
    assert made == {
        "model_id": "m",
        "name": "M",
        "model_type": "llm",
        "format": "gguf",
        "version": "1.0.0",
        "quantization": "Q4_K_M",
        "size_bytes": 0,
        "sha256": "",
        "requirements": {
            "min_vram_mb": 0,
            "recommended_vram_mb": 0,
            "min_ram_mb": 2048,
            "execution_providers": ["cpu"],
            "architectures": ["aarch64", "x86_64"],
        },
        "features": [],
        "license": "Apache-2.0",
        "source": "",
    }


@pytest.mark.parametrize("field", REQUIRED)
def test_each_required_field_is_required(field: str) -> None:
    document = given()
    del document[field]
    with pytest.raises(InvalidRequest, match=field):
        document_of(document)


OPTIONAL = {
    "blob_hash": "b3:0",
    "download_url": "https://files.test/m",
    "params_billions": 3.5,
    "context_length": 8192,
    "classes": ["person"],
    "metadata": {"any": [1, None]},
}


def test_optional_fields_are_kept_and_left_out_when_absent() -> None:
    assert written(document_of(given(**OPTIONAL))) == given(**OPTIONAL)
    for field in OPTIONAL:
        assert field not in written(document_of(given()))
        assert field not in written(document_of(given(**{field: None})))
    assert "metadata" not in written(document_of(given(metadata={})))


def test_words_are_read_in_any_case_and_written_in_lower_case() -> None:
    made = document_of(given(model_type="Llm", format="GGUF"))
    assert (made.model_type, made.format, made.quantization) == ("llm", "gguf", "Q4_K_M")


@pytest.mark.parametrize("kind", ["detector", "llm", "tracker", "embedder", "vlm", "whisper", "custom"])
def test_the_types_of_models(kind: str) -> None:
    assert document_of(given(model_type=kind)).model_type == kind


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "painter"}, "model_type"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"size_bytes": 2**63}, "size_bytes"),
        ({"size_bytes": "7"}, "size_bytes"),
        ({"requirements": {"min_ram_mb": -1}}, "min_ram_mb"),
        ({"requirements": []}, "requirements"),
        ({"features": "chat"}, "features"),
        ({"params_billions": -1}, "params_billions"),
        ({"context_length": 0.5}, "context_length"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_wrong_values_are_refused_with_their_place(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        document_of(given(**changes))


@pytest.mark.parametrize("content", [None, [], "m", 7])
def test_no_object_is_no_document(content: object) -> None:
    with pytest.raises(InvalidRequest, match="is an object"):
        document_of(content, where="$.manifest")


@pytest.mark.parametrize(("digest", "rule"), [("ab", "length"), ("A" * 64, "alphabet"), ("g" * 64, "alphabet")])
def test_a_digest_is_64_lowercase_digits_or_unknown(digest: str, rule: str) -> None:
    with pytest.raises(InvalidDigest) as refused:
        document_of(given(sha256=digest))
    assert refused.value.details == {"rule": rule}
    assert document_of(given(sha256="ab" * 32)).sha256 == "ab" * 32
    assert document_of(given(sha256="")).sha256 == ""


def test_unknown_fields_are_no_fault() -> None:
    assert document_of(given(more=1)).model_id == "m"


def test_the_name_of_the_file() -> None:
    made = built("ministral-3b", "M", "llm", version="25.12", quantization="Q4_K_M")
    assert made.file_name == "ministral-3b-25_12-q4_k_m.gguf"
    assert built("yolov8n", "Y", "detector", version="8.0.0", quantization="F16", format="onnx").file_name == (
        "yolov8n-8_0_0-f16.onnx"
    )


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        (SMALL_LLM, (2048, 4096, 4096, ("cuda", "cpu"))),
        (MEDIUM_LLM, (4096, 8192, 8192, ("cuda", "cpu"))),
        (YOLO_NANO, (512, 1024, 1024, ("tensorrt", "cuda", "cpu"))),
    ],
)
def test_the_presets(preset: Requirements, numbers: tuple[object, ...]) -> None:
    found = preset.min_vram_mb, preset.recommended_vram_mb, preset.min_ram_mb, preset.execution_providers
    assert found == numbers
    assert preset.architectures == ("aarch64", "x86_64")


def test_the_templates() -> None:
    small, medium, detector = template("ministral-3b", "Q8_0"), template("ministral-8b", "Q4_K_M"), template("yolov8n")
    assert (small.name, small.model_type, small.version, small.format) == (
        "Ministral 3B Instruct",
        "llm",
        "25.12",
        "gguf",
    )
    assert (small.params_billions, small.context_length, small.quantization) == (3.0, 256_000, "Q8_0")
    assert (small.requirements, small.source, small.license) == (SMALL_LLM, "Mistral AI", "Apache-2.0")
    assert small.features == ("chat", "function_calling", "vision")
    assert (medium.name, medium.params_billions, medium.requirements) == ("Ministral 8B Instruct", 8.0, MEDIUM_LLM)
    assert vram_by_formula(8.0, medium.quantization, 0) == 4915
    assert (detector.name, detector.model_type, detector.version) == ("YOLOv8 Nano", "detector", "8.0.0")
    assert (detector.format, detector.quantization, detector.requirements) == ("onnx", "F16", YOLO_NANO)
    assert (detector.source, detector.license, detector.features) == ("Ultralytics", "AGPL-3.0", ("coco_80",))
    for name in TEMPLATES:
        assert document_of(written(template(name))).model_id == name


def test_a_template_that_does_not_exist() -> None:
    with pytest.raises(NotFound) as missing:
        template("ministral-70b")
    assert "ministral-3b" in (missing.value.hint or "")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": "LLM"},
        {"format": "GGUF"},
        {"metadata": {}},
        {"metadata": None},
        {"metadata": {"big": [1, {"deep": None}]}},
        {"params_billions": None},
        {"unknown": 1},
    ],
)
def test_json_is_read_as_the_decoded_document_is(changes: dict[str, Any]) -> None:
    content = msgspec.to_builtins(built("m", "M", "llm", sha256="a" * 64)) | changes
    assert decoded(msgspec.json.encode(content)) == document_of(content)


@pytest.mark.parametrize("changes", [{"sha256": "A" * 64}, {"model_type": "no"}, {"name": None}])
def test_json_is_refused_as_the_decoded_document_is(changes: dict[str, Any]) -> None:
    content = msgspec.to_builtins(built("m", "M", "llm")) | changes
    with pytest.raises((InvalidRequest, InvalidDigest)) as by_parts:
        document_of(content)
    with pytest.raises(type(by_parts.value)) as at_once:
        decoded(msgspec.json.encode(content))
    assert at_once.value.message == by_parts.value.message
