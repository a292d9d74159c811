"""How a recorded reference becomes the source of one file: by its digest, by its path, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from modeld.download.source import Body, Description, FileInfo
from modeld.pulls.places import FileAt, NoMoreBytes, Nowhere, Place, Wanted
from modeld.sources.huggingface.reference import HubReference
from modeld.store.digest import Digest
from modelwire.errors import SourceNotFound, SourceUnavailable

DIGEST, OTHER = Digest("ab" * 32), Digest("cd" * 32)
WANTED = Wanted(DIGEST, "tiny", "weights.gguf", 100)
REFERENCE = HubReference(repo="org/repo")


class Hub:
    """A source that counts what is asked of it."""

    name = "hf"

    def __init__(self, *files: FileInfo, preferred: dict[str, Any] | None = None) -> None:
        self.files = files
        self.preferred = preferred or {}
        self.described = 0
        self.opened: list[tuple[str, int, int | None]] = []
        self.fault: Exception | None = None

    def origin(self, _reference: HubReference) -> str:
        return "https://hub"

    def describe(self, _reference: HubReference) -> Description:
        self.described += 1
        if self.fault is not None:
            raise self.fault
        return Description(source="hf:org/repo", files=self.files, registry="hf", preferred=self.preferred)

    def open(self, file: FileInfo, start: int, end: int | None, _validator: str | None) -> Body:
        self.opened.append((file.path, start, end))
        raise SourceUnavailable("closed")


def file(path: str, digest: Digest | None = None, size: int | None = 100) -> FileInfo:
    return FileInfo(path=path, locator=f"at/{path}", size=size, digest=digest)


def described(*files: FileInfo, wanted: Wanted = WANTED) -> FileInfo:
    (found,) = FileAt(Place(Hub(*files), REFERENCE), wanted).describe(None).files
    return found


def test_the_digest_decides_whatever_the_path_is_now() -> None:
    found = described(file("weights.gguf", OTHER), file("moved/w.gguf", DIGEST))
    assert (found.path, found.locator, found.digest) == ("weights.gguf", "at/moved/w.gguf", DIGEST)


@pytest.mark.parametrize("files", [[file("weights.gguf"), file("other.gguf")], [file("renamed.gguf", size=None)]])
def test_without_digests_it_is_the_file_of_that_path_or_the_only_one(files: list[FileInfo]) -> None:
    found = described(*files)
    assert (found.path, found.locator, found.digest) == ("weights.gguf", files[0].locator, DIGEST)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [file("weights.gguf", OTHER)],
        [file("weights.gguf", size=99)],
        [file("a.gguf"), file("b.gguf")],
    ],
    ids=["none", "another digest", "another size", "neither has the path"],
)
def test_another_version_is_never_asked_for_bytes(files: list[FileInfo]) -> None:
    with pytest.raises(SourceNotFound, match="hf:org/repo has no file"):
        described(*files)


def test_a_source_is_asked_for_the_file_by_its_own_path_and_described_once_for_all_files() -> None:
    hub = Hub(file("moved/w.gguf", DIGEST))
    place = Place(hub, REFERENCE)
    for source in (FileAt(place, WANTED), FileAt(place, WANTED)):
        (found,) = source.describe(None).files
        with pytest.raises(SourceUnavailable):
            source.open(found, 5, 10, None)
        assert (source.name, source.origin(None)) == ("hf", "https://hub")
    assert (hub.described, hub.opened) == (1, [("moved/w.gguf", 5, 10)] * 2)


def test_a_description_that_fails_is_asked_for_again() -> None:
    hub = Hub(file("weights.gguf", DIGEST))
    source = FileAt(Place(hub, REFERENCE), WANTED)
    hub.fault = SourceUnavailable("down")
    with pytest.raises(SourceUnavailable):
        source.describe(None)
    hub.fault = None
    assert source.describe(None).files[0].digest == DIGEST


def test_another_way_to_the_bytes_goes_by_the_wanted_path() -> None:
    theirs = file("moved/w.gguf", DIGEST)
    other = Hub()
    hub = Hub(theirs, preferred={"moved/w.gguf": (other, theirs), "other": (Hub(), theirs)})
    preferred = FileAt(Place(hub, REFERENCE), WANTED).describe(None).preferred
    assert list(preferred) == ["weights.gguf"]
    assert preferred["weights.gguf"][0] is other


def test_nowhere_has_the_file_and_none_of_its_bytes() -> None:
    nowhere = Nowhere(WANTED, 100)
    (found,) = nowhere.describe(None).files
    assert (found.size, found.digest, found.origin) == (100, DIGEST, None)
    with pytest.raises(NoMoreBytes) as fault:
        nowhere.open(found, 0, None, None)
    assert not fault.value.retryable


def test_a_pinned_reference_is_of_the_recorded_commit_and_of_no_branch() -> None:
    commit = "0123456789" * 4
    assert REFERENCE.pinned(commit).revision == commit
    assert REFERENCE.pinned("main") is REFERENCE
