"""What one user leaves unfinished takes at most its share of the space: others find room for theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.chaos_server import Chaos
from rigs.hub_server import Hub, Repo
from rigs.other_user import ctl_as, file_of, home_of
from rigs.pull_rig import MIB, begun, gguf, hex_of, make_old, partials
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, incidents, needs_root
from rigs.waiting import wait_until

pytestmark = needs_root

DISK = 80 * MIB
ADMIN_UID = FOREIGN_UID + 1
OTHER_UID = FOREIGN_UID + 2
CONTENT = gguf(24 * MIB, 161)


@pytest.fixture
def small(shared: RealDaemon) -> Iterator[RealDaemon]:
    """A daemon whose store lies on a small disk of its own."""
    disk = os.path.join(shared.room, "disk")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
    users = f'"{FOREIGN_UID}" = "write", "{OTHER_UID}" = "write", "{ADMIN_UID}" = "admin"'
    shared.configure(f'{ALLOW_ROOT}[access]\nnetworks = ["127.0.0.0/8"]\nusers = {{ {users} }}\n')
    shared.root = os.path.join(disk, "models")
    shared.environ |= {"MODELS_HOME": shared.root, "MODELD_STORE_MIN_FREE": "0", "MODELD_STORE_SWEEP": "off"}
    try:
        yield shared.start()
        assert not incidents(shared)
    finally:
        shared.close()
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def web() -> Iterator[Chaos]:
    with Chaos(CONTENT) as server:
        yield server


def pull(daemon: RealDaemon, uid: int, ref: str, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        return wire.ask("model.pull", ref=ref, **fields)


def leave_partial(daemon: RealDaemon, uid: int, slow: Chaos, at_least: int) -> None:
    """A download that its user cancels."""
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        number = wire.request("model.pull", ref=f"{slow.url}/left.gguf")
        begun(wire, number, at_least)
        wire.request("cancel", target=number, id="c")
        assert wire.terminal(number)["code"] == "cancelled"


def test_a_user_gets_at_most_half_of_what_is_free_and_an_admin_all(small: RealDaemon) -> None:
    with Chaos(gguf(44 * MIB, 163)) as web:
        refused = pull(small, FOREIGN_UID, f"{web.url}/a.gguf")
        assert refused["code"] == "quota_exceeded"
        details = refused["details"]
        assert (details["needed_bytes"], details["uid"]) == (44 * MIB, FOREIGN_UID)
        assert details["promised_bytes"] == details["left_bytes"] == 0
        assert DISK // 2 - 4 * MIB < details["limit_bytes"] <= DISK // 2
        assert {request.method for request in web.requests} == {"HEAD"}, "before the first byte"
        assert pull(small, ADMIN_UID, f"{web.url}/b.gguf")["type"] == "result"


def test_what_a_download_left_counts_until_it_is_swept_also_after_a_restart(small: RealDaemon) -> None:
    with Chaos(gguf(18 * MIB, 162), rate=MIB) as slow:
        leave_partial(small, FOREIGN_UID, slow, 14 * MIB)
    with Chaos(gguf(27 * MIB, 163)) as web:
        refused = pull(small, FOREIGN_UID, f"{web.url}/a.gguf")
        assert refused["code"] == "quota_exceeded"
        assert refused["details"]["left_bytes"] >= 14 * MIB
        small.terminate()
        small.start()
        assert pull(small, FOREIGN_UID, f"{web.url}/a.gguf")["code"] == "quota_exceeded"
        assert pull(small, OTHER_UID, f"{web.url}/b.gguf")["type"] == "result"
        assert small.ask("model.remove", name="b", now=True)["type"] == "result"
        make_old(partials(small))
        small.ask("store.sweep", grace_s=0)
        assert partials(small) == []
        assert pull(small, FOREIGN_UID, f"{web.url}/a.gguf")["type"] == "result"


def test_the_rest_of_a_left_download_needs_no_second_share(small: RealDaemon) -> None:
    with Chaos(gguf(36 * MIB, 164), rate=2 * MIB) as slow:
        leave_partial(small, FOREIGN_UID, slow, 14 * MIB)
        slow.rate = None
        again = pull(small, FOREIGN_UID, f"{slow.url}/left.gguf")
        assert again["type"] == "result", again


@pytest.mark.parametrize("changed", [False, True])
def test_what_a_killed_daemon_had_fetched_counts_once(small: RealDaemon, changed: bool) -> None:
    """Its jobs go on, or begin anew when the source has another version."""
    with Chaos(gguf(36 * MIB, 164), rate=2 * MIB) as slow:
        with connect_as(small.socket, FOREIGN_UID) as wire:
            wire.read()
            number = wire.request("model.pull", ref=f"{slow.url}/left.gguf", on_disconnect="continue")
            job = begun(wire, number, 14 * MIB)
            small.kill()
        if changed:
            slow.etag = '"two"'
        before = len(slow.requests)
        small.start()
        wait_until(lambda: any(each.method == "GET" for each in slow.requests[before:]), what="the job goes on")
        with Chaos(gguf(30 * MIB, 163)) as web:
            refused = pull(small, FOREIGN_UID, f"{web.url}/a.gguf")
        details = refused["details"]
        assert 36 * MIB <= details["promised_bytes"] + details["left_bytes"] <= 36 * MIB + 4096, refused
        slow.rate = None
        with small.connect() as wire:
            assert wire.ask("job.attach", job=job)["type"] == "result"


def test_files_of_a_model_that_never_came_count_until_a_model_has_them(small: RealDaemon) -> None:
    """A pull that is left keeps the files that are whole, and nobody sees a model."""
    files = {"a.gguf": gguf(20 * MIB, 166), "b.gguf": gguf(2 * MIB, 167)}
    with Hub({"org/two": Repo(files, lfs=frozenset(files))}) as hub, Chaos(gguf(44 * MIB, 168)) as web:
        small.terminate()
        small.environ["HF_ENDPOINT"] = hub.url
        small.start()
        with connect_as(small.socket, FOREIGN_UID) as wire:
            wire.read()
            number = wire.request("model.pull", ref="hf:org/two", max_rate=2 * MIB)
            wait_until(lambda: small.ask("store.usage")["value"]["unnamed_bytes"] > 0, what="a whole file")
            wire.request("cancel", target=number, id="c")
            assert wire.terminal(number)["code"] == "cancelled"
        whole = small.ask("store.usage")["value"]["unnamed_bytes"]
        refused = pull(small, FOREIGN_UID, f"{web.url}/a.gguf")
        assert refused["code"] == "quota_exceeded"
        assert refused["details"]["left_bytes"] >= whole
        assert pull(small, FOREIGN_UID, "hf:org/two")["type"] == "result"
        assert pull(small, FOREIGN_UID, f"{web.url}/a.gguf")["details"]["left_bytes"] == 0


def test_bytes_in_quarantine_count_for_whose_pull_or_add_they_were(small: RealDaemon, web: Chaos) -> None:
    wrong = hex_of(b"other bytes")
    assert pull(small, FOREIGN_UID, f"{web.url}/a.gguf", sha256=wrong)["code"] == "digest_mismatch"
    path = file_of(home_of(small, OTHER_UID), "m.gguf", gguf(24 * MIB, 165), OTHER_UID)
    assert ctl_as(small, "add", path, "--sha256", wrong, uid=OTHER_UID).returncode == 6
    for uid in (FOREIGN_UID, OTHER_UID):
        refused = pull(small, uid, f"{web.url}/b.gguf")
        assert (refused["code"], refused["details"]["left_bytes"]) == ("quota_exceeded", 24 * MIB), refused
    for kept in Path(small.root, "locks/quarantine").iterdir():
        kept.unlink()
    assert pull(small, FOREIGN_UID, f"{web.url}/b.gguf")["type"] == "result"
