"""A pull that was cancelled in the middle of a fault leaves a partial, and a sweep takes it when it is old."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.chaos_server import Chaos, Fault, Kind
from rigs.pull_rig import MIB, begun, downloads_open, gguf, hex_of, make_old, partials, pulled
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

CONTENT = gguf(12 * MIB + 5, 161)
FAULTS: tuple[Kind, ...] = ("stall", "drop", "status", "ignored_range", "announces_more")


def left(daemon: RealDaemon) -> list[str]:
    """Files of the store that are neither blobs nor a catalogue."""
    private = Path(daemon.root, ".modeld")
    found = [*private.glob("staging/*"), *private.glob("partials/*"), *Path(daemon.root, "blobs").rglob("*.tmp")]
    return [str(path) for path in found]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("kind", FAULTS)
def test_cancelled_and_swept_nothing_is_left(stopped: RealDaemon, kind: Kind, connections: int, known: bool) -> None:
    stopped.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = str(connections)
    stopped.environ["MODELD_STORE_GRACE"] = "0s"
    stopped.start()
    digest = {"sha256": hex_of(CONTENT)} if known else {}
    with Chaos(CONTENT, Fault(kind, 0.2, times=1_000_000), rate=8 * MIB) as chaos:
        with stopped.connect() as wire:
            number = wire.request("model.pull", ref=f"{chaos.url}/m.gguf", **digest)
            begun(wire, number, MIB)
            wait_until(lambda: chaos.faults[0].struck, what="the fault")
            wire.request("cancel", target=number, id="c")
            assert wire.terminal(number)["code"] == "cancelled"
        wait_until(lambda: not downloads_open(stopped), what="the download closed")
        assert len(partials(stopped)) == 1
        assert stopped.ask("store.sweep")["value"]["removed"] == 0, "it may be gone on with for a week"
        make_old(partials(stopped))
        assert stopped.ask("store.sweep")["type"] == "result"
        assert left(stopped) == []
        chaos.faults.clear()
        assert pulled(stopped, f"{chaos.url}/m.gguf", **digest)["blob"] == f"sha256:{hex_of(CONTENT)}"
    assert left(stopped) == []
