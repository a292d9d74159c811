"""Readers see the files that are on disk now, from any program, and cache only what stat confirms."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from modeld.store.digest import Digest
from modeld.store.manifests import manifests
from modeld.store.manifests.entries import WouldBlock
from modeld.store.manifests.index import Index
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, Internal, InvalidName, NotFound, Unsupported, WireError
from rigs.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


class Reads:
    """Counts how often a manifest is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = manifests.read

        def read(path: str, name: ModelName) -> Any:
            self.count += 1
            return real(path, name)

        monkeypatch.setattr(manifests, "read", read)


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_model_and_its_document_are_of_one_moment(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = shelf.put("llama", b"old")
    changes = [(lambda: os.unlink(path)) if change == "removed" else lambda: shelf.put("llama", b"new")]
    real = manifests.read_document

    def change_and_read(path: str) -> dict[str, Any]:
        if changes:
            changes.pop()()
        return real(path)

    monkeypatch.setattr(manifests, "read_document", change_and_read)
    if change == "removed":
        with pytest.raises(NotFound, match="no model named 'llama'"):
            shelf.index.find_with_document("llama")
    else:
        entry, document = shelf.index.find_with_document("llama")
        assert entry.usable().blob == document["blob"] == "sha256:" + "6e" * 32


def test_what_was_read_before_all_was_forgotten_is_not_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks of linked blobs may have changed since the read."""
    shelf.put("llama")
    shelf.age()
    reads = Reads(monkeypatch)
    real = manifests.read

    def read_and_forget(path: str, name: ModelName) -> Any:
        found = real(path, name)
        shelf.index.forget()
        return found

    with monkeypatch.context() as once:
        once.setattr(manifests, "read", read_and_forget)
        shelf.index.resolve("llama")
    shelf.index.resolve("llama")
    assert reads.count == 2
    shelf.index.resolve("llama")
    assert reads.count == 2


# -- resolve


def test_a_name_is_a_path_to_its_bytes(shelf: Shelf) -> None:
    shelf.put("llama:8b", b"abc")
    found = shelf.index.resolve("llama:8b")
    assert Path(found.path).read_bytes() == b"abc"
    assert found.name == "llama:8b"
    assert found.blob == "sha256:" + "61" * 32
    assert found.state == "ready"


def test_a_bare_name_stands_for_latest_only_when_nothing_has_that_name(shelf: Shelf) -> None:
    shelf.put("llama:latest", b"latest")
    assert shelf.index.resolve("llama").name == "llama:latest"
    shelf.put("llama", b"bare")
    assert shelf.index.resolve("llama").name == "llama"
    assert shelf.index.resolve("llama:latest").name == "llama:latest"
    os.unlink(shelf.layout.manifest(ModelName.parse("llama")))
    assert shelf.index.resolve("llama").name == "llama:latest"
    with pytest.raises(NotFound):
        shelf.index.resolve("llama:8b")


def test_another_spelling_is_the_same_model(shelf: Shelf) -> None:
    shelf.put("LLama:8B")
    assert shelf.index.resolve("llama:8b").name == "LLama:8B"
    entry = shelf.index.entry(ModelName.parse("LLAMA:8b"))
    assert entry is not None
    assert entry.name.text == "LLama:8B"


def test_it_is_not_read_again_while_stat_agrees(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put("llama")
    shelf.age()
    reads = Reads(monkeypatch)
    answers = {id(shelf.index.resolve("llama")) for _ in range(5)}
    assert reads.count == 1
    assert len(answers) == 1


def test_a_manifest_written_a_moment_ago_is_not_remembered(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one tick of the kernel's clock a file can change twice and look the same."""
    path = shelf.put("llama", b"abc")
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(ahead, ahead))
    reads = Reads(monkeypatch)
    shelf.index.resolve("llama")
    shelf.index.resolve("llama")
    assert reads.count == 2


def test_changes_of_other_tools_are_seen_at_once(shelf: Shelf) -> None:
    shelf.put("llama", b"abc")
    shelf.age()
    assert shelf.index.resolve("llama").blob == "sha256:" + "61" * 32
    path = shelf.put("llama", b"xyz")
    assert shelf.index.resolve("llama").blob == "sha256:" + "78" * 32
    os.unlink(path)
    with pytest.raises(NotFound):
        shelf.index.resolve("llama")
    shelf.put("llama", b"uvw")
    assert shelf.index.resolve("llama").blob == "sha256:" + "75" * 32


def test_a_rewrite_that_keeps_size_and_mtime_is_seen(shelf: Shelf) -> None:
    path = shelf.put("llama", b"abc")
    shelf.age()
    shelf.index.resolve("llama")
    times = os.stat(path)
    content = Path(path).read_bytes().replace(b"61", b"78")
    shelf.blob(Digest("78" * 32), b"xyz")
    Path(path).write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shelf.index.resolve("llama").blob == "sha256:" + "78" * 32


def test_bytes_that_are_not_all_there_are_never_given_out(shelf: Shelf) -> None:
    shelf.put("llama", b"abc")
    shelf.age()
    path = shelf.index.resolve("llama").path
    Path(path).write_bytes(b"ab")
    with pytest.raises(WouldBlock):
        shelf.index.resolve("llama")
    assert "2 bytes, the manifest says 3" in str(shelf.index.find("llama").view().reason)
    os.unlink(path)
    with pytest.raises(Corrupt, match="missing") as caught:
        shelf.index.resolve("llama")
    assert caught.value.hint is not None
    os.symlink("/etc/passwd", path)
    with pytest.raises(Corrupt, match="not a regular file"):
        shelf.index.resolve("llama")
    os.unlink(path)
    os.rmdir(os.path.dirname(path))
    with pytest.raises(Corrupt, match="missing"):
        shelf.index.resolve("llama")
    shelf.blob(Digest("61" * 32), b"abc")
    with pytest.raises(WouldBlock):  # it is another file than the one that was there
        shelf.index.resolve("llama")
    assert Index(shelf.layout).resolve("llama").state == "ready"


def test_every_file_of_a_model_must_be_there(shelf: Shelf) -> None:
    second = shelf.blob(Digest("62" * 32), b"be")
    files = [
        {"path": "a.gguf", "blob": "sha256:" + "61" * 32, "size_bytes": 3, "role": "weights"},
        {"path": "b.gguf", "blob": "sha256:" + "62" * 32, "size_bytes": 2},
    ]
    shelf.put("llama", b"abc", size_bytes=5, files=files)
    with pytest.raises(WouldBlock):  # its tree is not made yet
        shelf.index.resolve("llama")
    view = shelf.index.find("llama").view()
    assert [file.path for file in view.files] == ["a.gguf", "b.gguf"]
    assert view.state == "ready"
    os.unlink(second)
    with pytest.raises(Corrupt, match="62"):
        shelf.index.resolve("llama")


def test_a_missing_name_comes_with_names_that_may_be_meant(shelf: Shelf) -> None:
    for name in ("llama-3.1-8b", "llama-3.2-1b", "qwen"):
        shelf.put(name)
    with pytest.raises(NotFound, match=r"'llama-3\.2-8b'") as caught:
        shelf.index.resolve("llama-3.2-8b")
    assert caught.value.hint is not None
    assert "llama-3.1-8b" in caught.value.hint
    assert "qwen" not in caught.value.hint
    with pytest.raises(NotFound) as caught:
        shelf.index.resolve("zzz")
    assert caught.value.hint is not None
    assert "modelctl list" in caught.value.hint


def test_a_bad_name_is_refused_before_the_disk_is_looked_at(shelf: Shelf) -> None:
    with pytest.raises(InvalidName):
        shelf.index.resolve("../../etc/passwd")


def test_a_damaged_manifest_is_reported_to_each_request(shelf: Shelf) -> None:
    path = shelf.put_file("llama", b"{")
    for _ in range(2):
        with pytest.raises(Corrupt, match=path):
            shelf.index.resolve("llama")
        shelf.age()
    shelf.put_file("llama", b'{"schema_version": 7}')
    with pytest.raises(Unsupported, match="7"):
        shelf.index.resolve("llama")
    shelf.put("llama")
    assert shelf.index.resolve("llama").state == "ready"


def test_a_store_that_is_away_has_not_lost_its_models(shelf: Shelf) -> None:
    shelf.put("llama")
    shelf.age()
    shelf.index.resolve("llama")
    os.rename(shelf.layout.root, shelf.layout.root + ".away")
    with pytest.raises(WireError, match="cannot read") as caught:
        shelf.index.resolve("llama")
    assert not isinstance(caught.value, NotFound)
    with pytest.raises(WireError):
        shelf.index.page(None, None)
    os.rename(shelf.layout.root + ".away", shelf.layout.root)
    assert shelf.index.resolve("llama").state == "ready"


# -- views and pages


def test_a_view_says_what_the_manifest_says(shelf: Shelf) -> None:
    source = {"registry": "hf", "repo": None, "revision": "main", "filename": "f", "more": 1}
    shelf.put("llama", b"abc", format="gguf", license="mit", source=source, produced_by="t/1", produced_at="then")
    view = shelf.index.find("llama").view()
    assert (view.name, view.format, view.size_bytes, view.license) == ("llama", "gguf", 3, "mit")
    assert view.source is not None
    assert (view.source.registry, view.source.repo, view.source.revision) == ("hf", "", "main")
    assert (view.produced_by, view.produced_at, view.state, view.reason) == ("t/1", "then", "ready", None)
    assert view.path is not None
    assert Path(view.path).read_bytes() == b"abc"


def test_a_model_without_its_bytes_is_listed_as_failed_with_the_reason(shelf: Shelf) -> None:
    shelf.put("llama", b"abc")
    os.unlink(shelf.index.resolve("llama").path)
    [view] = shelf.index.page(None, None).models
    assert (view.state, view.path) == ("failed", None)
    assert view.reason is not None
    assert "missing" in view.reason


def test_pages_follow_each_other_without_gaps(shelf: Shelf) -> None:
    names = sorted(["b", "a", "a:x", "a-b", "C", "c:1", "a.b"])
    for name in names:
        shelf.put(name)
    assert [view.name for view in shelf.index.page(None, None).models] == names
    seen: list[str] = []
    after = None
    while True:
        page = shelf.index.page(after, 2)
        assert len(page.models) <= 2
        seen += [view.name for view in page.models]
        after = page.next
        if after is None:
            break
    assert seen == names


def test_a_page_goes_on_where_a_removed_name_was(shelf: Shelf) -> None:
    for name in "abc":
        shelf.put(name)
    page = shelf.index.page(None, 1)
    os.unlink(shelf.layout.manifest(ModelName.parse("a")))
    assert [view.name for view in shelf.index.page(page.next, None).models] == ["b", "c"]


def test_files_that_are_no_manifests_are_reported_once_and_hide_nothing(shelf: Shelf) -> None:
    shelf.put("good")
    damaged = shelf.put_file("torn", b"{")
    newer = shelf.put_file("newer", b'{"schema_version": 9}')
    refused = shelf.put_file("no name", b"{}")
    shelf.put_file(".hidden", b"{}")
    Path(shelf.layout.manifests_dir, "readme.txt").write_text("")
    Path(shelf.layout.manifests_dir, "good.json.tmp").write_text("")
    page = shelf.index.page(None, None)
    assert [view.name for view in page.models] == ["good"]
    assert len(page.damaged) == 3
    assert all(any(path in sentence for sentence in page.damaged) for path in (damaged, newer, refused))
    assert not shelf.index.page("zzz", None).damaged


def test_two_spellings_on_disk_are_one_model_and_one_complaint(shelf: Shelf) -> None:
    shelf.put("Llama", b"one")
    assert shelf.index.resolve("llama").name == "Llama"
    shelf.put("LLAMA", b"two")
    page = shelf.index.page(None, None)
    assert [view.name for view in page.models] == ["Llama"]
    assert any("another spelling of 'Llama'" in sentence for sentence in page.damaged)


def test_a_list_is_as_fresh_as_the_disk(shelf: Shelf) -> None:
    shelf.put("a", b"abc")
    shelf.age()
    assert len(shelf.index.page(None, None).models) == 1
    shelf.put("b")
    path = shelf.put("a", b"xyz")
    assert [view.blob[-2:] for view in shelf.index.page(None, None).models] == ["78", "62"]
    os.unlink(path)
    assert [view.name for view in shelf.index.page(None, None).models] == ["b"]


def test_ten_thousand_manifests_are_read_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.blob(Digest("61" * 32), b"abc")
    document = json.dumps({"schema_version": 1, "blob": "61" * 32, "size_bytes": 3}).encode()
    for number in range(10_000):
        Path(shelf.layout.manifests_dir, f"m{number}.json").write_bytes(document)
    shelf.age()
    reads = Reads(monkeypatch)
    assert len(shelf.index.page(None, None).models) == 10_000
    assert len(shelf.index.page(None, None).models) == 10_000
    assert reads.count == 10_000


def test_what_this_daemon_does_is_known_at_once(shelf: Shelf) -> None:
    name = ModelName.parse("Llama")
    with shelf.index.changing(name):
        shelf.put("Llama", b"abc")
    assert shelf.index.resolve("llama").blob[-2:] == "61"
    with shelf.index.changing(name):
        shelf.put("Llama", b"xyz")
    assert shelf.index.resolve("llama").blob[-2:] == "78"
    with shelf.index.changing(name):
        os.unlink(shelf.layout.manifest(name))
    assert shelf.index.names() == []
    with pytest.raises(NotFound):
        shelf.index.resolve("llama")


def test_a_root_that_goes_away_right_after_a_publication_is_reported_as_away(shelf: Shelf) -> None:
    """And not as a store without the model, which a program would take as a reason to fetch it again."""
    shelf.index.names()
    with shelf.index.changing(ModelName.parse("m")):
        shelf.put("m")
    shelf.index.find("m")
    os.rename(shelf.layout.root, f"{shelf.layout.root}-away")
    for _attempt in range(2):
        with pytest.raises(Internal, match="No such file or directory") as caught:
            shelf.index.find("m")
        assert caught.value.hint is not None
        assert "mounted" in caught.value.hint
    os.rename(f"{shelf.layout.root}-away", shelf.layout.root)
    shelf.index.find("m")
    with pytest.raises(NotFound):
        shelf.index.find("other")
