"""Formats, by first bytes, else by name."""

from __future__ import annotations

import pytest

from modeld.inspect.formats import format_of_content, format_of_name


@pytest.mark.parametrize(
    ("head", "filename", "expected"),
    [
        (b"GGUF\x03\0\0\0\0", "model.bin", "gguf"),
        (b"GGUF", "x", "gguf"),
        (b"\x40\0\0\0\0\0\0\0{", "x.bin", "safetensors"),
        (b"\xff\xff\xff\xff\xff\0\0\0{", "x.bin", "bin"),
        (b"\x40\0\0\0\0\0\0\0[", "x", "unknown"),
        (b"", "model.GGUF", "gguf"),
        (b"", "model.onnx", "onnx"),
        (b"anything", "model.safetensors", "safetensors"),
        (b"", "dir.d/model", "unknown"),
        (b"", "model.", "unknown"),
        (b"", "model.bad name", "unknown"),
        (b"", "model." + "x" * 17, "unknown"),
        (b"", "", "unknown"),
    ],
)
def test_the_format_of_a_file(head: bytes, filename: str, expected: str) -> None:
    assert (format_of_content(head) or format_of_name(filename)) == expected
