"""From a file to a model: what is read, what is copied, what a failure leaves, and when the job is notified."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.config import StoreSettings
from modeld.inspect.inspection import Inspection, inspect
from modeld.store import Reader
from modeld.store.blobs.block_checksums import BLOCK
from modeld.store.digest import Digest
from modeld.store.ingest import look
from modeld.store.names import ModelName
from modelwire.errors import (
    AlreadyExists,
    DigestMismatch,
    InvalidDigest,
    InvalidName,
    InvalidRequest,
    NoSpace,
    QuotaExceeded,
    SourceNotFound,
    WireError,
)
from modelwire.units import Size
from rigs.adding_rig import Bench, Work, settle_source

# -- success


async def test_a_file_becomes_a_model(bench: Bench) -> None:
    path = bench.file("Ministral 3B Q4.gguf")
    added = await bench.store.add(path, license="mit")
    assert (added.name, added.format, added.reused) == ("Ministral-3B-Q4", "gguf", False)
    assert Path(added.path).read_bytes() == b"GGUF weights"
    assert os.stat(added.path).st_mode & 0o777 == 0o444
    assert bench.store.index.resolve("Ministral-3B-Q4").path == added.path
    shown = bench.store.models.view("ministral-3b-q4")
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
    assert bench.store.index.count == 1


async def test_an_empty_file_is_a_model_too(bench: Bench) -> None:
    added = await bench.store.add(bench.file("empty.bin", b""), name="empty")
    assert added.size_bytes == 0
    assert bench.store.index.resolve("empty").state == "ready"


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
    shown = bench.store.models.view("a").manifest
    assert shown is not None
    assert shown["tags"] == [1]
    assert Path(bench.store.index.resolve("a").path).read_bytes() == b"new"


async def test_a_file_name_that_is_no_text_makes_a_manifest_that_is(bench: Bench) -> None:
    path = os.fsdecode(os.fsencode(str(bench.directory)) + b"/\xff.gguf")
    Path(path).write_bytes(b"x")
    added = await bench.store.add(path, name="a")
    shown = bench.store.models.view(added.name).manifest
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
    assert bench.store.index.resolve("a").state == "ready"


async def test_a_missing_blob_is_put_back_under_its_manifest(bench: Bench) -> None:
    added = await bench.store.add(bench.file(), name="a")
    os.unlink(added.path)
    assert not (await bench.store.add(bench.file(), name="a")).reused
    assert Path(bench.store.index.resolve("a").path).read_bytes() == b"GGUF weights"


async def test_a_good_blob_does_not_suffer_from_a_lie_about_it(bench: Bench) -> None:
    """A digest of something that is here, beside a file that is something else."""
    added = await bench.store.add(bench.file(), name="a")
    with pytest.raises(DigestMismatch):
        await bench.store.add(bench.file("other.gguf", b"other"), name="b", sha256=added.blob)
    assert Path(bench.store.index.resolve("a").path).read_bytes() == b"GGUF weights"
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


async def test_a_taken_name_is_reported_before_anything_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_what_was_believed_to_be_here_asks_for_its_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records know all files, so nothing is promised for them; then a blob turns out to be bad."""
    settle_source(monkeypatch)
    (bench.directory / "many").mkdir()
    for name in ("a.gguf", "b.gguf"):
        bench.file(f"many/{name}", name.encode() * 100)
    added = await bench.store.add(str(bench.directory / "many"), name="a")
    spoilt = Path(bench.layout.blob(Digest.parse(added.blob)))
    spoilt.chmod(0o644)
    spoilt.write_bytes(b"x" * spoilt.stat().st_size)
    bench.reopen(StoreSettings(min_free=Size(1 << 60)))
    with pytest.raises(NoSpace, match="are needed"):
        await bench.store.add(str(bench.directory / "many"), name="b")
    assert bench.names() == ["a"]
    assert bench.staged() == []
    assert bench.store.reserved_bytes == 0


async def test_the_format_is_what_the_bytes_say_whatever_the_name_promises(bench: Bench) -> None:
    renamed = await bench.store.add(bench.file("m.onnx", b"GGUF weights"), name="a")
    assert (renamed.format, renamed.warning) == ("gguf", "m.onnx: its name promises onnx, and its bytes are gguf")
    unknown = await bench.store.add(bench.file("m.weights", b"no magic"), name="b")
    assert (unknown.format, unknown.warning) == ("unknown", None)
    again = await bench.store.add(bench.file("m.gguf", b"no magic"), name="c")
    assert (again.format, again.reused) == ("unknown", True)
    assert again.warning == "m.gguf: its name promises gguf, and its bytes are of no known format"


async def test_each_new_blob_of_a_model_is_looked_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def counted(descriptor: int, size: int, name: str) -> Inspection:
        looked.append(os.pread(descriptor, size, 0).decode())
        return inspect(descriptor, size, name)

    monkeypatch.setattr(look, "inspect", counted)
    (bench.directory / "many").mkdir()
    for name, content in {"a.gguf": b"one", "b.gguf": b"two", "c.gguf": b"one"}.items():
        bench.file(f"many/{name}", content)
    await bench.store.add(bench.file("single.gguf", b"two"), name="single")
    assert looked == ["two"]
    await bench.store.add(str(bench.directory / "many"), name="many")
    assert sorted(looked) == ["one", "two", "two"], "what was there already is judged by its new name"


async def test_a_limit_on_bytes_counts_what_is_there(bench: Bench) -> None:
    await bench.store.add(bench.file(), name="a")
    bench.reopen(StoreSettings(min_free=Size(0), max_bytes=Size(20)))
    with pytest.raises(QuotaExceeded):
        await bench.store.add(bench.file("x", b"123456789"), name="b")
    await bench.store.add(bench.file("y", b"12345678"), name="b")


async def test_a_source_that_is_closed_to_the_peer_is_closed(bench: Bench) -> None:
    class Refusing(Reader):
        def open(self, path: str, directory: int | None = None) -> int:
            raise InvalidRequest(f"not {path}")

    with pytest.raises(InvalidRequest, match=r"not .*m\.gguf"):
        await bench.store.add(bench.file(), name="a", reader=Refusing())
    bench.assert_nothing_happened()


async def test_a_store_that_was_replaced_is_not_written_to(bench: Bench) -> None:
    os.rename(bench.root, bench.root + ".away")
    with pytest.raises(WireError, match="cannot look at"):
        await bench.store.add(bench.file(), name="a")
    assert not os.path.exists(bench.root)


# -- notes to the job
