"""What a name already stands for, and what may still be done to it."""

from __future__ import annotations

from typing import Any

import pytest

from modeld.progress import JobProgress
from modeld.store.digest import Digest
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import File, Manifest
from modeld.store.names import ModelName
from modeld.store.publish.publishing import PublishRequest, judge
from modelwire.errors import AlreadyExists, Corrupt, Unsupported

DIGEST, OTHER = Digest("ab" * 32), Digest("cd" * 32)


def request(name: str = "llama", **changes: Any) -> PublishRequest:
    return PublishRequest(name=ModelName.parse(name), provenance="a test", order=0, progress=JobProgress(), **changes)


def entry(name: str = "llama", **changes: Any) -> Entry:
    manifest = Manifest(schema_version=1, blob=DIGEST.text, size_bytes=5, license="mit")
    return Entry(ModelName.parse(name), "/p", (0, 0, 0, 0), True, **{"manifest": manifest, "fault": None, **changes})


def damaged(fault: Exception) -> Entry:
    return entry(manifest=None, fault=fault)


def test_a_free_name_may_be_given() -> None:
    assert judge(None, request(), DIGEST) is False


def test_the_same_bytes_are_already_there() -> None:
    assert judge(entry(), request(), DIGEST) is True
    assert judge(entry(), request(license="mit"), DIGEST) is True


def test_unknown_bytes_may_turn_out_to_be_the_same() -> None:
    assert judge(entry(), request(), None) is False


def test_other_bytes_need_replace() -> None:
    with pytest.raises(AlreadyExists, match="'llama'") as caught:
        judge(entry(), request(), OTHER)
    assert caught.value.details["existing"] == DIGEST.text
    assert caught.value.details["wanted"] == OTHER.text
    assert judge(entry(), request(replace=True), OTHER) is False
    assert judge(entry(), request(replace=True), DIGEST) is False


@pytest.mark.parametrize("replace", [False, True])
def test_another_spelling_names_the_first_one(replace: bool) -> None:
    with pytest.raises(AlreadyExists, match="'LLAMA' is another spelling of 'llama'"):
        judge(entry(), request("LLAMA", replace=replace), DIGEST)


def test_another_license_is_not_dropped_in_silence() -> None:
    with pytest.raises(AlreadyExists, match="license 'mit'"):
        judge(entry(), request(license="apache-2.0"), DIGEST)
    assert judge(entry(), request(license="apache-2.0", replace=True), DIGEST) is False


def test_a_model_of_several_files_is_not_one_file() -> None:
    manifest = Manifest(
        schema_version=1, blob=DIGEST.text, size_bytes=5, files=(File(path="a", blob=DIGEST.text, size_bytes=5),)
    )
    with pytest.raises(AlreadyExists):
        judge(entry(manifest=manifest), request(), DIGEST)


def test_a_damaged_manifest_holds_its_name_until_it_is_replaced() -> None:
    with pytest.raises(AlreadyExists, match="torn"):
        judge(damaged(Corrupt("torn")), request(), None)
    assert judge(damaged(Corrupt("torn")), request(replace=True), None) is False


@pytest.mark.parametrize("replace", [False, True])
def test_a_newer_manifest_is_never_written_over(replace: bool) -> None:
    with pytest.raises(Unsupported, match="version 2"):
        judge(damaged(Unsupported("version 2")), request(replace=replace), None)
