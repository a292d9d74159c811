"""A GGUF header is read as the format's own library reads it, and no header makes the reader fail or run away."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import gguf as reference
import numpy
import pytest

from modeld.inspect import gguf
from modeld.inspect.gguf_types import FILE_TYPES, TENSOR_TYPES
from modeld.inspect.header import MAX_PARTS, Truncated, Unreadable
from rigs.opened import opened
from rigs.tiny_gguf import write_tiny_llama


def read(path: Path) -> gguf.Gguf:
    with opened(path) as (descriptor, size):
        return gguf.read(descriptor, size)


def values(path: Path) -> dict[str, Any]:
    with opened(path) as (descriptor, size):
        header = gguf.read(descriptor, size)
        return header.values(descriptor, size, header.fields)


def tensors(path: Path) -> list[tuple[str, list[int], int, int]]:
    with opened(path) as (descriptor, size):
        header = gguf.read(descriptor, size)
        return [(each.name, list(each.shape), each.kind, each.offset) for each in header.tensors(descriptor, size)]


def test_the_types_of_tensors_are_those_of_the_format() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in reference.GGML_QUANT_SIZES.items()}
    assert {kind: tuple(known) for kind, known in TENSOR_TYPES.items() if kind in theirs} == {
        kind: theirs[kind] for kind in TENSOR_TYPES if kind in theirs
    }
    only_computed_with = {reference.GGMLQuantizationType.Q8_1}
    assert theirs.keys() - TENSOR_TYPES.keys() <= only_computed_with


def test_the_types_of_files_are_those_of_the_format() -> None:
    theirs = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_").removesuffix("_MOE")
        for kind in reference.LlamaFileType
        if kind.name != "GUESSED"
    }
    assert theirs.items() <= FILE_TYPES.items()


KINDS = [kind for kind in TENSOR_TYPES if kind in list(reference.GGMLQuantizationType)]


def write_every_type(path: Path, order: reference.GGUFEndian) -> dict[str, Any]:
    """A tensor of each type, and a field of each kind. Returns the fields."""
    fields: dict[str, Any] = {
        "a.uint8": ("add_uint8", 200),
        "a.int8": ("add_int8", -7),
        "a.uint16": ("add_uint16", 60_000),
        "a.int16": ("add_int16", -30_000),
        "a.uint32": ("add_uint32", 4_000_000_000),
        "a.int32": ("add_int32", -2_000_000_000),
        "a.uint64": ("add_uint64", 2**63 + 5),
        "a.int64": ("add_int64", -(2**62)),
        "a.float32": ("add_float32", 0.5),
        "a.float64": ("add_float64", 1e300),
        "a.bool": ("add_bool", True),
        "a.string": ("add_string", "naïve \U0001f600"),
        "a.long": ("add_string", "x" * 200_000),
        "a.strings": ("add_array", ["one", "", "drei"]),
        "a.numbers": ("add_array", [1, 2, 3]),
        "a.floats": ("add_array", [0.5, -0.25]),
        "a.bools": ("add_array", [True, False]),
    }
    writer = reference.GGUFWriter(path, "llama", endianess=order)
    for key, (method, value) in fields.items():
        getattr(writer, method)(key, value)
    for kind in KINDS:
        known = TENSOR_TYPES[kind]
        raw = numpy.zeros((3, known.bytes * 2), dtype=numpy.uint8)
        plain = {"F32": "f4", "F16": "f2", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8", "F64": "f8"}
        if known.name in plain:
            writer.add_tensor(known.name, numpy.zeros((3, 2), dtype=plain[known.name]))
        else:
            writer.add_tensor(known.name, raw, raw_dtype=reference.GGMLQuantizationType(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {key: value for key, (_, value) in fields.items()}


@pytest.mark.parametrize("order", list(reference.GGUFEndian))
def test_all_keys_and_tensors_agree_with_the_library(tmp_path: Path, order: reference.GGUFEndian) -> None:
    written = write_every_type(path := tmp_path / "all.gguf", order)
    theirs = reference.GGUFReader(path)
    mine = values(path)
    assert mine == written | {"general.architecture": "llama"}
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert field.contents() == mine[key], key
    assert len(theirs.tensors) == len(KINDS) > 30
    data = read(path).needed_bytes
    assert data == path.stat().st_size - (-theirs.tensors[-1].n_bytes % 32)
    mapped = tensors(path)
    assert [(name, shape, kind) for name, shape, kind, _ in mapped] == [
        (each.name, [int(length) for length in each.shape], int(each.tensor_type)) for each in theirs.tensors
    ]
    assert [offset for *_, offset in mapped] == [each.data_offset - theirs.data_offset for each in theirs.tensors]
    assert read(path).weights == sum(int(each.n_elements) for each in theirs.tensors)
    sizes = {int(each.tensor_type): int(each.n_bytes) for each in theirs.tensors}
    assert read(path).type_bytes == sizes


def test_a_real_file_needs_what_it_has(tmp_path: Path) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    assert path.stat().st_size - 32 < read(path).needed_bytes <= path.stat().st_size


def test_each_shard_of_a_set_needs_what_it_has(tmp_path: Path) -> None:
    for path in write_tiny_llama(tmp_path / "tiny.gguf", shards=3):
        assert path.stat().st_size - 32 < read(path).needed_bytes <= path.stat().st_size


@pytest.mark.parametrize("keep", [24, 60, 1000])
def test_a_file_that_ends_within_its_header_is_cut_off(tmp_path: Path, keep: int) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    os.truncate(path, keep)
    with pytest.raises(Truncated):
        read(path)


def header(*parts: bytes, tensors: int = 0, fields: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + b"".join(parts)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def field(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def nested(depth: int) -> bytes:
    return struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQI", 4, 1, 7)


def test_version_2_is_read_as_version_3(tmp_path: Path) -> None:
    path = tmp_path / "two.gguf"
    path.write_bytes(header(field(b"k", 8, text(b"v")), field(b"e", 8, text(b"")), fields=2, version=2))
    assert (read(path).version, values(path)) == (2, {"k": "v", "e": ""})


def test_arrays_within_arrays_are_read(tmp_path: Path) -> None:
    path = tmp_path / "nested.gguf"
    path.write_bytes(header(field(b"k", 9, nested(3)), fields=1))
    assert values(path) == {"k": [[[[7]]]]}


def test_bytes_that_are_no_text_are_marked_in_values(tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    tokens = struct.pack("<IQ", 8, 1) + text(b"\xff\xfe")
    path.write_bytes(header(field(b"k", 8, text(b"a\xff")), field(b"t", 9, tokens), fields=2))
    assert values(path) == {"k": "a\ufffd", "t": ["\ufffd\ufffd"]}


HUGE = 2**63
HOSTILE = {
    "fields": header(fields=HUGE),
    "tensors": header(tensors=HUGE),
    "more fields than are read": header(fields=16_385),
    "a string": header(field(b"k", 8, struct.pack("<Q", HUGE)), fields=1),
    "a key": header(struct.pack("<Q", 70_000), fields=1),
    "keys of many bytes": header(*(field(b"%05d" % n + b"k" * 60_000, 4, bytes(4)) for n in range(20)), fields=20),
    "the name of a tensor": header(text(b"t" * 1025) + struct.pack("<IIQ", 0, 0, 0), tensors=1),
    "tensors of many weights": header(
        *(text(b"%d" % n) + struct.pack("<IQIQ", 1, 2**62, 99, 0) for n in range(3)), tensors=3
    ),
    "tensors of many types": header(*(text(b"%d" % n) + struct.pack("<IIQ", 0, n, 0) for n in range(99)), tensors=99),
    "a key that is no text": header(field(b"\xff", 4, bytes(4)), fields=1),
    "a key twice": header(field(b"k", 4, bytes(4)), field(b"k", 4, bytes(4)), fields=2),
    "an array of strings": header(field(b"k", 9, struct.pack("<IQ", 8, HUGE)), fields=1),
    "an array of numbers": header(field(b"k", 9, struct.pack("<IQ", 12, HUGE)), fields=1),
    "an array of arrays": header(field(b"k", 9, struct.pack("<IQ", 9, HUGE)), fields=1),
    "arrays too deep": header(field(b"k", 9, nested(1000)), fields=1),
    "an array of an unknown type": header(field(b"k", 9, struct.pack("<IQ", 99, 1)), fields=1),
    "an unknown type": header(field(b"k", 99, b""), fields=1),
    "no alignment": header(field(b"general.alignment", 4, bytes(4)), fields=1),
    "an odd alignment": header(field(b"general.alignment", 4, struct.pack("<I", 48)), fields=1),
    "an alignment that is text": header(field(b"general.alignment", 8, text(b"32")), fields=1),
    "a tensor of many dimensions": header(text(b"t") + struct.pack("<I", 2**31), tensors=1),
    "a tensor of many weights": header(text(b"t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0), tensors=1),
    "a tensor far away": header(text(b"t") + struct.pack("<IQIQ", 1, 1, 0, HUGE), tensors=1),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("room", [0, 1 << 40])
def test_a_lying_header_is_unreadable(tmp_path: Path, what: str, room: int) -> None:
    path = tmp_path / "lie.gguf"
    path.write_bytes(HOSTILE[what])
    if room:
        os.truncate(path, room)
    with pytest.raises(Unreadable):
        read(path)


def test_a_header_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(header(field(b"k", 9, struct.pack("<IQ", 0, 1 << 30)), fields=2))
    os.truncate(path, 1 << 40)
    with pytest.raises(Unreadable, match="MiB"):
        read(path)


def test_values_beyond_the_bounds_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "values.gguf"
    words = struct.pack("<IQ", 8, 300_001) + bytes(8 * 300_001)
    numbers = struct.pack("<IQ", 0, 5 << 20) + bytes(5 << 20)
    kinds = {b"w1": words, b"w2": words, b"n1": numbers, b"n2": numbers}
    path.write_bytes(header(*(field(key, 9, value) for key, value in kinds.items()), fields=4))
    with opened(path) as (descriptor, size):
        made = gguf.read(descriptor, size)
        assert len(made.values(descriptor, size, ["w1"])["w1"]) == 300_001
        for keys in (["w1", "w2"], ["n1"], ["n1", "n2"]):
            with pytest.raises(Unreadable):
                made.values(descriptor, size, keys)


def test_the_last_tensor_says_how_long_the_file_must_be(tmp_path: Path) -> None:
    path = tmp_path / "forked.gguf"
    other_program = text(b"a") + struct.pack("<IQIQ", 1, 1 << 20, 39, 0)
    path.write_bytes(header(other_program, text(b"b") + struct.pack("<IQIQ", 1, 8, 0, 320), tensors=2))
    assert read(path).needed_bytes % 32 == 0
    assert read(path).needed_bytes < 1000


def test_parts_beyond_the_bound_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "parts.gguf"
    half = field(b"%d", 9, struct.pack("<IQ", 8, MAX_PARTS // 2 + 1) + bytes(8 * (MAX_PARTS // 2 + 1)))
    path.write_bytes(header(half.replace(b"%d", b"k1"), half.replace(b"%d", b"k2"), fields=2))
    with pytest.raises(Unreadable, match="parts"):
        read(path)
