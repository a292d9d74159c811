"""What a pull decides without a network: its files, early refusals, whether the name is current, offline models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modeld.download.source import FileInfo
from modeld.pulls.memory import RemoteFile, RemoteModel
from modeld.pulls.plan import Plan
from modeld.store import Digest, Requester, parts
from modelwire.errors import (
    AlreadyExists,
    InvalidRequest,
    PermissionDenied,
    SourceNotFound,
    SourceUnavailable,
    WireError,
)
from rigs.download_rig import digest_of
from rigs.pull_bench import PullBench

pytestmark = pytest.mark.anyio

ONE, OTHER = b"GGUF one", b"GGUF other"
MODEL = RemoteModel(registry="hub", repo="org/repo", revision="1", license="mit")


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
    assert plan.full_reference == "s3://bucket/folder/ +*.gguf -b*"


@pytest.mark.parametrize(
    ("files", "fault", "words"),
    [
        ([], SourceNotFound, "no file"),
        ([info(size=0)], SourceUnavailable, "no bytes"),
        ([info("a"), info("a/b")], SourceUnavailable, "cannot be those of one model"),
        ([info(f"{number}") for number in range(parts.MAX_FILES + 1)], InvalidRequest, "at most"),
        ([info(f"{number:0>1000}") for number in range(1000)], InvalidRequest, "bytes of the manifest"),
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
    await bench.publish(bench.plan("hf:other/repo"), [await bench.stored_file(ONE)], MODEL)
    one, other = info(digest=digest_of(ONE)), info(digest=digest_of(OTHER))
    plan = bench.plan()
    plan.refuse_early([one])
    plan.refuse_early([info(size=len(ONE))])  # it may be the same
    plan.refuse_early([info(size=None)])
    for files in (
        [other],
        [info(size=len(ONE) + 1)],
        [info("a", digest=digest_of(ONE)), info("b", digest=digest_of(OTHER))],
    ):
        with pytest.raises(AlreadyExists):
            plan.refuse_early(files)
    bench.plan(replace=True).refuse_early([other])
    bench.plan("hf:other/repo").refuse_early([other])  # the name follows this reference


async def test_the_files_of_a_tree_are_compared_one_by_one(bench: PullBench) -> None:
    files = [await bench.stored_file(ONE, "a.gguf"), await bench.stored_file(OTHER, "b.gguf")]
    await bench.publish(bench.plan("hf:other/repo"), files, MODEL)
    plan = bench.plan()
    first = info("a.gguf", len(ONE), digest=digest_of(ONE))
    plan.refuse_early([first, info("b.gguf", len(OTHER), digest=digest_of(OTHER))])
    with pytest.raises(AlreadyExists):
        plan.refuse_early([first, info("b.gguf", len(OTHER), digest=digest_of(b"a third"))])


# -- what it is published as


async def test_a_new_name_gets_the_license_of_its_source_unless_the_request_names_another(bench: PullBench) -> None:
    files = [await bench.stored_file(ONE)]
    request, current = bench.plan().publication(files, MODEL, asked=True)
    assert (current, request.license, request.replace) == (False, "mit", False)
    assert bench.plan().source(files, MODEL) == {
        "registry": "hub",
        "repo": "org/repo",
        "revision": "1",
        "filename": "m.gguf",
        "reference": "hf:org/repo",
    }
    licensed, _ = bench.plan(license="apache-2.0").publication(files, MODEL, asked=True)
    assert licensed.license == "apache-2.0"


async def test_the_same_bytes_again_are_current_and_replace_nothing(bench: PullBench) -> None:
    files = [await bench.stored_file(ONE)]
    await bench.publish(bench.plan(), files, MODEL)
    plan = bench.plan()
    assert plan.publish_request.replace
    request, current = plan.publication(files, MODEL, asked=True)
    assert (current, request.replace) == (True, False)


async def test_a_pull_by_the_reference_of_anothers_name_changes_nothing_of_it(bench: PullBench) -> None:
    """The same bytes are success for everybody; a newer revision of them, and newer bytes, are the owner's to take."""
    ada, ben = Requester(peer=1001), Requester(peer=1002)
    one, newer = await bench.stored_file(ONE), replace(MODEL, revision="2")
    await bench.publish(bench.plan(requester=ada), [one], MODEL)
    await bench.publish(bench.plan(requester=ben), [one], newer)
    source = bench.store.index.find("m").document()["source"]
    assert source["revision"] == "1"
    plan = bench.plan(requester=ben)
    plan.refuse_early([info(digest=digest_of(ONE))])
    for other in (info(digest=digest_of(OTHER)), info(size=len(ONE) + 1)):
        with pytest.raises(PermissionDenied, match="belongs to uid 1001"):
            plan.refuse_early([other])
    with pytest.raises(PermissionDenied, match="belongs to uid 1001"):
        await bench.publish(plan, [await bench.stored_file(OTHER)], newer)
    await bench.publish(bench.plan(requester=ada), [one], newer)
    source = bench.store.index.find("m").document()["source"]
    assert source["revision"] == "2"


async def test_a_replacement_of_anothers_name_is_refused_before_anything_is_fetched(bench: PullBench) -> None:
    await bench.publish(bench.plan(requester=Requester(peer=1001)), [await bench.stored_file(ONE)], MODEL)
    plan = bench.plan("hf:other/repo", replace=True, requester=Requester(peer=1002))
    for files in ([info(size=None)], [info(size=len(ONE))], [info(digest=digest_of(OTHER))]):
        with pytest.raises(PermissionDenied, match="belongs to uid 1001"):
            plan.refuse_early(files)


async def test_a_name_that_nobody_chose_takes_the_spelling_that_is_there(bench: PullBench) -> None:
    """A chosen one is refused: names that differ in case are one name."""
    one = await bench.stored_file(ONE)
    await bench.publish(bench.plan("ollama:m:8b-Q4", name="m:8b-Q4"), [one], MODEL)
    made = bench.plan("ollama:m:8b-q4", name="m:8b-q4")
    assert made.name.text == "m:8b-Q4"
    assert made.publication([one], MODEL, asked=True)[1]
    chosen = bench.plan("ollama:m", name="M:8b-q4")
    with pytest.raises(AlreadyExists, match="another spelling of 'm:8b-Q4'"):
        chosen.refuse_early([info(digest=one.digest)])


async def test_the_same_bytes_under_a_new_revision_are_recorded_when_the_source_says_so(bench: PullBench) -> None:
    files = [await bench.stored_file(ONE)]
    await bench.publish(bench.plan(), files, MODEL)
    plan = bench.plan()
    moved = RemoteModel(registry="mirror", repo="org/repo", revision="2", license="another")
    request, current = plan.publication(files, moved, asked=True)
    assert (current, request.replace, request.license) == (True, True, "mit")
    for model, asked in ((moved, False), (RemoteModel(registry="mirror", repo="org/repo", revision="1"), True)):
        assert not plan.publication(files, model, asked=asked)[0].replace
    assert not bench.plan("hf:other/repo").publication(files, moved, asked=True)[0].replace


async def test_other_bytes_replace_those_that_the_reference_stood_for_before(bench: PullBench) -> None:
    await bench.publish(bench.plan(), [await bench.stored_file(ONE)], MODEL)
    request, current = bench.plan().publication([await bench.stored_file(OTHER)], MODEL, asked=True)
    assert (current, request.replace) == (False, True)
    assert bench.plan("hf:org/repo@main").followed() is None


# -- without a network


def found(plan: Plan, remembered: RemoteModel | None, *, offline: bool = True) -> list[RemoteModel]:
    return list(plan.models_to_find(remembered, offline=offline))


def test_offline_a_reference_stands_for_what_its_source_said_last(bench: PullBench) -> None:
    known = RemoteModel(repo="org/repo", files=(RemoteFile("m.gguf", digest_of(ONE).hex),))
    assert found(bench.plan(), known) == [known]
    assert found(bench.plan(), known, offline=False) == []
    assert found(bench.plan(), MODEL) == [], "it has no files"
    assert found(bench.plan(), None) == []
    assert found(bench.plan(sha256=digest_of(ONE).hex), known) == [known]
    assert found(bench.plan(sha256=digest_of(OTHER).hex), known) == []


PINNED = [
    f"hf:org/repo@{'a' * 40}",
    f"hf:org/repo/m.gguf@{'a' * 40}",
    f"hf:org/repo:Q8_0@{'0' * 40}",
    f"ollama:m@sha256:{'a' * 64}",
    f"oci://ghcr.io/team/m@sha256:{'a' * 64}",
]
MOVING = ["hf:org/repo", "hf:org/repo@main", f"hf:org/repo@{'a' * 7}", "ollama:m:7b", "oci://ghcr.io/team/m:v1"]
MOVING += ["https://host/m.gguf", "s3://bucket/m.gguf"]


@pytest.mark.parametrize(("ref", "pinned"), [(ref, True) for ref in PINNED] + [(ref, False) for ref in MOVING])
def test_what_can_mean_nothing_else_is_not_asked_for_again(bench: PullBench, ref: str, pinned: bool) -> None:
    known = RemoteModel(repo="org/repo", files=(RemoteFile("m.gguf", digest_of(ONE).hex),))
    assert found(bench.plan(ref, name="m"), known, offline=False) == ([known] if pinned else [])
    assert found(bench.plan(ref, name="m", sha256=digest_of(OTHER).hex), known, offline=False)[1:] == []


async def test_offline_the_manifest_of_an_earlier_pull_stands_in_for_the_memory(bench: PullBench) -> None:
    plan = bench.plan()
    await bench.publish(plan, [await bench.stored_file(ONE)], MODEL)
    file = RemoteFile("m.gguf", digest_of(ONE).hex)
    assert found(plan, None) == [
        RemoteModel(registry="hub", repo="org/repo", revision="1", license="mit", files=(file,))
    ]
    assert found(bench.plan("hf:other/repo"), None) == []
    tree = bench.plan("hf:org/tree", name="tree")
    await bench.publish(tree, [await bench.stored_file(ONE, "a.gguf"), await bench.stored_file(OTHER, "b.gguf")], MODEL)
    (recorded,) = found(tree, None)
    assert {file.path: Digest(file.digest) for file in recorded.files} == {
        "a.gguf": digest_of(ONE),
        "b.gguf": digest_of(OTHER),
    }


def test_a_file_of_an_expected_digest_has_the_path_that_the_reference_spells(bench: PullBench) -> None:
    """And nothing else of the reference: nobody was asked."""
    sha256 = digest_of(ONE).hex
    web = bench.plan("https://host/folder/m.gguf", sha256=sha256)
    spelled = RemoteModel(files=(RemoteFile("m.gguf", sha256),), said=False)
    assert found(web, None, offline=False) == [spelled]
    (hub,) = found(bench.plan("hf:org/repo/f/x.gguf", sha256=sha256), None)
    assert (hub.said, hub.repo, hub.files[0].path) == (False, "", "x.gguf")
    known = RemoteModel(repo="folder", revision="1", files=(RemoteFile("known.gguf", digest_of(OTHER).hex),))
    assert found(web, known) == [RemoteModel(files=(RemoteFile("known.gguf", sha256),), said=False)]
    same = RemoteModel(repo="folder", revision="1", files=(RemoteFile("known.gguf", sha256),))
    assert found(web, same, offline=False) == [same], "the source itself has said so before"


async def test_what_a_digest_alone_answers_for_has_no_source(bench: PullBench) -> None:
    one, sha256 = await bench.stored_file(ONE), digest_of(ONE).hex
    plan = bench.plan("https://host/m.gguf", sha256=sha256)
    (model,) = found(plan, None)
    assert plan.source([one], model) == {}
    request, _ = plan.publication([one], model, asked=False)
    assert request.provenance == f"sha256:{sha256}"
    await bench.publish(plan, [one], model)
    assert found(bench.plan("https://host/m.gguf"), None) == []


async def test_a_secret_query_that_may_choose_the_file_gives_the_rest_of_the_address_no_meaning(
    bench: PullBench,
) -> None:
    signed = bench.plan("https://host/get?key=mine.gguf")
    await bench.publish(signed, [await bench.stored_file(ONE)], MODEL)
    assert found(bench.plan("https://host/get"), None) == []
    assert bench.plan("https://host/get?key=another").followed() is not None, "the same place, pulled again"
