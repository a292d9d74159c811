"""What was found in blobs: the reasons that models report, and the outcomes that are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.history import Condemned, History
from modeld.store.digest import Digest

BAD, GOOD = Digest("ab" * 32), Digest("cd" * 32)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(str(tmp_path / "catalog.sqlite"))
    yield opened
    opened.close()


async def test_why_a_blob_is_bad_outlives_the_loss_of_the_catalogues_log(catalog: Catalog) -> None:
    history = History(catalog)
    await history.condemn(GOOD, Condemned("it was bad", None))
    await history.condemn(BAD, Condemned("it has another digest", "/quarantine/1.bin"))
    await history.clear_condemned([GOOD])
    os.truncate(catalog.path + "-wal", 0)
    await history.clear_condemned([GOOD])
    again = History(catalog)
    assert again.why(BAD) == Condemned("it has another digest", "/quarantine/1.bin")
    assert again.why(GOOD) is None
