"""What a pull decides without a network: which files, what is refused early, what is current, what is known offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.download.source import FileInfo
from modeld.pulls.memory import Meaning, MeantFile
from modeld.store import Digest, parts
from modelwire.errors import AlreadyExists, InvalidRequest, SourceNotFound, SourceUnavailable, WireError
from rigs.download_rig import digest_of
from rigs.pull_bench import PullBench

pytestmark = pytest.mark.anyio

ONE, OTHER = b"GGUF one", b"GGUF other"
MEANING = Meaning(registry="hub", repo="org/repo", revision="1", license="mit")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PullBench]:
    bench = PullBench(tmp_path)
    yield bench
    bench.close()


def info(path: str = "m.gguf", size: int | None = 8, **more: Any) -> FileInfo:
    return FileInfo(path=path, locator=f"/{path}", size=size, **more)


# -- the files of a source


def test_globs_choose_from_what_a_source_has(bench: PullBench) -> None:
    plan = bench.plan("s3://bucket/folder/", include=("*.gguf",), exclude=("b*",))
    files = plan.choose([info("a.gguf"), info("b.gguf"), info("README.md")])
    assert [file.path for file in files] == ["a.gguf"]
    assert plan.followed == "s3://bucket/folder/ +*.gguf -b*"


@pytest.mark.parametrize(
    ("files", "fault", "words"),
    [
        ([], SourceNotFound, "no file"),
        ([info(size=0)], SourceUnavailable, "no bytes"),
        ([info("a"), info("a/b")], SourceUnavailable, "cannot be those of one model"),
        ([info(f"{number}") for number in range(parts.MAX_FILES + 1)], InvalidRequest, "at most"),
    ],
)
def test_files_that_are_no_model_are_refused(
    bench: PullBench, files: list[FileInfo], fault: type[WireError], words: str
) -> None:
    with pytest.raises(fault, match=words):
        bench.plan().choose(files)


def test_one_digest_is_not_that_of_several_files(bench: PullBench) -> None:
    plan = bench.plan(sha256=digest_of(ONE).hex)
    assert plan.choose([info()])
    with pytest.raises(InvalidRequest, match="a model of 2 files, and a digest is of one"):
        plan.choose([info("a"), info("b")])


@pytest.mark.parametrize(
    ("ref", "single"),
    [
        ("https://host/m.gguf", True),
        ("hf:org/repo/m.gguf", True),
        ("hf:org/repo/m-00001-of-00002.gguf", False),
        ("hf:org/repo", False),
        ("s3://bucket/m.gguf", True),
        ("s3://bucket/folder/", False),
        ("ollama:m", False),
    ],
)
def test_what_can_only_be_one_file(bench: PullBench, ref: str, single: bool) -> None:
    assert bench.plan(ref).reference.is_single == single


def test_a_version_is_named_by_its_source_and_never_by_a_secret(bench: PullBench) -> None:
    plan = bench.plan("https://host/m.gguf")
    named = plan.version(info(validator='"1"'), None)
    assert named == plan.version(info(validator='"1"'), "revision") != plan.version(info(validator='"2"'), None)
    assert plan.version(info(), "revision") not in (None, named)
    assert plan.version(info(), None) is None
    assert bench.plan("https://user:password@host/m.gguf").version(info(validator='"1"'), None) is None


# -- what is refused before the first byte


async def test_a_name_of_other_bytes_is_refused_early(bench: PullBench) -> None:
    taken = bench.plan("hf:other/repo")
    await bench.published(taken, [await bench.arrived(ONE)], MEANING)
    plan = bench.plan()
    request = bench.publish_request(plan)
    plan.refuse_early(request, [info()], [digest_of(ONE)])
    plan.refuse_early(request, [info(size=len(ONE))], [None])  # it may be the same
    plan.refuse_early(request, [info(size=None)], [None])
    for files, digests in (
        ([info()], [digest_of(OTHER)]),
        ([info(size=len(ONE) + 1)], [None]),
        ([info("a"), info("b")], [digest_of(ONE), digest_of(OTHER)]),
    ):
        with pytest.raises(AlreadyExists):
            plan.refuse_early(request, files, digests)
    replacing = bench.plan(replace=True)
    replacing.refuse_early(bench.publish_request(replacing), [info()], [digest_of(OTHER)])
    taken.refuse_early(bench.publish_request(taken), [info()], [digest_of(OTHER)])  # the name follows this reference


async def test_the_files_of_a_tree_are_compared_one_by_one(bench: PullBench) -> None:
    files = [await bench.arrived(ONE, "a.gguf"), await bench.arrived(OTHER, "b.gguf")]
    await bench.published(bench.plan("hf:other/repo"), files, MEANING)
    plan = bench.plan()
    same = [info("a.gguf", len(ONE)), info("b.gguf", len(OTHER))]
    plan.refuse_early(bench.publish_request(plan), same, [digest_of(ONE), digest_of(OTHER)])
    with pytest.raises(AlreadyExists):
        plan.refuse_early(bench.publish_request(plan), same, [digest_of(ONE), digest_of(b"a third")])


# -- what it is published as


async def test_a_new_name_gets_the_license_of_its_source_unless_the_request_says_another(bench: PullBench) -> None:
    arrived = [await bench.arrived(ONE)]
    plan, licensed = bench.plan(), bench.plan(license="apache-2.0")
    publication = plan.publication(bench.publish_request(plan), arrived, MEANING, asked=True)
    assert (publication.current, publication.request.license, publication.request.replace) == (False, "mit", False)
    assert publication.source == {
        "registry": "hub",
        "repo": "org/repo",
        "revision": "1",
        "filename": "m.gguf",
        "reference": "hf:org/repo",
    }
    assert (
        licensed.publication(bench.publish_request(licensed), arrived, MEANING, asked=True).request.license
        == "apache-2.0"
    )


async def test_the_same_bytes_again_are_current_and_replace_nothing(bench: PullBench) -> None:
    plan, arrived = bench.plan(), [await bench.arrived(ONE)]
    await bench.published(plan, arrived, MEANING)
    assert bench.publish_request(plan).replace
    publication = plan.publication(bench.publish_request(plan), arrived, MEANING, asked=True)
    assert (publication.current, publication.request.replace) == (True, False)


async def test_the_same_bytes_under_a_new_revision_are_recorded_when_the_source_says_so(bench: PullBench) -> None:
    plan, arrived = bench.plan(), [await bench.arrived(ONE)]
    await bench.published(plan, arrived, MEANING)
    moved = Meaning(registry="mirror", repo="org/repo", revision="2", license="another")
    publication = plan.publication(bench.publish_request(plan), arrived, moved, asked=True)
    assert (publication.current, publication.request.replace, publication.request.license) == (True, True, "mit")
    for meaning, asked in ((moved, False), (Meaning(registry="mirror", repo="org/repo", revision="1"), True)):
        assert not plan.publication(bench.publish_request(plan), arrived, meaning, asked=asked).request.replace
    other = bench.plan("hf:other/repo")
    assert not other.publication(bench.publish_request(other), arrived, moved, asked=True).request.replace


async def test_other_bytes_take_the_place_of_those_that_the_reference_meant_before(bench: PullBench) -> None:
    plan = bench.plan()
    await bench.published(plan, [await bench.arrived(ONE)], MEANING)
    publication = plan.publication(bench.publish_request(plan), [await bench.arrived(OTHER)], MEANING, asked=True)
    assert (publication.current, publication.request.replace) == (False, True)
    elsewhere = bench.plan("hf:org/repo@main")
    assert not elsewhere.follows(bench.store.ingest.publishing.index.entry(elsewhere.name))


# -- without a network


def test_offline_a_reference_means_what_it_meant_when_it_was_last_asked(bench: PullBench) -> None:
    known = Meaning(repo="org/repo", files=(MeantFile("m.gguf", digest_of(ONE).hex, 8),))
    assert bench.plan().offline_meaning(known) == known
    assert bench.plan().offline_meaning(MEANING) is None, "it says no files"
    assert bench.plan().offline_meaning(None) is None
    assert bench.plan(sha256=digest_of(ONE).hex).offline_meaning(known) == known
    assert bench.plan(sha256=digest_of(OTHER).hex).offline_meaning(known) is None


async def test_offline_a_manifest_that_was_pulled_by_the_reference_tells_it_too(bench: PullBench) -> None:
    plan = bench.plan()
    await bench.published(plan, [await bench.arrived(ONE)], MEANING)
    recorded = plan.offline_meaning(None)
    assert recorded is not None
    assert (recorded.registry, recorded.repo, recorded.revision, recorded.license) == ("hub", "org/repo", "1", "mit")
    assert recorded.files == (MeantFile("m.gguf", digest_of(ONE).hex, len(ONE)),)
    assert bench.plan("hf:other/repo").offline_meaning(None) is None
    tree = bench.plan("hf:org/tree", name="tree")
    await bench.published(tree, [await bench.arrived(ONE, "a.gguf"), await bench.arrived(OTHER, "b.gguf")], MEANING)
    recorded = tree.offline_meaning(None)
    assert recorded is not None
    assert {file.path: Digest(file.digest) for file in recorded.files} == {
        "a.gguf": digest_of(ONE),
        "b.gguf": digest_of(OTHER),
    }


def test_a_file_found_by_its_digest_alone_is_called_as_the_reference_spells_it(bench: PullBench) -> None:
    web = bench.plan("https://host/folder/m.gguf")
    assert (web.written_meaning().registry, web.written_meaning().repo) == ("host", "/folder/m.gguf")
    assert web.path_of_one(web.written_meaning()) == "m.gguf"
    assert bench.plan("hf:org/repo/f/x.gguf").written_meaning().repo == "org/repo"
    known = Meaning(files=(MeantFile("known.gguf", digest_of(ONE).hex, 8),))
    assert web.path_of_one(known) == "known.gguf"
