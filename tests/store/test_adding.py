"""From a file to a model: what is read, what is copied, what is left when it fails, and who is told when."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.config import StoreSettings
from modeld.config.sizes import Size
from modeld.store import OwnReader, Store, blobs, durable, ingest
from modeld.store import adding as adding_module
from modeld.store.blocks import BLOCK
from modeld.store.catalog import Catalog
from modeld.store.digest import Signature
from modeld.store.names import ModelName
from modeld.store.observer import Stopped, Unwatched
from modeld.store.sources import open_source
from modelwire.errors import (
    AlreadyExists,
    Corrupt,
    DigestMismatch,
    Internal,
    InUse,
    InvalidDigest,
    InvalidName,
    InvalidRequest,
    NoSpace,
    QuotaExceeded,
    SourceNotFound,
    SourceUnavailable,
    WireError,
)
from modelwire.values import Added

SETTINGS = StoreSettings(min_free=Size(0))


class Bench:
    """A store with its catalogue, and files to add."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = str(directory / "models")
        self.open()

    def open(self, settings: StoreSettings = SETTINGS) -> None:
        layout, lock = Store.claim(self.root, settings)
        self.layout = layout
        self.catalog = Catalog.open(layout.catalog_path)
        self.store = Store.open(self.root, settings, self.catalog, lock=lock, lock_seconds=5)

    def close(self) -> None:
        self.store.close()
        self.catalog.close()

    def reopen(self, settings: StoreSettings = SETTINGS) -> None:
        self.close()
        self.open(settings)

    def file(self, name: str = "m.gguf", content: bytes = b"GGUF weights", *, age: float = 3600) -> str:
        path = self.directory / name
        path.write_bytes(content)
        past = time.time_ns() - int(age * 10**9)
        os.utime(path, ns=(past, past))
        return str(path)

    def staged(self) -> list[str]:
        return os.listdir(self.layout.staging)

    def names(self) -> list[str]:
        return [view.name for view in self.store.list()]

    def blobs(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in Path(self.layout.blobs_dir).glob("*/*/data"))

    def quarantined(self) -> list[bytes]:
        return [path.read_bytes() for path in Path(self.layout.quarantine_dir).iterdir()]

    def assert_nothing_happened(self) -> None:
        assert (self.names(), self.blobs(), self.staged()) == ([], [], [])
        assert self.store.reserved_bytes == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class Work:
    """Counts how often bytes are read from sources, and how."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for module, function in (
            (ingest, "stage_copy"),
            (ingest, "hash_source"),
            (blobs, "verify_blob"),
            (adding_module, "resembles_one"),
        ):
            self._count(monkeypatch, module, function)

    def _count(self, monkeypatch: pytest.MonkeyPatch, module: Any, function: str) -> None:
        real = getattr(module, function)

        def counted(*arguments: Any, **named: Any) -> object:
            self.done.append(function)
            return real(*arguments, **named)

        monkeypatch.setattr(module, function, counted)

    def since(self) -> list[str]:
        done, self.done = self.done, []
        return done


def settle_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if sources had not changed for hours: the change time of a file cannot be set back."""
    monkeypatch.setattr("modeld.store.records._SETTLED_NS", -(10**18))


# -- success


async def test_a_file_becomes_a_model(bench: Bench) -> None:
    path = bench.file("Ministral 3B Q4.gguf")
    added = await bench.store.add(path, license="mit")
    assert (added.name, added.format, added.reused) == ("Ministral-3B-Q4", "gguf", False)
    assert Path(added.path).read_bytes() == b"GGUF weights"
    assert os.stat(added.path).st_mode & 0o777 == 0o444
    assert bench.store.resolve("Ministral-3B-Q4").path == added.path
    shown = bench.store.show("ministral-3b-q4")
    assert shown.manifest is not None
    assert shown.manifest["source"] == {
        "registry": "local",
        "repo": "",
        "revision": "",
        "filename": "Ministral 3B Q4.gguf",
    }
    assert shown.manifest["license"] == "mit"
    assert bench.staged() == []
    assert bench.store.reserved_bytes == 0
    assert bench.store.count() == 1


async def test_an_empty_file_is_a_model_too(bench: Bench) -> None:
    added = await bench.store.add(bench.file(content=b""), name="empty")
    assert added.size_bytes == 0
    assert bench.store.resolve("empty").state == "ready"


async def test_two_names_share_one_blob(bench: Bench) -> None:
    path = bench.file()
    first = await bench.store.add(path, name="a")
    second = await bench.store.add(path, name="b:1")
    assert (first.reused, second.reused) == (False, True)
    assert os.stat(first.path).st_ino == os.stat(second.path).st_ino
    assert bench.names() == ["a", "b:1"]


async def test_the_same_again_is_success_and_writes_nothing(bench: Bench) -> None:
    path = bench.file()
    await bench.store.add(path, name="a")
    before = os.stat(bench.layout.manifest(ModelName.parse("a"))).st_mtime_ns
    again = await bench.store.add(path, name="a")
    assert again.reused
    assert os.stat(bench.layout.manifest(ModelName.parse("a"))).st_mtime_ns == before


async def test_a_foreign_manifest_of_the_same_bytes_is_kept_as_it_is(bench: Bench) -> None:
    path = bench.file()
    await bench.store.add(path, name="a")
    manifest = Path(bench.layout.manifest(ModelName.parse("a")))
    manifest.write_text(manifest.read_text().replace('"gguf"', '"theirs"'))
    again = await bench.store.add(path, name="a")
    assert again.format == "theirs"


async def test_replacing_keeps_what_others_wrote(bench: Bench) -> None:
    await bench.store.add(bench.file(), name="a")
    manifest = Path(bench.layout.manifest(ModelName.parse("a")))
    manifest.write_text(manifest.read_text().replace("{", '{"tags": [1],', 1))
    await bench.store.add(bench.file("n.gguf", b"new"), name="a", replace=True)
    shown = bench.store.show("a").manifest
    assert shown is not None
    assert shown["tags"] == [1]
    assert Path(bench.store.resolve("a").path).read_bytes() == b"new"


async def test_a_file_name_that_is_no_text_makes_a_manifest_that_is(bench: Bench) -> None:
    path = os.fsdecode(os.fsencode(str(bench.directory)) + b"/\xff.gguf")
    Path(path).write_bytes(b"x")
    added = await bench.store.add(path, name="a")
    shown = bench.store.show(added.name).manifest
    assert shown is not None
    assert shown["source"]["filename"] == "�.gguf"


# -- how little is read


async def test_new_bytes_are_read_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    await bench.store.add(bench.file(), name="a")
    assert work.since() == ["stage_copy"]


async def test_a_given_digest_that_is_here_reads_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.store.add(bench.file(), name="a")
    work = Work(monkeypatch)
    again = await bench.store.add(bench.file("copy.gguf"), name="b", sha256=added.blob)
    assert again.reused
    assert work.since() == []


async def test_a_blob_that_nobody_verified_is_hashed_before_it_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.store.add(bench.file(), name="a")
    bench.close()
    os.unlink(bench.layout.catalog_path)
    bench.open()
    work = Work(monkeypatch)
    await bench.store.add(bench.file(), name="b", sha256=added.blob)
    assert work.since() == ["verify_blob"]
    await bench.store.add(bench.file(), name="c", sha256=added.blob)
    assert work.since() == []


async def test_an_unchanged_file_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    settle_source(monkeypatch)
    path = bench.file()
    await bench.store.add(path, name="a")
    bench.reopen()
    work = Work(monkeypatch)
    assert (await bench.store.add(path, name="b")).reused
    assert work.since() == []
    bench.file(content=b"changed")
    assert not (await bench.store.add(path, name="c")).reused
    assert work.since() == ["stage_copy"]


async def test_the_same_content_in_another_file_is_hashed_and_not_copied(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(2 * BLOCK + 5)
    await bench.store.add(bench.file(content=content), name="a")
    work = Work(monkeypatch)
    added = await bench.store.add(bench.file("copy.gguf", content), name="b")
    assert added.reused
    assert work.since() == ["resembles_one", "hash_source"]


async def test_another_content_of_the_same_size_is_read_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(2 * BLOCK + 5)
    await bench.store.add(bench.file(content=content), name="a")
    work = Work(monkeypatch)
    other = content[:-1] + bytes([content[-1] ^ 1])
    added = await bench.store.add(bench.file("other.gguf", other), name="b")
    assert not added.reused
    assert work.since() == ["resembles_one", "stage_copy"]
    tricky = content[: BLOCK // 2] + b"\0" + content[BLOCK // 2 + 1 :]
    await bench.store.add(bench.file("tricky.gguf", tricky), name="c")
    assert work.since() == ["resembles_one", "stage_copy"]


async def test_a_bad_blob_is_set_aside_and_replaced(bench: Bench) -> None:
    added = await bench.store.add(bench.file(), name="a")
    os.chmod(added.path, 0o644)
    Path(added.path).write_bytes(b"GGUF wronger")
    again = await bench.store.add(bench.file(), name="a", sha256=added.blob)
    assert Path(again.path).read_bytes() == b"GGUF weights"
    assert bench.quarantined() == [b"GGUF wronger"]
    assert bench.store.resolve("a").state == "ready"


async def test_a_missing_blob_is_put_back_under_its_manifest(bench: Bench) -> None:
    added = await bench.store.add(bench.file(), name="a")
    os.unlink(added.path)
    assert not (await bench.store.add(bench.file(), name="a")).reused
    assert Path(bench.store.resolve("a").path).read_bytes() == b"GGUF weights"


async def test_a_good_blob_does_not_suffer_from_a_lie_about_it(bench: Bench) -> None:
    """A digest of something that is here, beside a file that is something else."""
    added = await bench.store.add(bench.file(), name="a")
    with pytest.raises(DigestMismatch):
        await bench.store.add(bench.file("other.gguf", b"other"), name="b", sha256=added.blob)
    assert Path(bench.store.resolve("a").path).read_bytes() == b"GGUF weights"
    assert bench.quarantined() == [b"other"]
    assert bench.names() == ["a"]


# -- refusal


@pytest.mark.parametrize("replace", [False, True])
async def test_another_spelling_is_refused_with_the_first_named(bench: Bench, replace: bool) -> None:
    await bench.store.add(bench.file(), name="Llama")
    with pytest.raises(AlreadyExists, match="'Llama'"):
        await bench.store.add(bench.file("x", b"x"), name="LLAMA", replace=replace)
    assert bench.names() == ["Llama"]


async def test_a_taken_name_keeps_its_bytes_and_nothing_is_left(bench: Bench) -> None:
    await bench.store.add(bench.file(), name="a")
    before = bench.blobs()
    with pytest.raises(AlreadyExists):
        await bench.store.add(bench.file("x", b"other"), name="a")
    assert bench.blobs() == before
    assert bench.staged() == []
    assert bench.store.reserved_bytes == 0


async def test_a_taken_name_is_told_before_anything_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    settle_source(monkeypatch)
    await bench.store.add(bench.file(), name="a")
    other = bench.file("x", b"other")
    known = await bench.store.add(other, name="b")
    work = Work(monkeypatch)
    with pytest.raises(AlreadyExists):
        await bench.store.add(other, name="a", sha256=known.blob)
    with pytest.raises(AlreadyExists):
        await bench.store.add(other, name="a")
    assert work.since() == []


async def test_a_wrong_digest_publishes_nothing_and_is_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_source(monkeypatch)
    path, wrong = bench.file(), "sha256:" + "0" * 64
    work = Work(monkeypatch)
    with pytest.raises(DigestMismatch, match=r"0{64}"):
        await bench.store.add(path, name="a", sha256=wrong)
    assert work.since() == ["stage_copy"]
    with pytest.raises(DigestMismatch, match=r"0{64}"):
        await bench.store.add(path, name="a", sha256=wrong)
    assert work.since() == []
    assert bench.quarantined() == [b"GGUF weights"]
    assert bench.names() == []
    assert bench.blobs() == []
    assert not (await bench.store.add(path, name="a")).reused


@pytest.mark.parametrize(
    ("name", "sha256", "kind"),
    [("../x", None, InvalidName), ("con", None, InvalidName), ("", None, InvalidName), ("a", "xyz", InvalidDigest)],
)
async def test_what_is_wrong_in_itself_leaves_nothing(
    bench: Bench, name: str, sha256: str | None, kind: type[WireError]
) -> None:
    before = sorted(str(path) for path in Path(bench.root).rglob("*"))
    with pytest.raises(kind):
        await bench.store.add(bench.file(), name=name, sha256=sha256)
    assert sorted(str(path) for path in Path(bench.root).rglob("*")) == before


async def test_a_source_that_is_none_is_a_typed_error(bench: Bench) -> None:
    with pytest.raises(SourceNotFound):
        await bench.store.add(str(bench.directory / "nothing"), name="a")
    with pytest.raises(InvalidRequest):
        await bench.store.add(str(bench.directory), name="a")
    with pytest.raises(InvalidRequest):
        await bench.store.add("relative", name="a")
    bench.assert_nothing_happened()


async def test_no_space_is_said_before_the_first_byte(bench: Bench) -> None:
    bench.reopen(StoreSettings(min_free=Size(1 << 60)))
    with pytest.raises(NoSpace, match="are needed"):
        await bench.store.add(bench.file(), name="a")
    bench.assert_nothing_happened()


async def test_a_limit_on_bytes_counts_what_is_there(bench: Bench) -> None:
    await bench.store.add(bench.file(), name="a")
    bench.reopen(StoreSettings(min_free=Size(0), max_bytes=Size(20)))
    with pytest.raises(QuotaExceeded):
        await bench.store.add(bench.file("x", b"123456789"), name="b")
    await bench.store.add(bench.file("y", b"12345678"), name="b")


async def test_a_source_that_is_closed_to_the_peer_is_closed(bench: Bench) -> None:
    class Refusing(OwnReader):
        def open(self, path: str) -> int:
            raise InvalidRequest(f"not {path}")

    with pytest.raises(InvalidRequest, match=r"not .*m\.gguf"):
        await bench.store.add(bench.file(), name="a", reader=Refusing())
    bench.assert_nothing_happened()


async def test_a_store_that_was_replaced_is_not_written_to(bench: Bench) -> None:
    os.rename(bench.root, bench.root + ".away")
    with pytest.raises(WireError, match="cannot look at"):
        await bench.store.add(bench.file(), name="a")
    assert not os.path.exists(bench.root)


# -- who is told when


class Notes:
    """Keeps what it was told, and what the disk looked like then."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.told: list[tuple[str, bool, bool]] = []
        self.fail_at = ""

    async def _note(self, what: str, added: Added) -> None:
        manifest = self._bench.layout.manifest(ModelName.parse(added.name))
        self.told.append((what, os.path.exists(added.path), os.path.exists(manifest)))
        if what == self.fail_at:
            raise Internal(f"{what} failed")

    async def about_to_publish(self, added: Added) -> None:
        await self._note("about", added)

    async def published(self, added: Added) -> None:
        await self._note("published", added)


async def test_the_blob_is_there_before_and_the_manifest_after_the_note(bench: Bench) -> None:
    notes = Notes(bench)
    await bench.store.add(bench.file(), name="a", notes=notes)
    assert notes.told == [("about", True, False), ("published", True, True)]
    await bench.store.add(bench.file(), name="a", notes=notes)
    assert len(notes.told) == 2


async def test_a_note_that_fails_prevents_the_publication(bench: Bench) -> None:
    notes = Notes(bench)
    notes.fail_at = "about"
    with pytest.raises(Internal):
        await bench.store.add(bench.file(), name="a", notes=notes)
    assert bench.names() == []
    notes.fail_at = "published"
    with pytest.raises(Internal):
        await bench.store.add(bench.file(), name="a", notes=notes)
    assert bench.names() == ["a"]


async def test_a_restart_can_ask_whether_it_happened(bench: Bench) -> None:
    added = await bench.store.add(bench.file(), name="a")
    assert bench.store.published(added)
    await bench.store.add(bench.file("x", b"other"), name="a", replace=True)
    assert not bench.store.published(added)
    assert not bench.store.published(Added(name="b", blob=added.blob, size_bytes=1, format="", path=""))
    os.unlink(bench.store.resolve("a").path)
    assert not bench.store.published(added)


class Progress(Unwatched):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.counts = dict.fromkeys(("done", "verified", "reused", "committed"), 0)
        self.size: int | None = None
        self.stop_at = ""

    def phase(self, phase: Any) -> None:
        self.phases.append(phase)

    def total(self, size: int | None) -> None:
        self.size = size

    def advance(self, **counts: int) -> None:
        for count, by in counts.items():
            self.counts[count] += by

    def stopped(self) -> bool:
        return self.stop_at in self.phases


async def test_progress_tells_new_bytes_and_reused_ones_apart(bench: Bench) -> None:
    new, same = Progress(), Progress()
    await bench.store.add(bench.file(), name="a", observer=new)
    assert new.counts == {"done": 12, "verified": 12, "reused": 0, "committed": 12}
    assert new.phases == ["checking_local", "reserving", "copy", "publish"]
    assert new.size == 12
    added = bench.store.resolve("a")
    await bench.store.add(bench.file(), name="b", sha256=added.blob, observer=same)
    assert same.counts == {"done": 12, "verified": 0, "reused": 12, "committed": 0}


async def test_work_that_is_not_wanted_any_more_leaves_nothing(bench: Bench) -> None:
    progress = Progress()
    progress.stop_at = "copy"
    with pytest.raises(Stopped):
        await bench.store.add(bench.file(), name="a", observer=progress)
    bench.assert_nothing_happened()


# -- cancellation and faults


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cancelled_at_each_hop_it_is_there_or_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    outcomes: set[str] = set()
    real = anyio.to_thread.run_sync
    for nth in range(1, 50):
        name, path = f"m{nth}", bench.file(f"m{nth}", b"content %d" % nth)
        hops = 0
        with monkeypatch.context() as patched, anyio.CancelScope() as scope:

            async def hop(*arguments: Any, nth: int = nth, scope: anyio.CancelScope = scope, **named: Any) -> Any:
                nonlocal hops
                hops += 1
                if hops == nth and moment == "before":
                    scope.cancel()
                try:
                    return await real(*arguments, **named)
                finally:
                    if hops == nth and moment == "after":
                        scope.cancel()

            patched.setattr(anyio.to_thread, "run_sync", hop)
            await bench.store.add(path, name=name)
        assert bench.staged() == []
        assert bench.store.reserved_bytes == 0
        there = name in bench.names()
        if there:
            assert bench.store.resolve(name).state == "ready"
        outcomes.add(f"{'cancelled' if scope.cancelled_caught else 'answered'}, {'there' if there else 'absent'}")
        with anyio.fail_after(30):  # no lock, turn or slot is held by what was cancelled
            await bench.store.add(path, name=name)
        if hops < nth:
            break
    else:
        pytest.fail("the hops have no end")
    assert outcomes >= {"cancelled, absent", "answered, there"}
    assert "answered, absent" not in outcomes


CHANGING = [
    "create_file",
    "write_at",
    "make_read_only",
    "share_with_group_of",
    "sync_file",
    "sync_directory",
    "make_directories",
    "name_without_replacing",
    "name_replacing",
    "close",
]


class Fault:
    """Fails the n-th call of all those that change the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, code: int) -> None:
        self.count = 0
        self.struck = ""
        for name in CHANGING:
            self._wrap(monkeypatch, name, getattr(durable, name), nth, code)

    def _wrap(
        self, monkeypatch: pytest.MonkeyPatch, name: str, real: Callable[..., object], nth: int, code: int
    ) -> None:
        def step(*arguments: Any, **named: Any) -> object:
            self.count += 1
            if self.count != nth:
                return real(*arguments, **named)
            self.struck = name
            if name == "close":
                real(*arguments, **named)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(durable, name, step)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("replace", [False, True])
async def test_each_step_of_an_add_fails_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, replace: bool
) -> None:
    struck: set[str] = set()
    for nth in range(1, 100):
        name = f"m{nth}"
        old = b"old %d" % nth
        if replace:
            await bench.store.add(bench.file("old", old), name=name)
        content = b"new %d" % nth  # not random: a directory that is there already makes fewer steps
        path = bench.file(content=content)
        with monkeypatch.context() as patched:
            fault = Fault(patched, nth, code)
            failed = False
            try:
                await bench.store.add(path, name=name, replace=replace)
            except WireError:
                failed = True
        struck.add(fault.struck)
        assert bench.staged() == [], fault.struck
        assert bench.store.reserved_bytes == 0
        if name in bench.names():
            resolved = bench.store.resolve(name)
            assert Path(resolved.path).read_bytes() in ((old, content) if replace else (content,))
        else:
            assert failed
            assert not replace
        added = await bench.store.add(path, name=name, replace=replace)
        assert Path(added.path).read_bytes() == content
        if not fault.struck:
            assert not failed
            break
    else:
        pytest.fail("the sweep has no end")
    assert struck == {*CHANGING, ""}


# -- many at once


async def test_many_names_at_once_are_all_there(bench: Bench) -> None:
    paths = [bench.file(f"f{number}", b"%d" % (number % 5)) for number in range(40)]

    async def add(path: str, name: str) -> None:
        await bench.store.add(path, name=name)

    async with anyio.create_task_group() as group:
        for number, path in enumerate(paths):
            group.start_soon(add, path, f"m{number}")
    assert len(bench.names()) == 40
    assert len(bench.blobs()) == 5
    assert {view.state for view in bench.store.list()} == {"ready"}


@pytest.mark.parametrize("locks", ["real", "none"])
async def test_one_name_at_once_has_one_winner(bench: Bench, monkeypatch: pytest.MonkeyPatch, locks: str) -> None:
    """With every lock taken away the outcome is the same: locks save work, they do not keep the promise."""
    from contextlib import asynccontextmanager

    if locks == "none":

        @asynccontextmanager
        async def nobody(*_arguments: object, **_options: object) -> Any:
            yield

        monkeypatch.setattr("modeld.store.publishing.name_lock", nobody)
        monkeypatch.setattr("modeld.store.publisher.Publisher.turn", nobody)
    outcomes: list[str] = []

    async def add(number: int) -> None:
        path = bench.file(f"f{number}", b"content %d" % (number % 4))
        try:
            outcomes.append((await bench.store.add(path, name="one")).blob)
        except AlreadyExists:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(add, number)
    winners = {outcome for outcome in outcomes if outcome != "refused"}
    assert winners == {bench.store.resolve("one").blob}
    assert outcomes.count("refused") == 12
    assert bench.staged() == []


async def test_a_name_that_another_tool_holds_does_not_hold_up_the_others(bench: Bench) -> None:
    import fcntl

    bench.close()
    layout, lock = Store.claim(bench.root, SETTINGS)
    bench.catalog = Catalog.open(layout.catalog_path)
    bench.store = Store.open(bench.root, SETTINGS, bench.catalog, lock=lock, lock_seconds=0.2)
    descriptor = os.open(bench.layout.name_lock(ModelName.parse("held")), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:

            async def add_held() -> None:
                with pytest.raises(InUse, match="'held'"):
                    await bench.store.add(bench.file("h", b"h"), name="held", order=1)

            group.start_soon(add_held)
            with anyio.fail_after(30):
                await bench.store.add(bench.file("f", b"f"), name="free", order=2)
    finally:
        os.close(descriptor)
    assert bench.names() == ["free"]
    assert bench.staged() == []


async def test_a_manifest_of_another_tool_that_came_first_is_not_overwritten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears between the look in our turn and the naming; same bytes are success, others are refused."""
    same = await bench.store.add(bench.file(), name="template")
    template = Path(bench.layout.manifest(ModelName.parse("template"))).read_text()

    class Intruder(Notes):
        async def about_to_publish(self, added: Added) -> None:
            text = template.replace("template", added.name)
            Path(bench.layout.manifest(ModelName.parse(added.name))).write_text(text)

    added = await bench.store.add(bench.file(), name="same", notes=Intruder(bench))
    assert added.blob == same.blob
    with pytest.raises(AlreadyExists):
        await bench.store.add(bench.file("x", b"other"), name="other", notes=Intruder(bench))
    assert bench.store.resolve("other").blob == same.blob


async def test_a_blob_that_vanishes_in_the_last_moment_is_copied_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.store.add(bench.file(), name="a")
    real = adding_module.still_there
    taken: list[bool] = []

    def take_it_first(*arguments: Any) -> Any:
        if not taken:
            taken.append(True)
            os.unlink(added.path)
        return real(*arguments)

    monkeypatch.setattr(adding_module, "still_there", take_it_first)
    again = await bench.store.add(bench.file(), name="b", sha256=added.blob)
    assert taken
    assert Path(again.path).read_bytes() == b"GGUF weights"


async def test_a_blob_that_keeps_vanishing_ends_in_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.store.add(bench.file(), name="a")

    def gone(*_arguments: Any) -> Any:
        raise adding_module.Vanished

    monkeypatch.setattr(adding_module, "still_there", gone)
    with pytest.raises(Corrupt, match="disappears"):
        await bench.store.add(bench.file(), name="b", sha256=added.blob)


def test_a_file_that_cannot_be_looked_at_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file()
    before = len(os.listdir("/proc/self/fd"))

    def broken(_status: os.stat_result) -> Signature:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(Signature, "of", broken)
        with pytest.raises(WireError):
            adding_module.OpenFile.open(path, open_source)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_an_expected_digest_teaches_nothing_about_a_file_that_was_not_read(bench: Bench, tmp_path: Path) -> None:
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    first.write_bytes(b"a" * 4096)
    second.write_bytes(b"b" * 4096)
    for path in (first, second):
        os.utime(path, (1, 1))
    added = await bench.store.add(str(first), name="first")
    claimed = await bench.store.add(str(second), name="claimed", sha256=added.blob.removeprefix("sha256:"))
    assert claimed.blob == added.blob
    honest = await bench.store.add(str(second), name="honest")
    assert honest.blob == "sha256:" + hashlib.sha256(second.read_bytes()).hexdigest()


async def test_a_file_that_hides_its_size_is_refused(bench: Bench) -> None:
    """A file of the kernel's says that it is empty and is not."""
    with pytest.raises(SourceUnavailable, match="there are more"):
        await bench.store.add("/proc/version", name="version")
    assert bench.store.count() == 0
