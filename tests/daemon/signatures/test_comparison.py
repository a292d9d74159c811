"""Files are those that were signed, or the difference is named; what no signature covers is named too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from modeld.signatures.comparison import Comparison, ModelFile, compare
from modeld.signatures.faults import FilesDiffer
from modeld.signatures.verification import SignedModel, TrustedKey, signed_model
from rigs.signed_models import Shelf, sha256
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement
from rigs.verifying import listed, refused

KEY = new_key()


def signs(files: dict[str, bytes], **serialization: Any) -> SignedModel:
    document = signed_with_key(KEY, statement(resources_of(files), **serialization))
    return signed_model(json.dumps(document).encode(), TrustedKey(public_pem(KEY)))


def compared(signed: SignedModel, files: dict[str, bytes], signature_path: str | None = None) -> Comparison:
    return compare(signed, listed(files), Shelf(files).chunks_of, signature_path)


def difference(signed: SignedModel, files: dict[str, bytes], signature_path: str | None = None) -> FilesDiffer:
    fault = refused(lambda: compared(signed, files, signature_path))
    assert isinstance(fault, FilesDiffer)
    return fault


@pytest.mark.parametrize(
    "path",
    [
        ".gitignore", ".gitattributes", ".git", ".git/config", ".github/a/b", "model.sig",
        "cache", "cache/x", "a/b/x", "*", "cache/.gitignore",
    ],
)  # fmt: skip
def test_what_is_left_out_need_not_be_signed(path: str) -> None:
    signed = signs({"w": b"1"}, ignore_paths=["cache", "a/b/", "*", "/w", "../w"])
    found = compared(signed, {"w": b"1", path: b"2"}, "model.sig")
    assert found == Comparison(("w",), (path,))


@pytest.mark.parametrize(
    "path", ["a/.git/config", ".gitmodules", ".gitx", "cache2", "a/cache", "a/b2", "a", "x*", "CACHE", "a/model.sig"]
)
def test_nothing_else_is_left_out(path: str) -> None:
    signed = signs({"w": b"1"}, ignore_paths=["cache", "a/b/", "*"])
    assert difference(signed, {"w": b"1", path: b"2"}, "model.sig").unsigned == (path,)


def test_the_signature_is_left_out_where_it_is() -> None:
    signed = signs({"w": b"1"})
    assert difference(signed, {"w": b"1", "model.sig": b""}).unsigned == ("model.sig",)
    assert difference(signed, {"w": b"1", "model.sig": b""}, "other.sig").unsigned == ("model.sig",)


@pytest.mark.parametrize("path", [".gitattributes", ".github/x", "cache/x", "model.sig"])
def test_what_is_signed_is_checked_although_it_could_be_left_out(path: str) -> None:
    """model-signing 1.0 signs git's files when its caller names other paths to leave out."""
    signed = signs({"w": b"1", path: b"2"}, ignore_paths=["cache"])
    assert compared(signed, {"w": b"1", path: b"2"}, "model.sig").not_signed == ()
    assert difference(signed, {"w": b"1", path: b"3"}, "model.sig").changed == (path,)
    assert difference(signed, {"w": b"1"}, "model.sig").missing == (path,)


def test_all_that_differs_is_named() -> None:
    signed = signs({"a": b"1", "b": b"2", "c": b"3", "d": b"4", "e": b"4"})
    fault = difference(signed, {"a": b"x", "b2": b"2", "x": b"y", "d2": b"4"})
    assert fault.rule == "changed"
    assert fault.changed == ("a",)
    assert fault.renamed == (("b", "b2"), ("d", "d2"))
    assert fault.missing == ("c", "e")
    assert fault.unsigned == ("x",)
    for named in ("changed: 'a'", "renamed: 'b' as 'b2', 'd' as 'd2'", "missing: 'c', 'e'", "unsigned: 'x'"):
        assert named in str(fault)


def test_few_of_many_are_in_the_sentence() -> None:
    fault = difference(signs({f"{number:03}": b"1" for number in range(100)}), {"x": b"2"})
    assert "missing: '000', '001', '002' and 97 more; unsigned: 'x'" in str(fault)
    assert len(fault.missing) == 100


def test_one_file_has_any_name() -> None:
    signed = signs({".": b"1"})
    assert compared(signed, {"any.gguf": b"1"}).verified == ("any.gguf",)
    beside = {"any.gguf": b"1", "model.sig": b"2", ".gitignore": b"3"}
    assert compared(signed, beside, "model.sig") == Comparison(("any.gguf",), (".gitignore", "model.sig"))
    assert difference(signed, {"any.gguf": b"2"}).rule == "changed"
    assert difference(signed, {}).missing == (".",)
    assert difference(signed, {"a": b"1", "b": b"1"}).rule == "renamed"


def sharded(files: dict[str, bytes], size: int) -> SignedModel:
    parts = [
        (f"{path}:{start}:{min(start + size, len(content))}", content[start : start + size])
        for path, content in sorted(files.items())
        for start in range(0, len(content), size)
    ]
    resources = [{"name": name, "algorithm": f"sha256-sharded-{size}", "digest": sha256(part)} for name, part in parts]
    document = signed_with_key(KEY, statement(resources, method="shards", shard_size=size))
    return signed_model(json.dumps(document).encode(), TrustedKey(public_pem(KEY)))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 40])
@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 8, 100])
def test_shards_and_chunks_of_any_size_agree(length: int, chunk: int) -> None:
    content = bytes(range(length))
    signed = sharded({"w": content}, 4)

    def found(read: bytes) -> Comparison:
        def chunks_of(path: str) -> Iterator[memoryview]:
            assert path == "w"
            yield memoryview(b"")
            for at in range(0, len(read), chunk):
                yield memoryview(read)[at : at + chunk]

        return compare(signed, [ModelFile("w", length, sha256(content))], chunks_of, None)

    assert found(content).verified == ("w",)
    for read in (content + b"x", content + b"long", content[:-1], b"", content[:-1] + b"x", b"x" + content[1:]):
        with pytest.raises(FilesDiffer) as caught:
            found(read)
        assert caught.value.changed == ("w",)


def test_a_size_that_differs_is_found_without_reading() -> None:
    files = {"v": b"5", "w": b"12345678"}
    shelf = Shelf(files)
    fault = refused(lambda: compare(sharded({**files, "w": b"1234"}, 4), listed(files), shelf.chunks_of, None))
    assert isinstance(fault, FilesDiffer)
    assert (fault.changed, shelf.read) == (("w",), [])


def test_empty_files_are_not_covered_by_shards() -> None:
    files = {"w": b"12345678", "empty": b""}
    assert compared(sharded(files, 4), files) == Comparison(("w",), ("empty",))


def test_a_whole_file_that_is_read_is_compared_whole() -> None:
    digest = hashlib.blake2b(b"12").hexdigest()
    resources = [{"name": "w", "algorithm": "blake2b", "digest": digest}]
    document = signed_with_key(KEY, statement(resources, hash_type="blake2b"))
    signed = signed_model(json.dumps(document).encode(), TrustedKey(public_pem(KEY)))
    assert compared(signed, {"w": b"12"}).verified == ("w",)
    for other in (b"1", b"123", b"", b"1212"):
        assert difference(signed, {"w": other}).changed == ("w",)


def test_what_reading_raises_passes_through() -> None:
    def chunks_of(path: str) -> Iterator[bytes]:
        raise OSError(5, "no disk", path)

    with pytest.raises(OSError, match="no disk"):
        compare(sharded({"w": b"1"}, 4), listed({"w": b"1"}), chunks_of, None)
