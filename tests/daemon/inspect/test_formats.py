"""The format of a file is what its first bytes say; its name only promises one."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from modeld.inspect.formats import format_of_content, promised_format


def tiny_onnx(**options: object) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    content: bytes = helper.make_model(graph, **options).SerializeToString()
    return content


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return made.getvalue()


def array(*, many: bool) -> bytes:
    made = io.BytesIO()
    if many:
        numpy.savez(made, a=numpy.zeros(3))
    else:
        numpy.save(made, numpy.zeros(3))
    return made.getvalue()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GGUF\x03\0\0\0\0", "gguf"),
        (b"GGUF", "gguf"),
        (b"\x40\0\0\0\0\0\0\0{", "safetensors"),
        (b"\xff\xff\xff\xff\xff\0\0\0{", None),
        (b"\x40\0\0\0\0\0\0\0[", None),
        (b'\x40\0\0\0\0\0\0\0{ \n"a', "safetensors"),
        (b"\x40\0\0\0\0\0\0\0{}  ", "safetensors"),
        (struct.pack("<3q", 50_000, 123, 7) + bytes(4000), None),
        (b"lmgg\x00\x00\x00\x00", "ggml"),
        (b"\x1c\0\0\0TFL3", "tflite"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"ftrt\0\0\0\0", "tensorrt"),
        (archive("archive/data.pkl", "archive/version"), "pytorch"),
        (archive("readme.txt"), None),
        (array(many=False), "npy"),
        (array(many=True), "npz"),
        (tiny_onnx(), "onnx"),
        (tiny_onnx(producer_name="pytorch", producer_version="2.9", doc_string="words"), "onnx"),
        (tiny_onnx(ir_version=3), "onnx"),
        (b"\x08\x03", None),
        (b"\x08\x7f\x3a\x05", None),
        (b"\x08\x03\x08\x03\x4a\x05", None),
        (b"\x08" + b"\xff" * 20, None),
        (b"", None),
        (b"anything", None),
        (bytes(4096), None),
    ],
)
def test_the_format_of_content(head: bytes, expected: str | None) -> None:
    assert format_of_content(head[:4096]) == expected


def test_every_beginning_of_a_model_is_taken_or_not_without_a_fault() -> None:
    for content in (tiny_onnx(), archive("archive/data.pkl"), array(many=True)):
        for keep in range(len(content)):
            assert format_of_content(content[:keep]) in (None, format_of_content(content))


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("model.GGUF", "gguf"),
        ("a/b.c/model.onnx", "onnx"),
        ("model.pt", "pytorch"),
        ("model.bin", None),
        ("dir.gguf/model", None),
        ("model.", None),
        ("", None),
    ],
)
def test_what_a_name_promises(filename: str, expected: str | None) -> None:
    assert promised_format(filename) == expected


def test_the_library_takes_what_is_made_here_for_a_model() -> None:
    onnx.checker.check_model(onnx.load_from_string(tiny_onnx(ir_version=10)))
