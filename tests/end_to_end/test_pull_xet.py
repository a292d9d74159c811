"""Pulling from xet storage through a real daemon: whose bytes, whose memory, and whose end is whose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.pull_rig import MIB, begun, ctl, everything_kept, gguf, hex_of, job_state, partials, pulled
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply
from rigs.waiting import wait_until
from rigs.xet_rig import ACCESS, PATH, TOKEN, Xet, alive, children, fake_hf_xet, xet_hub
from rigs.xet_server import Gate

CONTENT = gguf(48 * MIB + 99, 21)
HELD = 28 * MIB
"""Far enough for the journal to know of some: a connection never has more than 16 MiB that it does not."""

REF = f"hf:org/repo/{PATH}"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xet]:
    with xet_hub(tmp_path_factory.mktemp("xet"), CONTENT) as made:
        yield made


@pytest.fixture
def xet(stored: Xet) -> Iterator[Xet]:
    yield stored
    stored.storage.answer = stored.storage.honest
    for asked in (stored.storage.server.asked, stored.hub.server.asked, stored.hub.cdn.asked):
        asked.clear()


@pytest.fixture
def hubbed(stopped: RealDaemon, xet: Xet) -> RealDaemon:
    stopped.environ |= {"HF_ENDPOINT": xet.hub.url, "HF_TOKEN": TOKEN}
    return stopped


def held_at(xet: Xet, offset: int) -> Gate:
    """What is asked for from there on waits for the gate; all before it is given."""
    gate = Gate()

    def answer(asked: Asked) -> Reply:
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", asked.headers.get("Range", ""))
        if "/reconstructions/" in asked.path and wanted is not None and int(wanted[1]) >= offset:
            gate.hold()
        return xet.storage.honest(asked)

    xet.storage.answer = answer
    return gate


def peak(pid: int) -> int:
    """Bytes of memory that a process has had in use at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def assert_whole(daemon: RealDaemon) -> None:
    value = daemon.ask("model.resolve", name="model")["value"]
    assert Path(value["path"]).read_bytes() == CONTENT


def test_it_is_told_that_xet_gave_the_bytes_and_the_tokens_are_not(hubbed: RealDaemon, xet: Xet) -> None:
    hubbed.start()
    with hubbed.connect() as wire:
        number = wire.request("model.pull", ref=REF)
        seen = []
        while (reply := wire.read())["type"] != "result":
            seen.append(reply)
    value = reply["value"]
    assert reply["id"] == number
    assert Path(value["path"]).read_bytes() == CONTENT
    assert value["blob"] == f"sha256:{hex_of(CONTENT)}"
    assert value["served"] == {xet.by_xet: len(CONTENT)}
    assert (seen[-1]["bytes_done"], seen[-1]["source"]) == (len(CONTENT), xet.by_xet)
    assert xet.hub.cdn.asked == []
    job = next(each["job"] for each in seen if each.get("job"))
    assert xet.by_xet in ctl(hubbed, "job", job).stdout
    (arrived,) = hubbed.ask("model.show", name="model")["value"]["history"]
    assert (arrived["outcome"], arrived["served"]) == ("added", {xet.by_xet: len(CONTENT)})
    assert f"by {xet.by_xet}" in ctl(hubbed, "show", "model").stdout
    told = repr([hubbed.ask("job.list"), hubbed.ask("daemon.status"), hubbed.ask("model.show", name="model")])
    for secret in (TOKEN, ACCESS, "signed-by-the-store"):
        assert secret not in told
        assert secret.encode() not in everything_kept(hubbed.room)
    assert partials(hubbed) == []


def test_what_hf_xet_needs_is_the_childs(
    hubbed: RealDaemon, xet: Xet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = RealDaemon(str(tmp_path_factory.mktemp("r")), {"HF_ENDPOINT": xet.hub.url, "HF_HUB_DISABLE_XET": "1"})
    try:
        other.start()
        assert pulled(other, REF)["served"] == {xet.by_http: len(CONTENT)}
        by_http = peak(other.pid)
    finally:
        other.close()
    hubbed.start()
    gate = held_at(xet, HELD)
    with hubbed.connect() as wire:
        number = wire.request("model.pull", ref=REF)
        assert gate.reached.wait(30)
        (child,) = children(hubbed.pid)
        wait_until(lambda: peak(child) > 32 * MIB, what="the bytes that wait in the child")
        gate.opened.set()
        assert wire.terminal(number)["value"]["served"] == {xet.by_xet: len(CONTENT)}
    assert "hf_xet" not in Path(f"/proc/{hubbed.pid}/maps").read_text()
    assert peak(hubbed.pid) < by_http + 8 * MIB


@pytest.mark.parametrize("how", ["pause", "cancel", "drain", "kill"])
def test_the_child_ends_with_what_wanted_it(hubbed: RealDaemon, xet: Xet, how: str) -> None:
    hubbed.start()
    gate = held_at(xet, HELD)
    with hubbed.connect() as wire:
        number = wire.request("model.pull", ref=REF, on_disconnect="continue")
        job = begun(wire, number, HELD)
        (child,) = children(hubbed.pid)
        if how == "kill":
            hubbed.kill()
        elif how == "drain":
            hubbed.ask("daemon.drain", deadline_s=0)
            assert hubbed.wait() == 0
        else:
            hubbed.ask(f"job.{how}", job=job)
    wait_until(lambda: not alive(child), what="the child's end")
    gate.opened.set()
    if how in ("pause", "cancel"):
        wait_until(lambda: not Path(f"/proc/{child}").exists(), what="the child being reaped")
    if how == "pause":
        hubbed.ask("job.resume", job=job)
    elif how == "cancel":
        assert pulled(hubbed, REF)["served"] == {xet.by_xet: len(CONTENT)}
        return
    else:
        hubbed.start()
    shown = job_state(hubbed, job, "done", "failed")
    assert shown["state"] == "done", shown
    assert shown["value"]["served"] == {xet.by_xet: len(CONTENT)}
    assert_whole(hubbed)
    assert [event for event in hubbed.activity() if event["event"] == "transfer.resumed"]
    assert partials(hubbed) == []


def test_a_child_that_cannot_listen_is_ended_by_the_kernel(hubbed: RealDaemon, tmp_path: Path) -> None:
    """hf-xet holds the interpreter, so that nothing in the child sees that the daemon is gone."""
    asked = tmp_path / "asked"
    doing = f"import ctypes; open({str(asked)!r}, 'w'); ctypes.PyDLL(None).sleep(600)"
    hubbed.environ["PYTHONPATH"] = fake_hf_xet(tmp_path / "fake", doing)
    hubbed.start()
    with hubbed.connect() as wire:
        wire.request("model.pull", ref=REF, on_disconnect="continue")
        wait_until(asked.exists, what="hf-xet being asked")
        (child,) = children(hubbed.pid)
        hubbed.kill()
    wait_until(lambda: not alive(child), what="the child's end")


def test_an_hf_xet_that_is_too_old_is_left_alone(hubbed: RealDaemon, xet: Xet, tmp_path: Path) -> None:
    old = tmp_path / "hf_xet-1.4.3.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: hf-xet\nVersion: 1.4.3\n")
    hubbed.environ["PYTHONPATH"] = str(tmp_path)
    hubbed.start()
    assert pulled(hubbed, REF)["served"] == {xet.by_http: len(CONTENT)}
    assert xet.storage.server.asked == []
