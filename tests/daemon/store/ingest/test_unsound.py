"""What is certainly no model is not published in silence, whichever way its bytes came, and is stored when told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelwire.errors import Corrupt
from rigs.adding_rig import Bench
from rigs.tiny_gguf import write_tiny_llama

pytestmark = pytest.mark.anyio

PAGE = b"<!DOCTYPE html><html><body>Sign in to download</body></html>"


@pytest.mark.parametrize("how", ["copy", "move", "link"])
async def test_a_page_under_the_name_of_a_model_is_refused_and_leaves_nothing(bench: Bench, how: str) -> None:
    source = bench.file("m.gguf", PAGE)
    mode = os.stat(source).st_mode
    with pytest.raises(Corrupt, match="HTML page") as refused:
        await bench.store.add(source, how=how)  # type: ignore[arg-type]
    assert refused.value.details["path"] == "m.gguf"
    assert "--force-format" in (refused.value.hint or "")
    assert (Path(source).read_bytes(), os.stat(source).st_mode) == (PAGE, mode)
    bench.assert_nothing_happened()


async def test_it_is_stored_when_told_to_and_then_is_a_model_like_any_other(bench: Bench) -> None:
    source = bench.file("m.gguf", PAGE)
    added = await bench.store.add(source, formats="force_format")
    assert Path(bench.store.index.resolve(added.name).path).read_bytes() == PAGE
    assert (await bench.store.add(source)).reused, "the name stands for it already"
    with pytest.raises(Corrupt, match="HTML page"):
        await bench.store.add(source, name="another")
    assert bench.names() == [added.name]
    assert Path(source).exists()
    assert (await bench.store.add(bench.file("page.html", PAGE), name="page")).reused, "it promises no model"


async def test_a_file_of_a_directory_that_is_cut_off_is_named(bench: Bench) -> None:
    folder = bench.directory / "several"
    folder.mkdir()
    (folder / "README.md").write_text("<html>")
    (folder / "empty.txt").write_bytes(b"")
    (path,) = write_tiny_llama(folder / "tiny.gguf")
    whole = path.stat().st_size
    os.truncate(path, whole - 100)
    with pytest.raises(Corrupt, match=r"tiny\.gguf is no model: it is cut off"):
        await bench.store.add(str(folder))
    bench.assert_nothing_happened()


async def test_equal_bytes_under_two_names_are_judged_by_each_name(bench: Bench) -> None:
    folder = bench.directory / "several"
    folder.mkdir()
    for name in ("a.html", "b.gguf"):
        (folder / name).write_bytes(PAGE)
    with pytest.raises(Corrupt, match=r"b\.gguf"):
        await bench.store.add(str(folder))
    bench.assert_nothing_happened()
