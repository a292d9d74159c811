"""Rules for places: no path to a file passes by, whatever links lead there and whenever they are exchanged."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modeld.access.handed import Descriptors, HandedFiles
from modeld.signatures.rules import Rule, Rules
from modeld.store.disk.layout import Layout
from modeld.store.ingest.collect import collect
from modeld.store.ingest.local_origin import local_origin
from modeld.store.ingest.readers import HandedReader, Reader
from modelwire.errors import Untrusted
from rigs.signed_shop import FILES, ONE, Shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


async def test_no_spelling_of_a_path_passes_by(shop: Shop, tmp_path: Path) -> None:
    path = shop.one()
    link, above = tmp_path / "link", tmp_path / "above"
    link.symlink_to(path)
    above.symlink_to(shop.models)
    (tmp_path / "elsewhere").mkdir()
    for spelled in (
        path,
        f"{tmp_path}//models/./one.gguf",
        f"/{tmp_path}/models/one.gguf",
        f"{tmp_path}/elsewhere/../models/one.gguf",
        str(link),
        f"{above}/one.gguf",
        f"{above}/../models/one.gguf",
    ):
        await shop.refused(spelled, "missing")


@pytest.mark.parametrize("path", ["link/m.gguf", "link", "file.gguf"])
async def test_a_link_that_is_exchanged_does_not_pass_by(shop: Shop, tmp_path: Path, path: str) -> None:
    """The rules see the path of what was opened: a link can lead elsewhere in the moment they are asked."""
    shop.put({"m.gguf": ONE}, "dir")
    links = {"link": shop.models / "dir", "file.gguf": shop.models / "dir/m.gguf"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    collection = collect(f"{tmp_path}/{path}", "copy", Reader(), shop.store.layout)
    try:
        (tmp_path / "free").mkdir()
        (tmp_path / "free/m.gguf").write_bytes(ONE)
        for name, target in links.items():
            (tmp_path / name).unlink()
            (tmp_path / name).symlink_to(tmp_path / "free" / target.relative_to(shop.models / "dir"))
        origin = local_origin(collection, shop.rules, None)
    finally:
        collection.close()
    assert shop.rules.matching(origin.spellings) is not None
    assert f"local:{shop.models}/dir/m.gguf" in origin.spellings


async def test_a_directory_does_not_pass_by_under_its_own_name_or_from_above(shop: Shop, tmp_path: Path) -> None:
    shop.put(FILES)
    (tmp_path / "all").symlink_to(shop.models)
    for spelled in (str(shop.models), f"{shop.models}/", str(tmp_path / "all"), str(shop.models / "m")):
        await shop.refused(spelled, "missing")
    lone = tmp_path / "top" / "models"
    lone.mkdir(parents=True)
    (lone / "m.gguf").write_bytes(ONE)
    shop.store.ingest.rules._rules = (Rule(1, [f"local:{shop.models}/*", f"local:{lone}/*"], [str(shop.pem)], []),)
    with pytest.raises(Untrusted):
        await shop.add(str(tmp_path / "top"))


def test_a_path_of_files_that_were_handed_over_is_not_looked_at(tmp_path: Path) -> None:
    """The daemon opens no path for another user: one of theirs might never answer."""
    file = tmp_path / "m.gguf"
    file.write_bytes(ONE)
    (tmp_path / "link").symlink_to(file)
    handed = HandedFiles(Descriptors(), 1000, directory=False)
    handed.add(["m.gguf"], [os.open(file, os.O_RDONLY)])
    try:
        reader = HandedReader(f"{tmp_path}/a/../link", handed)
        collection = collect(f"{tmp_path}/a/../link/m.gguf", "copy", reader, Layout(str(tmp_path / "store")))
        origin = local_origin(collection, Rules([Rule(1, ["*"], ["/k"], [])]), None)
    finally:
        handed.close()
    assert origin.spellings == (f"local:{tmp_path}/a/../link/m.gguf", f"local:{tmp_path}/link/m.gguf")
    assert origin.signature is None
