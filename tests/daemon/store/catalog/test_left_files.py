"""What jobs have left is known after a restart, for as long as it lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.left_files import LeftFiles

pytestmark = pytest.mark.anyio

ANN = 1001


async def test_files_count_after_a_restart_and_removed_ones_do_not(tmp_path: Path) -> None:
    database = tmp_path / "catalog.sqlite"
    catalog = Catalog.open(str(database))
    left = LeftFiles(catalog, str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 8192)
        left.note(f"{tmp_path}/{name}", ANN, 8192)
    await left.write()
    (tmp_path / "a").unlink()
    assert left.look_again(ANN) == 8192
    await left.write()
    catalog.close()
    with_catalog = Catalog.open(str(database))
    again = LeftFiles(with_catalog, str(tmp_path))
    assert again.bytes_of(ANN) == 8192
    assert again.look_again(ANN) == 8192
    with_catalog.close()
