"""A safetensors header is read as the format's own library reads it, and no header makes the reader fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors as reference
from safetensors.numpy import save_file

from modeld.inspect import safetensors
from modeld.inspect.header import Truncated, Unreadable
from rigs.opened import opened


def read(path: Path) -> safetensors.Safetensors:
    with opened(path) as (descriptor, size):
        return safetensors.read(descriptor, size)


def raw(header: bytes, data: int = 0) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(data)


def tensor(dtype: str = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def document(**parts: Any) -> bytes:
    return raw(json.dumps(parts).encode(), 64)


def test_all_that_the_library_writes_agrees(tmp_path: Path) -> None:
    dtypes = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]
    arrays = {f"t{number}": numpy.zeros((number, 3), dtype=dtype) for number, dtype in enumerate(dtypes)}
    arrays["scalar"] = numpy.zeros((), dtype="f4")
    save_file(arrays, path := tmp_path / "m.safetensors", metadata={"format": "pt", "naïve": "\U0001f600"})
    mine = read(path)
    assert mine.needed_bytes == path.stat().st_size
    with reference.safe_open(path, "numpy") as theirs:
        assert mine.metadata == theirs.metadata()
        assert {each.name for each in mine.tensors} == set(theirs.keys())
        for each in mine.tensors:
            described = theirs.get_slice(each.name)
            assert (each.dtype, list(each.shape)) == (described.get_dtype(), described.get_shape())
            assert (each.size, each.weights) == (arrays[each.name].nbytes, arrays[each.name].size)


@pytest.mark.parametrize("dtype", safetensors.BITS)
def test_each_type_of_the_format_is_taken_by_the_library_too(tmp_path: Path, dtype: str) -> None:
    size = 8 * safetensors.BITS[dtype] // 8
    content = raw(json.dumps({"t": tensor(dtype, (8,), (0, size))}).encode(), size)
    (tmp_path / "m.safetensors").write_bytes(content)
    assert read(tmp_path / "m.safetensors").tensors == [safetensors.Tensor("t", (8,), dtype, 0, size, 8)]
    ((name, info),) = reference.deserialize(content)  # type: ignore[no-untyped-call]
    assert (name, info["dtype"], info["shape"]) == ("t", dtype, [8])


@pytest.mark.parametrize("keep", [0, 7, 9, 30])
def test_a_file_that_ends_within_its_header_is_cut_off(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(document(t=tensor())[:keep])
    with pytest.raises(Truncated) as fault:
        read(path)
    assert fault.value.needed > keep


HOSTILE = {
    "no object": raw(b"[]"),
    "no JSON": raw(b"{]"),
    "no UTF-8": raw(b'{"\xff": {}}'),
    "deep": raw(b'{"t": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a tensor that is a number": document(t=7),
    "no type": document(t={"shape": [4], "data_offsets": [0, 4]}),
    "no shape": document(t={"dtype": "U8", "data_offsets": [0, 4]}),
    "a negative shape": document(t=tensor(shape=(-4,))),
    "a fraction": document(t=tensor(shape=(4.5,))),
    "a huge shape": document(t=tensor(shape=(2**63,) * 40)),
    "many dimensions": document(t=tensor(shape=(1,) * 65, offsets=(0, 1))),
    "one offset": document(t=tensor(offsets=(0,))),
    "offsets in the other order": document(t=tensor(offsets=(4, 0))),
    "other bytes than the shape has": document(t=tensor(offsets=(0, 5))),
    "a gap": document(a=tensor(), b=tensor(offsets=(8, 12))),
    "an overlap": document(a=tensor(), b=tensor(offsets=(2, 6))),
    "a beginning that is not the first byte": document(t=tensor(offsets=(4, 8))),
    "a type without end": document(t=tensor("X" * 33)),
    "metadata that is no object": document(__metadata__=["x"]),
    "metadata that is not text": document(__metadata__={"x": 1}),
    "a length beyond the format": (2**63).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_lying_header_is_unreadable_and_the_library_refuses_it_too(tmp_path: Path, what: str) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(Unreadable):
        read(path)
    with pytest.raises((reference.SafetensorError, OverflowError)):
        reference.deserialize(HOSTILE[what])  # type: ignore[no-untyped-call]


def test_a_header_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(raw(b"{" + b" " * (17 << 20) + b"}"))
    with pytest.raises(Unreadable, match="at most"):
        read(path)
    path.write_bytes(raw(b"{" + b",".join(b'"%x":1' % number for number in range(600_001)) + b"}"))
    with pytest.raises(Unreadable, match="names"):
        read(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"t": tensor("X", (2**63 - 1,) * 64, (0, 0))},
        {f"t{number}": tensor(f"X{number}", (), (0, 0)) for number in range(65)},
    ],
)
def test_weights_and_types_beyond_reason_are_not_counted(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = tmp_path / "many.safetensors"
    path.write_bytes(document(**tensors))
    with pytest.raises(Unreadable, match="weights"):
        read(path)


def test_what_the_library_takes_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw(json.dumps({"__metadata__": None, "t": {**tensor(), "more": 1}}).encode() + b"   ", 4))
    reference.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    assert read(path).metadata == {}
    assert [each.name for each in read(path).tensors] == ["t"]
