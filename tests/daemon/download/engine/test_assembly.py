"""Bytes that another program writes into a partial file never become a blob."""

from __future__ import annotations

import os

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine.assembly import Assembly
from modeld.download.partials.shared_state import Hashed
from modelwire.errors import Corrupt
from rigs.chaos_server import Chaos
from rigs.download_rig import SIZE, content_of, digest_of, quick

CONTENT = content_of()
DIGEST = digest_of(CONTENT)


@pytest.mark.parametrize("times", [1, 99])
def test_bytes_that_another_program_writes_into_a_download_are_never_given_out(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The hash saw the bytes that arrived, in memory. It is begun anew, and in the end the pull says what is wrong."""
    rig, struck, wait = make_rig(quick(1)), 0, Assembly.wait_hashed

    def spoil(assembly: Assembly) -> Hashed | None:
        nonlocal struck
        hashed = wait(assembly)
        if hashed is not None and struck < times:
            struck += 1
            with open(assembly.partial.path, "r+b") as file:
                file.seek(SIZE // 2)
                file.write(b"FOREIGN!")
            os.utime(assembly.partial.path, ns=(struck, struck))
        return hashed

    monkeypatch.setattr(Assembly, "wait_hashed", spoil)
    with Chaos(CONTENT) as chaos:
        if times == 1:
            blob, _ = rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
            with open(blob.path, "rb") as file:
                assert file.read() == CONTENT
        else:
            with pytest.raises(Corrupt, match="another program wrote to"):
                rig.fetch(rig.info(chaos.url, CONTENT))
            assert not os.path.exists(rig.layout.blob(DIGEST))
    assert "transfer.restarted" in rig.kinds()


def test_times_that_change_by_themselves_cost_a_look_at_the_bytes(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, wait = make_rig(quick(1)), Assembly.wait_hashed

    def settle(assembly: Assembly) -> Hashed | None:
        hashed = wait(assembly)
        os.utime(assembly.partial.path, ns=(5, 5))
        return hashed

    monkeypatch.setattr(Assembly, "wait_hashed", settle)
    with Chaos(CONTENT) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert "transfer.restarted" not in rig.kinds()
