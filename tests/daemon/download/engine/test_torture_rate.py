"""A limit holds: that much the server gives away within ten seconds, whoever shares it, and when it is changed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modeld.download.tuning import DEFAULT
from modeld.progress import Stopped
from rigs.download_rig import Rig
from rigs.metered_server import Metered, metered
from rigs.rough_peers import SHORT
from rigs.waiting import wait_until
from rigs.watcher import Watcher

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

RATES = (20_000_000, 5_000_000, 40_000_000)
WINDOW_SECONDS = 10.0
TOLERANCE = 0.05
SETTLE_SECONDS = 2.0
"""For connections to be made and the kernel's buffers to fill: what lies in them was sent, and not read."""

SIZE = 1 << 30
"""More than is fetched here, by any of them."""


class Leaving(Watcher):
    """Stops when the test has seen enough."""

    def __init__(self, enough: threading.Event) -> None:
        super().__init__()
        self._enough = enough

    def stopped(self) -> bool:
        return self._enough.is_set()


@contextlib.contextmanager
def fetching(rig: Rig, server: Metered, jobs: int) -> Iterator[None]:
    enough = threading.Event()

    def one(number: int) -> None:
        file = replace(rig.info(server.url), size=SIZE, locator=f"{server.url}/{number}.gguf", validator='"one"')
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Leaving(enough))

    with ThreadPoolExecutor(jobs) as threads:
        running = [threads.submit(one, number) for number in range(jobs)]
        try:
            yield
        finally:
            enough.set()
        for each in running:
            each.result(30)


def measured(sent: Callable[[], int]) -> float:
    """Bytes a second over the window."""
    time.sleep(SETTLE_SECONDS)
    before, began = sent(), time.monotonic()
    time.sleep(WINDOW_SECONDS)
    return (sent() - before) / (time.monotonic() - began)


@pytest.mark.parametrize("jobs", [5] if SHORT else [1, 5])
def test_the_limit_holds_at_the_server_and_follows_a_change(tmp_path: Path, jobs: int) -> None:
    found = {}
    with metered(SIZE) as server, Rig(str(tmp_path), DEFAULT) as rig:
        rig.transfer.budget.set_rate(RATES[0])
        with fetching(rig, server, jobs):
            for rate in RATES:
                rig.transfer.budget.set_rate(rate)
                found[rate] = measured(server.sent)
    print({f"{rate / 1e6:.0f} MB/s": f"{100 * (got / rate - 1):+.2f} %" for rate, got in found.items()})
    for rate, got in found.items():
        assert got == pytest.approx(rate, rel=TOLERANCE), found


def test_a_limit_that_comes_in_mid_flight_counts_within_a_moment(tmp_path: Path) -> None:
    """From no limit at all: what is under way at that moment is all that goes beyond it, the window begins at once."""
    rate = 20_000_000
    with metered(SIZE) as server, Rig(str(tmp_path), DEFAULT) as rig:
        rig.transfer.budget.set_rate(200_000_000)
        with fetching(rig, server, 5):
            began = server.sent()
            wait_until(lambda: server.sent() >= began + (64 << 20), 30, "the first 64 MiB")
            rig.transfer.budget.set_rate(rate)
            before, began_at = server.sent(), time.monotonic()
            time.sleep(WINDOW_SECONDS)
            got = (server.sent() - before) / (time.monotonic() - began_at)
    print(f"{100 * (got / rate - 1):+.2f} %")
    assert got == pytest.approx(rate, rel=TOLERANCE)
