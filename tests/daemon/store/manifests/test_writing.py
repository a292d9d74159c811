"""A manifest is written whole, once, and with every field of other tools."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.root import prepare_root
from modeld.store.manifests.manifests import read_document
from modeld.store.manifests.writing import compose, encode, write
from modelwire.errors import AlreadyExists, NoSpace, PermissionDenied, WireError
from modelwire.version import __version__
from rigs.manifest_files import DIGEST, FOREIGN, NAME, NOW, document, put


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


def test_the_file_has_the_nine_fields_indented_with_a_final_newline(layout: Layout) -> None:
    write(layout, NAME, document(), replace=False)
    text = Path(layout.manifest(NAME)).read_text()
    assert text == (
        '{\n  "schema_version": 1,\n  "name": "llama:8b",\n  "format": "gguf",\n'
        f'  "blob": "sha256:{DIGEST.hex}",\n  "size_bytes": 5,\n  "license": "mit",\n'
        '  "source": {\n    "registry": "local",\n    "repo": "",\n    "revision": "",\n    "filename": ""\n  },\n'
        f'  "produced_by": "modeld/{__version__}",\n  "produced_at": "2026-11-20T08:30:05Z"\n}}\n'
    )


def test_a_name_is_not_taken_twice_without_replace(layout: Layout) -> None:
    write(layout, NAME, document(), replace=False)
    before = Path(layout.manifest(NAME)).read_bytes()
    with pytest.raises(AlreadyExists, match="llama:8b"):
        write(layout, NAME, document(size_bytes=6), replace=False)
    assert Path(layout.manifest(NAME)).read_bytes() == before
    write(layout, NAME, document(size_bytes=6), replace=True)
    assert read_document(layout.manifest(NAME))["size_bytes"] == 6
    assert os.listdir(layout.staging) == []


def test_readers_of_the_group_or_everybody(layout: Layout) -> None:
    write(layout, NAME, document(), replace=False)
    assert stat.S_IMODE(os.stat(layout.manifest(NAME)).st_mode) == 0o644
    prepare_root(layout.root, group=str(os.getgid()))
    write(layout, NAME, document(), replace=True)
    assert stat.S_IMODE(os.stat(layout.manifest(NAME)).st_mode) == 0o640


def test_a_planted_link_is_replaced_and_never_written_through(layout: Layout, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, layout.manifest(NAME))
    with pytest.raises(AlreadyExists):
        write(layout, NAME, document(), replace=False)
    write(layout, NAME, document(), replace=True)
    assert victim.read_text() == "mine"
    assert not os.path.islink(layout.manifest(NAME))


def test_unknown_fields_are_kept_with_their_numbers_and_order(layout: Layout) -> None:
    made = compose(
        NAME, digest=DIGEST, size=5, format="gguf", license=None, source={"registry": "local"}, now=NOW, before=FOREIGN
    )
    assert made["tags"] == ["mine"]
    assert made["huge"] == 2**80
    assert made["model"] == {"model_id": "m"}
    assert made["source"] == {"registry": "local", "repo": "", "revision": "", "filename": "", "etag": "x"}
    assert made["produced_by"] == f"modeld/{__version__}"
    put(layout, encode(made))
    assert read_document(layout.manifest(NAME)) == made


def test_fields_about_the_bytes_go_when_the_bytes_go() -> None:
    made = compose(
        NAME, digest=Digest("cd" * 32), size=6, format="gguf", license=None, source={}, before={**FOREIGN, "files": []}
    )
    assert "model" not in made
    assert "files" not in made
    assert made["tags"] == ["mine"]


@pytest.mark.parametrize("before", [{"source": None}, {"source": "text"}, {"source": []}])
def test_a_strange_source_does_not_stop_a_rewrite(before: dict[str, Any]) -> None:
    made = compose(NAME, digest=DIGEST, size=5, format="gguf", license=None, source={"repo": "r"}, before=before)
    assert made["source"] == {"registry": "", "repo": "r", "revision": "", "filename": ""}


def test_text_is_utf8_and_half_a_surrogate_pair_survives(layout: Layout) -> None:
    assert "é".encode() in encode({"a": "é"})
    put(layout, encode({"a": "é", "b": "\udc80"}))
    assert read_document(layout.manifest(NAME)) == {"a": "é", "b": "\udc80"}


STEPS = [
    "create_file",
    "share_with_group_of",
    "write_at",
    "sync_file",
    "close",
    "name_without_replacing",
    "name_replacing",
    "sync_directory",
]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, NoSpace), (errno.EROFS, PermissionDenied), (errno.EIO, WireError)]
)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_fails_typed_and_leaves_the_old_or_the_new(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, step: str, code: int, kind: type[WireError], replace: bool
) -> None:
    if replace:
        write(layout, NAME, document(size_bytes=1), replace=False)
    real = getattr(durable, step)

    def fail(*arguments: object) -> object:
        if step == "close":
            real(*arguments)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(durable, step, fail)
        used = step not in ({"name_without_replacing"} if replace else {"name_replacing"})
        if used:
            with pytest.raises(kind, match="write the manifest"):
                write(layout, NAME, document(), replace=replace)
        else:
            write(layout, NAME, document(), replace=replace)
    assert os.listdir(layout.staging) == []
    named = not used or step == "sync_directory"
    if os.path.exists(layout.manifest(NAME)):
        size = read_document(layout.manifest(NAME))["size_bytes"]
        assert size == (5 if named else 1)
    else:
        assert not replace
        assert not named
    write(layout, NAME, document(), replace=True)
    assert read_document(layout.manifest(NAME)) == document()


def test_bytes_are_synced_before_the_name_and_the_directory_after(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for step in STEPS:
        real = getattr(durable, step)

        def record(*arguments: Any, step: str = step, real: Any = real) -> object:
            calls.append(step)
            return real(*arguments)

        monkeypatch.setattr(durable, step, record)
    write(layout, NAME, document(), replace=False)
    order = [calls.index(step) for step in ("write_at", "sync_file", "name_without_replacing", "sync_directory")]
    assert order == sorted(order)
