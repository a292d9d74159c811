"""Manifests: what version 1 says, and what is hostile."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.store.disk.layout import Layout
from modeld.store.disk.root import prepare_root
from modeld.store.manifests import manifests
from modeld.store.manifests.manifests import MAX_MANIFEST, parse, read
from modeld.store.manifests.writing import encode
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, PermissionDenied, Unsupported
from rigs.manifest_files import DIGEST, FOREIGN, NAME, document, put


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def test_a_foreign_manifest_is_accepted(layout: Layout) -> None:
    path = put(layout, b"\xef\xbb\xbf" + json.dumps(FOREIGN).encode())
    manifest, info = read(path, NAME)
    assert manifest.digest == DIGEST
    assert manifest.format == "gguf"
    assert manifest.source is not None
    assert manifest.source.repo == "o/r"
    assert info.st_ino == os.stat(path).st_ino


def test_only_what_is_needed_to_find_the_bytes_is_demanded() -> None:
    bare = {"schema_version": 1, "blob": DIGEST.hex, "size_bytes": 0}
    manifest = parse(json.dumps(bare).encode(), "p", NAME)
    assert (manifest.name, manifest.format, manifest.source) == ("llama:8b", "unknown", None)
    nulls = {**bare, "source": {"repo": None}, "produced_by": None, "license": None}
    assert parse(json.dumps(nulls).encode(), "p", NAME).produced_by is None


def test_the_file_name_is_the_name() -> None:
    assert parse(encode({**FOREIGN, "name": "another"}), "p", NAME).name == "llama:8b"


DAMAGED = {
    "empty": b"",
    "torn": encode(FOREIGN)[:-20],
    "no json": b"\0\1\2",
    "no object": b"[1]",
    "not utf-8": b'{"schema_version": 1, "name": "\xff"}',
    "deep": b"[" * 100_000,
    "nan": json.dumps({**FOREIGN, "size_bytes": float("nan")}).encode(),
    "no blob": json.dumps({"schema_version": 1, "size_bytes": 5}).encode(),
    "no version": json.dumps({"blob": DIGEST.text, "size_bytes": 5}).encode(),
    "version as text": json.dumps({**FOREIGN, "schema_version": "1"}).encode(),
    "path as blob": json.dumps({**FOREIGN, "blob": "../../etc/passwd"}).encode(),
    "uppercase blob": json.dumps({**FOREIGN, "blob": DIGEST.text.upper()}).encode(),
    "negative size": json.dumps({**FOREIGN, "size_bytes": -1}).encode(),
    "giant size": json.dumps({**FOREIGN, "size_bytes": 2**63}).encode(),
    "size as text": json.dumps({**FOREIGN, "size_bytes": "5"}).encode(),
    "bad file": json.dumps({**FOREIGN, "files": [{"path": "a", "blob": "zz", "size_bytes": 1}]}).encode(),
    "files as object": json.dumps({**FOREIGN, "files": {}}).encode(),
    "source as text": json.dumps({**FOREIGN, "source": "hf"}).encode(),
    "too big": encode({**FOREIGN, "x": "y" * MAX_MANIFEST}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_and_left_alone(layout: Layout, content: bytes) -> None:
    path = put(layout, content)
    with pytest.raises(Corrupt) as caught:
        read(path, NAME)
    assert path in caught.value.message
    assert caught.value.details["path"] == path
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize("content", [b'{"schema_version": 2}', b'{"schema_version": 0, "blob": []}'])
def test_another_version_is_refused_with_both_versions(layout: Layout, content: bytes) -> None:
    path = put(layout, content)
    with pytest.raises(Unsupported, match=r"version [02]; this modeld reads version 1") as caught:
        read(path, NAME)
    assert path in caught.value.message


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_regular_file_is_refused_without_waiting(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = layout.manifest(NAME)
    if kind == "link":
        (tmp_path / "target").write_bytes(encode(FOREIGN))
        os.symlink(tmp_path / "target", path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    with pytest.raises(Corrupt, match="not a regular file"):
        read(path, NAME)


def test_a_missing_manifest_is_not_an_error_of_the_store(layout: Layout) -> None:
    with pytest.raises(FileNotFoundError):
        read(layout.manifest(NAME), NAME)


def test_an_unreadable_manifest_is_an_error_that_names_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(layout, encode(FOREIGN))
    real = os.open

    def refuse(target: str, *arguments: Any) -> int:
        if target == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
        return real(target, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionDenied, match=NAME.stem.replace("+", r"\+")):
        read(path, NAME)


def accepted(content: bytes) -> bool:
    """Whether it is a manifest; every other outcome but a typed error fails the test."""
    try:
        return manifests.parse(content, "p", NAME).name == NAME.text
    except (Corrupt, Unsupported):
        return False


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_typed_error(content: bytes) -> None:
    assert accepted(content) in (True, False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_json_is_a_manifest_or_a_typed_error(value: Any) -> None:
    assert not accepted(json.dumps(value).encode())
    for field in ("source", "files", "format", "license", "produced_by"):
        assert accepted(json.dumps({**FOREIGN, field: value}).encode()) in (True, False)
    assert accepted(json.dumps({**FOREIGN, "unknown": value}).encode())


def test_what_a_name_stands_for_is_compared_by_its_files(layout: Layout) -> None:
    assert manifests.standing(layout, NAME) == ""
    put(layout, encode(document()))
    first = manifests.standing(layout, NAME)
    assert first
    put(layout, encode(document(license="apache-2.0", tags=["mine"])))
    assert manifests.standing(layout, NAME) == first, "the files are the same"
    put(layout, encode(document(blob=f"sha256:{'cd' * 32}")))
    assert manifests.standing(layout, NAME) not in ("", first)
    files = [{"path": "a", "blob": DIGEST.text, "size_bytes": 5}]
    several = [files, [*files, {"path": "b", "blob": DIGEST.text, "size_bytes": 5}]]
    seen = set()
    for listed in several:
        put(layout, encode(document(files=listed)))
        seen.add(manifests.standing(layout, NAME))
    assert len(seen) == 2
    assert first not in seen
    put(layout, b"damaged")
    assert manifests.standing(layout, NAME) == "unusable"


def test_what_a_name_stands_for_is_found_in_any_spelling_and_under_the_default_tag(layout: Layout) -> None:
    put(layout, encode(document()))
    assert manifests.standing(layout, ModelName.parse("LLAMA:8B")) == manifests.standing(layout, NAME)
    Path(layout.manifest(ModelName.parse("gemma:latest"))).write_bytes(encode(document()))
    assert manifests.standing(layout, ModelName.parse("gemma")) == manifests.standing(layout, NAME)
    Path(layout.manifests_dir, "\u212a.json").write_bytes(b"")  # lower() makes a k of it
    assert manifests.standing(layout, ModelName.parse("k")) == ""
