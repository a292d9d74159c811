"""A start cleans up the store's own leftovers, in bounded time, and changes no files of others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import prepare_root
from modeld.store.maintain.recover import recover
from modeld.store.manifests.index import Index
from modelwire.errors import WireError

DIGEST = Digest("61" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of a store that has started before."""
    made = prepare_root(str(tmp_path / "models"))
    os.mkdir(made.linked)
    return made


def put_model(layout: Layout, stem: str, *, with_blob: bool = True) -> None:
    digest = DIGEST if with_blob else Digest("62" * 32)
    if with_blob:
        os.makedirs(os.path.dirname(layout.blob(digest)), exist_ok=True)
        Path(layout.blob(digest)).write_bytes(b"abc")
    document = {"schema_version": 1, "blob": digest.text, "size_bytes": 3}
    Path(layout.manifests_dir, f"{stem}.json").write_text(json.dumps(document))


def snapshot(root: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def test_an_empty_store_needs_nothing(layout: Layout) -> None:
    report = recover(layout, Index(layout))
    assert (report.staging_removed, report.models_failed, report.damaged, report.notes) == (0, (), (), ())
    assert report.seconds >= 0


def test_staging_of_a_dead_run_is_swept(layout: Layout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    Path(layout.staging, "ingest-1-x.tmp").write_bytes(b"x" * 100_000)
    Path(layout.staging, "manifest-y.json").write_text("{}")
    os.makedirs(f"{layout.staging}/tree/deep")
    os.symlink(outside, f"{layout.staging}/link")
    os.symlink(outside, f"{layout.staging}/tree/link")
    report = recover(layout, Index(layout))
    assert os.listdir(layout.staging) == []
    assert report.staging_removed == 4
    assert report.staging_bytes >= 100_000
    assert (outside / "precious").read_text() == "mine"


def test_one_of_two_names_of_a_blob_gives_back_nothing(layout: Layout) -> None:
    """A run that was killed between naming by link and removing the temporary."""
    put_model(layout, "a")
    os.link(layout.blob(DIGEST), f"{layout.staging}/ingest-1-x.tmp")
    report = recover(layout, Index(layout))
    assert (report.staging_removed, report.staging_bytes) == (1, 0)
    assert Path(layout.blob(DIGEST)).read_bytes() == b"abc"


def test_what_others_own_stays(layout: Layout) -> None:
    put_model(layout, "a")
    for directory in (layout.partial_dir(Digest("cc" * 32)), layout.shared_partial_dir(Digest("cc" * 32))):
        os.makedirs(directory)
        Path(directory, "data.tmp").write_bytes(b"half")
    Path(layout.manifests_dir, "torn.json").write_text("{")
    Path(layout.manifests_dir, "other.json.tmp").write_text("theirs")
    Path(layout.quarantine_dir, "20260101T000000Z-bad.bin").write_text("bad")
    Path(layout.locks_dir, "a.lock").write_text("")
    before = snapshot(layout.root)
    recover(layout, Index(layout))
    assert snapshot(layout.root) == before


def test_models_without_their_bytes_are_reported_and_kept(layout: Layout) -> None:
    put_model(layout, "good")
    put_model(layout, "lost", with_blob=False)
    Path(layout.manifests_dir, "torn.json").write_text("{")
    report = recover(layout, Index(layout))
    assert report.models_failed == ("lost",)
    assert len(report.damaged) == 1
    assert "torn.json" in report.damaged[0]
    assert os.path.exists(f"{layout.manifests_dir}/lost.json")


def test_a_manifest_that_was_named_but_not_synced_is_synced(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    recover(layout, Index(layout))
    assert synced == [layout.manifests_dir]


class Slow:
    """Every look at the clock costs a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_a_start_that_has_no_time_says_what_it_left(layout: Layout) -> None:
    for number in range(100):
        put_model(layout, f"m{number}")
    for number in range(3):
        Path(layout.staging, f"{number}").write_text("x")
    index = Index(layout)
    report = recover(layout, index, Slow())
    assert any("64 of 100 models" in note for note in report.notes)
    assert any(layout.staging in note for note in report.notes)
    assert len(index.page(None, None).models) == 100


def test_blobs_are_not_walked(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    put_model(layout, "a")
    seen: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    recover(layout, Index(layout))
    assert not any(path.startswith(f"{layout.root}/blobs") for path in seen)


def test_a_leftover_that_cannot_be_removed_is_a_note(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(layout.staging, "stuck").write_text("x")

    def refuse(path: str) -> None:
        raise PermissionError(1, "not permitted", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        report = recover(layout, Index(layout))
    assert report.staging_removed == 0
    assert any("stuck" in note for note in report.notes)


def test_a_store_that_cannot_be_read_is_a_typed_error(layout: Layout) -> None:
    os.rmdir(layout.staging)
    with pytest.raises(WireError):
        recover(layout, Index(layout))
