"""What is signed must be a statement about a model, agree with itself, and list the files in order, once and safely."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest

from modeld.signatures.faults import SignatureFault
from modeld.signatures.statement import Statement, read_statement
from rigs.signers import Json, resources_of, statement
from rigs.verifying import refused

FILES = {"a": b"1", "b/c": b"2"}
STATED = statement(resources_of(FILES))


def read(document: Json) -> Statement:
    return read_statement(json.dumps(document).encode())


def rule_of(document: Json) -> tuple[str, str]:
    fault: SignatureFault = refused(lambda: read(document))
    return type(fault).__name__, fault.rule


def changed(to: Any, *path: Any) -> Json:
    document = copy.deepcopy(STATED)
    *above, last = path
    part: Any = document
    for each in above:
        part = part[each]
    part[last] = to
    return document


def listing(*names: str, **serialization: Any) -> Json:
    shard_size, algorithm = serialization.get("shard_size"), "sha256"
    if shard_size is not None:
        serialization["method"], algorithm = "shards", f"sha256-sharded-{shard_size:.0f}"
    digest = hashlib.sha256(b"").hexdigest()
    return statement([{"name": name, "algorithm": algorithm, "digest": digest} for name in names], **serialization)


@pytest.mark.parametrize(
    ("document", "refusal"),
    [
        (changed("https://in-toto.io/Statement/v0.1", "_type"), ("Unverifiable", "statement_type")),
        (changed("https://model_signing/Digests/v0.1", "predicateType"), ("Unverifiable", "predicate_type")),
        (changed("https://slsa.dev/provenance/v1", "predicateType"), ("Unverifiable", "predicate_type")),
        (changed(None, "predicateType"), ("Unverifiable", "structure")),
        (changed([], "subject"), ("Unverifiable", "subject")),
        (changed(STATED["subject"] * 2, "subject"), ("Unverifiable", "subject")),
        (changed({}, "subject", 0, "digest"), ("Unverifiable", "structure")),
        (changed("0" * 64, "subject", 0, "digest", "sha256"), ("InvalidSignature", "subject")),
        (changed([], "predicate"), ("Unverifiable", "structure")),
        (changed({}, "predicate"), ("Unverifiable", "structure")),
        (changed("trees", "predicate", "serialization", "method"), ("Unverifiable", "method")),
        (changed("file-shard-1024", "predicate", "serialization", "method"), ("Unverifiable", "method")),
        (changed("shards", "predicate", "serialization", "method"), ("Unverifiable", "structure")),
        (changed("md5", "predicate", "serialization", "hash_type"), ("Unverifiable", "hash_type")),
        (changed("blake2b", "predicate", "serialization", "hash_type"), ("Unverifiable", "resources")),
        (changed("x", "predicate", "serialization", "ignore_paths"), ("Unverifiable", "structure")),
        (changed([1], "predicate", "serialization", "ignore_paths"), ("Unverifiable", "structure")),
        (changed([""], "predicate", "serialization", "ignore_paths"), ("Unverifiable", "ignore_paths")),
        (changed(["."], "predicate", "serialization", "ignore_paths"), ("Unverifiable", "ignore_paths")),
        (changed("sha512", "predicate", "resources", 0, "algorithm"), ("Unverifiable", "resources")),
        (changed("0" * 63, "predicate", "resources", 0, "digest"), ("Unverifiable", "resources")),
        (changed("A" * 64, "predicate", "resources", 0, "digest"), ("Unverifiable", "resources")),
        (changed(" " + "0" * 63, "predicate", "resources", 0, "digest"), ("Unverifiable", "resources")),
        (listing(), ("Unverifiable", "resources")),
        (listing("b", "a"), ("Unverifiable", "resources")),
        (listing("a", "a"), ("Unverifiable", "resources")),
        (listing(".", "a"), ("Unverifiable", "resources")),
        (listing("a", shard_size=128.0), ("Unverifiable", "resources")),
        (listing("a:0", shard_size=128.0), ("Unverifiable", "resources")),
        (listing("a:00:1", shard_size=128.0), ("Unverifiable", "resources")),
        (listing("a:0:٣", shard_size=128.0), ("Unverifiable", "resources")),
        (listing("../a:0:1", shard_size=128.0), ("Unverifiable", "resources")),
        (listing("a:0:1", shard_size=0.5), ("Unverifiable", "structure")),
        (listing("a:0:1", shard_size=1.5), ("Unverifiable", "structure")),
        (listing("a:0:1", shard_size=0), ("Unverifiable", "structure")),
        (listing("a:0:1", shard_size=-1), ("Unverifiable", "structure")),
        (listing("a:0:1", shard_size=2**60), ("Unverifiable", "structure")),
        (listing("a:1:128", shard_size=128), ("InvalidSignature", "resources")),
        (listing("a:0:129", shard_size=128), ("InvalidSignature", "resources")),
        (listing("a:0:0", shard_size=128), ("Unverifiable", "resources")),
        (listing("a:0:128", "a:128:128", shard_size=128), ("InvalidSignature", "resources")),
        (listing("a:0:100", "a:100:128", shard_size=128), ("InvalidSignature", "resources")),
        (listing("a:0:128", "a:256:300", shard_size=128), ("InvalidSignature", "resources")),
        (listing("a:0:128", "a:0:12", shard_size=128), ("Unverifiable", "resources")),
    ],
)
def test_what_is_not_as_it_must_be_is_refused(document: Json, refusal: tuple[str, str]) -> None:
    assert rule_of(document) == refusal


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../a", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b", "x" * 4096]
)
def test_a_path_that_is_no_file_of_a_model_is_refused(path: str) -> None:
    assert rule_of(listing(path)) == ("Unverifiable", "resources")


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a-b", "a.b", "a/b", "ab", "ä", "\U0001f600"],
        ["a", "a/b", "a-b", "a.b", "ab"],
        ["...", "..a", "c:\\d", "d\ne", "e:0:1"],
    ],
)
def test_both_orders_and_any_name_are_taken(names: list[str]) -> None:
    """The specification's order is by the text of the names, model-signing's by their components."""
    assert set(read(listing(*names)).files) == set(names)


def test_shards_are_joined_in_both_orders() -> None:
    by_place = [f"a:{start}:{start + 100}" for start in range(0, 1100, 100)] + ["a:1100:1101", "b:c:0:7"]
    for names in (by_place, sorted(by_place)):
        files = read(listing(*names, shard_size=100)).files
        assert {path: (file.size, len(file.digests)) for path, file in files.items()} == {
            "a": (1101, 12),
            "b:c": (7, 1),
        }


def test_what_is_signed_may_have_fields_that_are_not_known() -> None:
    document = copy.deepcopy(STATED)
    for part in (document, document["subject"][0], document["predicate"], document["predicate"]["serialization"]):
        part["more"] = [1.5, None]
    document["predicate"]["resources"][0]["annotations"] = {}
    document["subject"][0]["digest"]["sha512"] = "0"
    assert read(document) == read(STATED)


def test_ignored_paths_are_taken_by_their_components() -> None:
    ignored = ["a//b/./c/", "cache/", "/abs", "../out", "*"]
    found = read(changed(ignored, "predicate", "serialization", "ignore_paths")).ignored
    assert {("a", "b", "c"), ("cache",), ("*",)} < found
    assert len(found) == 5
