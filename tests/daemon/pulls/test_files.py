"""The files of one pull: those in the store are found, the rest is fetched, and their digests are remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.download.partials.partial import partial_dir
from modeld.download.source import FileInfo
from modeld.progress import Stopped
from modeld.store.blobs.blobs import Blob
from modeld.store.disk.space import Reservation
from modeld.store.ingest.ingest import Ingest
from modeld.store.ingest.staged import Staged
from modelwire.errors import NoSpace, SourceNotFound
from rigs.download_rig import digest_of
from rigs.pull_bench import PullBench, described
from rigs.waiting import all_wait, eventually

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = b"GGUF one", b"GGUF two!", b"GGUF three"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PullBench]:
    bench = PullBench(tmp_path)
    yield bench
    bench.close()


def info(content: bytes, path: str = "m.gguf", *, known: bool = True, **more: Any) -> FileInfo:
    digest = digest_of(content) if known else None
    return FileInfo(path=path, locator=f"/{path}", size=len(content), digest=digest, **more)


async def fetched(bench: PullBench, files: list[FileInfo], **fields: Any) -> list[str]:
    """The digests of the files, found or fetched."""
    wanted = bench.files(bench.plan(**fields), files)
    await wanted.find()
    return [file.digest.hex for file in await bench.fetched(wanted)]


async def test_a_stored_file_is_not_fetched_and_the_others_are(bench: PullBench) -> None:
    await bench.stored_file(ONE)
    bench.downloads.answers = {"b": TWO}
    assert await fetched(bench, [info(ONE, "a"), info(TWO, "b")]) == [digest_of(ONE).hex, digest_of(TWO).hex]
    assert bench.downloads.begun == ["b"]
    now = bench.progress.snapshot()
    assert (now.bytes_done, now.bytes_total, now.files_done) == (len(ONE + TWO), len(ONE + TWO), 2)
    assert (now.reused_bytes, now.network_bytes) == (len(ONE), len(TWO))


async def test_a_file_that_another_job_has_added_meanwhile_is_not_fetched(bench: PullBench) -> None:
    files = bench.files(bench.plan(), [info(ONE)])
    assert not await files.find()
    await bench.stored_file(ONE)
    (ready,) = await bench.fetched(files)
    assert (ready.digest, bench.downloads.begun) == (digest_of(ONE), [])
    assert bench.progress.snapshot().reused_bytes == len(ONE)


async def test_when_one_fails_the_others_stop_and_the_complete_ones_stay(bench: PullBench) -> None:
    bench.downloads.answers = {"first": ONE, "waits": None, "fails": SourceNotFound("gone"), "last": THREE}
    files = [info(ONE, "first"), info(TWO, "waits"), info(b"fails", "fails"), info(THREE, "last")]
    await fetched(bench, files[:1])
    with pytest.raises(SourceNotFound, match="gone"):
        await fetched(bench, files)
    assert bench.downloads.stopped == ["waits"]
    assert ONE in bench.blobs()
    assert TWO not in bench.blobs()


async def test_a_job_that_is_stopped_stops_its_files(bench: PullBench) -> None:
    bench.downloads.answers = {"m.gguf": None}
    bench.progress.stop_reason = "pause"
    with pytest.raises(Stopped):
        await fetched(bench, [info(ONE)])


async def test_a_sweep_right_after_a_file_got_its_name_leaves_it_to_the_pull(
    bench: PullBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a file whose digest was not known before its bytes were here."""
    bench.downloads.answers = {"a": ONE, "b": TWO}
    real = Ingest.commit

    async def commit_and_sweep(self: Ingest, staged: Staged) -> Blob:
        blob = await real(self, staged)
        assert (await bench.store.sweeper.sweep(grace=0)).victims == ()
        return blob

    monkeypatch.setattr(Ingest, "commit", commit_and_sweep)
    await fetched(bench, [info(ONE, "a", known=False), info(TWO, "b")])
    assert (await bench.store.sweeper.sweep(grace=0)).victims == ()
    bench.holds.close()
    assert len((await bench.store.sweeper.sweep(grace=0)).victims) == 2


async def test_there_must_be_room_for_all_files_before_the_first_byte(bench: PullBench) -> None:
    bench.downloads.answers = {"a": ONE, "b": TWO}
    huge = FileInfo(path="b", locator="/b", size=1 << 60, digest=digest_of(TWO))
    with pytest.raises(NoSpace):
        await fetched(bench, [info(ONE, "a"), huge])
    assert bench.downloads.begun == []
    assert bench.store.reserved_bytes == 0


def reservations(bench: PullBench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that are reserved from now on."""
    reserved: list[int] = []
    space = bench.store.ingest.space
    real = space.reserve

    def reserve(size: int) -> Reservation:
        reserved.append(size)
        return real(0)

    monkeypatch.setattr(space, "reserve", reserve)
    return reserved


async def test_room_is_reserved_for_the_missing_bytes_only(bench: PullBench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.stored_file(ONE)
    partial = Path(bench.layout.partial(digest_of(TWO)))
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(b"x" * 8192)
    reserved = reservations(bench, monkeypatch)
    begun = FileInfo(path="b", locator="/b", size=10_000, digest=digest_of(TWO))
    unknown = FileInfo(path="c", locator="/c", size=None)
    files = bench.files(bench.plan(), [info(ONE, "a"), begun, unknown])
    assert not await files.find()
    files.check_room(described(files.infos))
    assert reserved == [10_000 - 8192]


async def test_what_an_earlier_run_left_of_an_address_with_a_validator_needs_no_room(
    bench: PullBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FileInfo(path="m.gguf", locator="/m.gguf", size=10_000, validator='"1"')
    place = partial_dir(bench.layout, None, described([file]).first_offer(file.path).partial_key)
    assert place is not None
    os.makedirs(place)
    Path(place, "data.tmp").write_bytes(b"x" * 8192)
    reserved = reservations(bench, monkeypatch)
    files = bench.files(bench.plan(), [file])
    assert not await files.find()
    files.check_room(described(files.infos))
    assert reserved == [10_000 - 8192]


async def test_the_digest_of_a_version_is_remembered(bench: PullBench) -> None:
    bench.downloads.answers = {"m.gguf": ONE}
    file = info(ONE, known=False, validator='"1"')
    first = await fetched(bench, [file])
    assert await fetched(bench, [file]) == first
    assert bench.downloads.begun == ["m.gguf"], (
        "the second pull knows the digest of the version, and finds it in the store"
    )
    await fetched(bench, [info(ONE, known=False, validator='"2"')])
    assert bench.downloads.begun == ["m.gguf"] * 2


@pytest.mark.parametrize("validator", ['"1"', None], ids=["validator", "revision"])
async def test_the_digest_of_a_version_finds_bytes_and_only_an_immutable_one_judges_those_that_come(
    bench: PullBench, validator: str | None
) -> None:
    """The source may have another version than it described, by the time that it is asked for the bytes."""
    bench.downloads.answers = {"m.gguf": ONE}
    file = info(ONE, known=False, validator=validator)
    wanted = bench.files(bench.plan(), [file], revision="0" * 40)
    assert not await wanted.find()
    await bench.fetched(wanted)
    bench.holds.close()
    assert (await bench.store.sweeper.sweep(grace=0)).removed == 1
    wanted = bench.files(bench.plan(), [file], revision="0" * 40)
    assert not await wanted.find()
    await bench.fetched(wanted)
    assert bench.downloads.expected == [None, None if validator else digest_of(ONE)]


async def test_the_digest_of_another_version_is_not_remembered_for_the_described_one(bench: PullBench) -> None:
    bench.downloads.answers = {"m.gguf": ONE}
    bench.downloads.as_described = False
    for _ in range(2):
        await fetched(bench, [info(ONE, known=False, validator='"1"')])
    assert bench.downloads.begun == ["m.gguf"] * 2


@pytest.mark.parametrize("stated", [None, TWO], ids=["no digest", "another digest"])
async def test_what_is_here_for_a_digest_of_the_request_is_not_said_by_the_source(
    bench: PullBench, stated: bytes | None
) -> None:
    await bench.stored_file(ONE)
    file = info(stated or ONE, known=stated is not None)
    files = bench.files(bench.plan(sha256=digest_of(ONE).hex), [file])
    assert await files.find()
    assert not files.said
    agreed = bench.files(bench.plan(sha256=digest_of(ONE).hex), [info(ONE)])
    assert await agreed.find()
    assert agreed.said


@pytest.mark.parametrize("as_described", [True, False])
async def test_what_a_source_gives_for_a_digest_of_the_request_is_said_when_it_gives_all(
    bench: PullBench, as_described: bool
) -> None:
    bench.downloads.answers = {"m.gguf": ONE}
    bench.downloads.as_described = as_described
    files = bench.files(bench.plan(sha256=digest_of(ONE).hex), [info(ONE, known=False)])
    await files.find()
    await bench.fetched(files)
    assert files.said == as_described


async def test_bytes_that_another_file_gives_for_the_same_digest_are_not_said_by_the_source(bench: PullBench) -> None:
    """The source's own file is never asked for: another download brings the digest."""
    bench.downloads.answers = {"own.gguf": ONE}
    release = bench.downloads.hold("own.gguf")
    own = bench.files(
        bench.plan("https://own/own.gguf", sha256=digest_of(ONE).hex), [info(ONE, "own.gguf", known=False)]
    )
    named = bench.files(bench.plan("hf:org/repo/m.gguf", sha256=digest_of(ONE).hex), [info(ONE, known=False)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.fetched, own)
        await eventually(lambda: bench.downloads.begun == ["own.gguf"])
        tasks.start_soon(bench.fetched, named)
        await all_wait()
        release.set()
    assert bench.downloads.begun == ["own.gguf"]
    assert (own.said, named.said) == (True, False)


async def test_a_digest_of_the_request_is_not_remembered_for_the_version(bench: PullBench) -> None:
    bench.downloads.answers = {"m.gguf": ONE}
    file = info(ONE, known=False, validator='"1"')
    await fetched(bench, [file], sha256=digest_of(ONE).hex)
    await fetched(bench, [file])
    assert bench.downloads.begun == ["m.gguf"] * 2
