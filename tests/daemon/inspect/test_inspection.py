"""What is certainly no model is found, with the reason; everything else passes, with what is known of it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from modeld.inspect.inspection import Inspection, inspect
from modelwire.values import ModelFacts
from rigs.opened import opened
from rigs.tiny_gguf import write_tiny_llama

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def inspection(path: Path, name: str | None = None) -> Inspection:
    with opened(path) as (descriptor, size):
        return inspect(descriptor, size, name or path.name)


def inspection_of(tmp_path: Path, content: bytes, name: str) -> Inspection:
    path = tmp_path / "content"
    path.write_bytes(content)
    return inspection(path, name)


def fault(path: Path, name: str | None = None) -> str | None:
    return inspection(path, name).fault


def fault_in(tmp_path: Path, content: bytes, name: str) -> str | None:
    return inspection_of(tmp_path, content, name).fault


def safetensors(data: bytes) -> bytes:
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "t": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize("extension", ["gguf", "safetensors", "GGUF"])
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML"),
        (b"\n  <html lang='en'>" + b" " * 9000, "HTML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (POINTER, "git lfs pull"),
        (b'{"error": "Repository not found"}\n', "JSON"),
    ],
)
def test_something_else_under_the_name_of_weights_is_found(
    tmp_path: Path, extension: str, content: bytes, word: str
) -> None:
    reason = fault_in(tmp_path, content, f"m.{extension}")
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize("name", ["config.json", "README.html", "model", "m.bin", "m.onnx"])
@pytest.mark.parametrize("content", [b"", b"<html></html>", POINTER, b"{}"])
def test_other_names_promise_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    assert fault_in(tmp_path, content, name) is None


@pytest.mark.parametrize(
    "content",
    [
        b"weights",
        b"GGUF1",
        b"GG weights",
        b"GGUF" + b"weights" * 50,
        b"GGUF\3\0\0\0 the bytes of a model",
        bytes(4096),
        os.urandom(4096),
        b"\x07" + bytes(7) + b"{" + b"weights" * 9,
    ],
)
def test_what_is_not_understood_passes(tmp_path: Path, content: bytes) -> None:
    assert fault_in(tmp_path, content, "m.gguf") is None


def test_every_cut_of_a_gguf_file_is_found(tmp_path: Path) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    assert fault(path) is None
    size = path.stat().st_size
    for keep in (size - 32, size // 2, 5000, 30):
        os.truncate(path, keep)
        reason = fault(path, "any-name")
        assert reason is not None, keep
        assert "cut off" in reason


def test_every_cut_of_a_safetensors_file_is_found(tmp_path: Path) -> None:
    whole = safetensors(os.urandom(5000))
    assert fault_in(tmp_path, whole, "m.safetensors") is None
    assert fault_in(tmp_path, whole + b"more", "m.safetensors") is None
    for keep in (len(whole) - 1, len(whole) - 5000, 60, 9):
        reason = fault_in(tmp_path, whole[:keep], "m.safetensors")
        assert reason is not None, keep
        assert "cut off" in reason


TENSOR = struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 8, 0, 0)
GGUFS = {
    "one tensor": (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + TENSOR).ljust(64, b"\0") + bytes(32),
    "no tensor": b"GGUF" + struct.pack("<IQQ", 2, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, 7),
    "the other byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
}
SAFETENSORS = safetensors(b"data")


@pytest.mark.parametrize("kind", GGUFS)
def test_every_beginning_of_a_gguf_file_is_found(tmp_path: Path, kind: str) -> None:
    whole = GGUFS[kind]
    assert fault_in(tmp_path, whole, "m.gguf") is None
    for keep in range(1, len(whole)):
        assert "cut off" in (fault_in(tmp_path, whole[:keep], "m.gguf") or ""), keep
    for keep in range(4, len(whole)):
        assert "cut off" in (fault_in(tmp_path, whole[:keep], "m.bin") or ""), keep


def test_every_beginning_of_a_safetensors_file_is_found(tmp_path: Path) -> None:
    assert fault_in(tmp_path, SAFETENSORS, "m.safetensors") is None
    for keep in range(1, len(SAFETENSORS)):
        assert "cut off" in (fault_in(tmp_path, SAFETENSORS[:keep], "m.safetensors") or ""), keep
    for keep in range(9, len(SAFETENSORS)):
        assert "cut off" in (fault_in(tmp_path, SAFETENSORS[:keep], "m.bin") or ""), keep


def test_the_reason_names_both_sizes(tmp_path: Path) -> None:
    reason = fault_in(tmp_path, GGUFS["one tensor"][:10], "m.gguf")
    assert reason == "it is cut off: it has 10 bytes, and a gguf file has 24 at least"
    reason = fault_in(tmp_path, b"abc", "m.safetensors")
    assert reason == "it is cut off: it has 3 bytes, and a safetensors file has 10 at least"


@pytest.mark.parametrize(
    ("content", "name", "surprise"),
    [
        (SAFETENSORS, "m.gguf", "its name promises gguf, and its bytes are safetensors"),
        (GGUFS["one tensor"], "m.onnx", "its name promises onnx, and its bytes are gguf"),
        (b"weights", "m.gguf", "its name promises gguf, and its bytes are of no known format"),
        (b"weights", "m.onnx", None),
        (GGUFS["one tensor"], "m.gguf", None),
        (GGUFS["one tensor"], "m.bin", None),
        (b"weights", "weights", None),
    ],
)
def test_a_name_that_promises_something_else_is_told(
    tmp_path: Path, content: bytes, name: str, surprise: str | None
) -> None:
    assert inspection_of(tmp_path, content, name).surprise == surprise


def test_a_header_that_is_not_read_leaves_the_format_and_the_reason(tmp_path: Path) -> None:
    facts = inspection_of(tmp_path, b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "m.gguf").facts
    assert facts == ModelFacts(format="gguf", opaque="it does not begin as a GGUF file of version 2 or 3")
    found = inspection_of(tmp_path, GGUFS["one tensor"][:-1], "m.gguf")
    assert found.facts is not None
    assert (found.facts.opaque, found.facts.parameters) == (None, 8)
    assert "cut off" in (found.fault or "")
    within = inspection_of(tmp_path, GGUFS["one tensor"][:30], "m.gguf").facts
    assert within == ModelFacts(format="gguf", opaque="the file ends within its header")


def test_what_is_in_doubt(tmp_path: Path) -> None:
    assert inspection_of(tmp_path, SAFETENSORS, "m.safetensors").doubt is None
    assert inspection_of(tmp_path, b"weights", "m.bin").doubt == "its bytes are of no known format"
    assert (
        inspection_of(tmp_path, SAFETENSORS, "m.gguf").doubt == "its name promises gguf, and its bytes are safetensors"
    )
    assert "version" in (inspection_of(tmp_path, b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "m.gguf").doubt or "")
