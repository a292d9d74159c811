"""What a sweep keeps because of its grace period: the answer reports it, and one sweep may use another period."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.config import StoreSettings
from modelwire.units import Duration, Size
from rigs.maintain_rig import Bench, kinds, later


async def test_what_still_waits_is_reported_and_a_sweep_may_wait_less(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), grace=Duration(3600)))
    try:
        first, second = await bench.add("a", b"first"), await bench.add("b", b"second one")
        await bench.add("stays", b"stays")
        await bench.store.renaming.remove("a")
        bench.ages(second.path, 1e6)
        await bench.store.renaming.remove("b")
        later(bench, 600)
        swept = await bench.store.sweeper.sweep()
        assert (swept.victims, swept.kept, swept.waiting, swept.waiting_bytes) == ((), 3, 2, 15)
        assert swept.waiting_s == pytest.approx(3000, abs=30)  # until the last of them may go
        assert kinds(await bench.store.sweeper.sweep(grace=599, dry_run=True)) == [("blob", 5), ("blob", 10)]
        longer = await bench.store.sweeper.sweep(grace=7200)
        assert longer.waiting == 2
        assert longer.waiting_s == pytest.approx(6600, abs=30)
        swept = await bench.store.sweeper.sweep(grace=0)
        assert (swept.removed, swept.kept, swept.waiting, swept.waiting_s) == (2, 1, 0, None)
        assert not os.path.exists(first.path)
        assert not os.path.exists(second.path)
    finally:
        bench.close()


async def test_what_another_name_keeps_does_not_count_as_waiting_to_be_freed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), grace=Duration(3600)))
    try:
        gone = await bench.add("a", b"elsewhere too")
        await bench.store.renaming.remove("a")
        os.link(gone.path, tmp_path / "other name")
        swept = await bench.store.sweeper.sweep()
        assert (swept.waiting, swept.waiting_bytes) == (1, 0)
    finally:
        bench.close()
