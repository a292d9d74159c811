"""Files in xet storage, by the real hf-xet in its child: what is fetched, and what becomes of each fault."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine.assembly import Fetched
from modeld.download.engine.downloads import Transfer
from modeld.download.routes.router import Route
from modeld.progress import Stopped
from modeld.sources.parse import parse
from modeld.sources.sources import Sources
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modelwire.errors import NoSpace, SourceUnauthorized, SourceUnavailable
from rigs.described_bytes import OWN_USER
from rigs.download_rig import QUICK, Rig
from rigs.publication_rig import commit
from rigs.scripted_server import Asked, Reply
from rigs.waiting import wait_until
from rigs.watcher import Watcher
from rigs.xet_rig import ACCESS, PATH, TOKEN, Xet, children, fake_hf_xet, shown_of, xet_hub
from rigs.xet_server import Gate

MIB = 1 << 20
SIZE = 12 * MIB + 4321
"""More than the parts that a child begins with."""

PATIENT = replace(QUICK, stall_seconds=20, breaker_seconds=30)
"""A child needs half a second to begin, and longer on a machine that is busy."""


@pytest.fixture(scope="module")
def xet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xet]:
    content = random.Random(1).randbytes(SIZE)
    with xet_hub(tmp_path_factory.mktemp("xet"), content) as made:
        yield made


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """The hub is shared: putting bytes into xet storage takes a second. And no child is left behind."""
    yield
    if "xet" in request.fixturenames:
        shared: Xet = request.getfixturevalue("xet")
        shared.storage.answer = shared.storage.honest
        shared.hub.access = {"casUrl": shared.storage.url, "accessToken": ACCESS, "exp": 4102444800}
        for asked in (shared.storage.server.asked, shared.hub.server.asked, shared.hub.cdn.asked):
            asked.clear()
    wait_until(lambda: not children(), what="the end of every child")


def fetched(rig: Rig, xet: Xet, watcher: Watcher | None = None, **environ: str) -> Fetched:
    reference = parse("hf:org/repo", environ={"HF_ENDPOINT": xet.hub.url})
    source = Sources(rig.client, xet.environ | environ).source(reference, OWN_USER)
    described = rig.transfer.router.describe(Route(reference, [source]), on_event=rig.events.append)
    (file,) = described.description.files
    (progress,) = (watcher or Watcher()).files([file.size])
    return rig.transfer.fetch_file(described, file, progress=progress, on_event=rig.events.append)


def content_of(found: Fetched) -> bytes:
    blob, _ = commit(Layout(found.path.partition("/.modeld/")[0]), found)
    with open(blob.path, "rb") as file:
        return file.read()


# -- what is fetched


def test_the_child_gives_the_bytes_and_the_hub_is_asked_for_none(make_rig: MakeRig, xet: Xet) -> None:
    watcher = Watcher()
    found = fetched(make_rig(PATIENT), xet, watcher)
    assert content_of(found) == xet.content
    assert found.served == {xet.by_xet: SIZE}
    assert (watcher.done, watcher.verified) == (SIZE, SIZE)
    assert xet.hub.cdn.asked == []
    assert not [asked for asked in xet.hub.server.asked if "/resolve/" in asked.path]
    assert len([asked for asked in xet.hub.server.asked if "/xet-read-token/" in asked.path]) == 1, "one child"


def test_the_users_token_goes_to_the_hub_alone(make_rig: MakeRig, xet: Xet) -> None:
    content_of(fetched(make_rig(PATIENT), xet))
    assert xet.hub.server.sent_with(TOKEN)
    assert not xet.storage.server.sent_with(TOKEN)
    assert xet.storage.server.sent_with(ACCESS)
    assert not [asked for asked in xet.storage.server.asked if "telemetry" in asked.path]


@pytest.mark.parametrize("places", [(0, 1), (1, 70_000), (MIB - 1, 5 * MIB + 1), (SIZE - 1, SIZE), (9, None)])
def test_any_range_is_that_of_the_file(make_rig: MakeRig, xet: Xet, places: tuple[int, int | None]) -> None:
    start, end = places
    rig = make_rig(PATIENT)
    reference = parse("hf:org/repo", environ={"HF_ENDPOINT": xet.hub.url})
    opener, file = Sources(rig.client, xet.environ).source(reference, OWN_USER).describe(reference).preferred[PATH]
    body = opener.open(file, start, end, file.validator)
    found, buffer = bytearray(), memoryview(bytearray(100_000))
    try:
        assert (body.start, body.total, body.partial) == (start, SIZE, True)
        while got := body.readinto(buffer):
            found += buffer[:got]
    finally:
        body.close()
        body.close()
    assert found == xet.content[start:end]


def test_what_is_here_already_is_not_fetched_again(make_rig: MakeRig, xet: Xet) -> None:
    rig = make_rig(PATIENT)
    with pytest.raises(Stopped):
        fetched(rig, xet, Watcher(stop_after=5 * MIB))
    assert not children(), "who stops ends the child"
    xet.storage.server.asked.clear()
    watcher = Watcher()
    assert content_of(fetched(rig, xet, watcher)) == xet.content
    assert "transfer.resumed" in rig.kinds()
    assert watcher.reused >= 4 * MIB
    first = next(asked for asked in xet.storage.server.asked if "/reconstructions/" in asked.path)
    assert not first.headers["Range"].startswith("bytes=0-")


# -- what is seen of it


def test_neither_token_can_be_read_from_outside(make_rig: MakeRig, xet: Xet) -> None:
    gate = Gate()

    def held(asked: Asked) -> Reply:
        gate.hold()
        return xet.storage.honest(asked)

    xet.storage.answer = held
    rig, seen = make_rig(PATIENT), []
    thread = threading.Thread(target=lambda: seen.append(fetched(rig, xet, https_proxy="http://me:pass@192.0.2.1:1")))
    thread.start()
    assert gate.reached.wait(20)
    (child,) = children()
    shown = shown_of(child)
    gate.opened.set()
    thread.join(30)
    assert "modeld.download.xet.child" in shown
    for secret in (TOKEN, ACCESS, "pass"):
        assert secret not in shown
    assert content_of(seen[0]) == xet.content


# -- faults, and the other way


def fails_after(xet: Xet, good: int, reply: Reply) -> Callable[[Asked], Reply]:
    """Only so many answers with bytes."""
    lock, given = threading.Lock(), [0]

    def answer(asked: Asked) -> Reply:
        if "/xorb/" in asked.path:
            with lock:
                given[0] += 1
                if given[0] > good:
                    return reply
        return xet.storage.honest(asked)

    return answer


@pytest.mark.parametrize("status", [404, 403, 500])
def test_when_the_storage_fails_http_goes_on_with_what_is_here(make_rig: MakeRig, xet: Xet, status: int) -> None:
    xet.storage.answer = fails_after(xet, 3, Reply(status))
    rig = make_rig(PATIENT)
    found = fetched(rig, xet)
    assert content_of(found) == xet.content
    assert sum(found.served.values()) == SIZE
    assert set(found.served) >= {xet.by_http}
    assert "source.failed" in rig.kinds()
    assert "source.condemned" not in rig.kinds()


@pytest.mark.parametrize(
    "access",
    [
        {},
        {"casUrl": "local:///etc", "accessToken": ACCESS},
        {"casUrl": "http://192.0.2.1", "accessToken": ACCESS},
        {"casUrl": 7},
    ],
)
def test_a_hub_that_gives_no_access_gives_the_file(make_rig: MakeRig, xet: Xet, access: dict[str, Any]) -> None:
    xet.hub.access = access
    rig = make_rig(PATIENT)
    found = fetched(rig, xet)
    assert content_of(found) == xet.content
    assert found.served == {xet.by_http: SIZE}
    assert rig.kinds() == ["source.failed"]
    assert xet.storage.server.asked == []


def test_access_that_is_refused_leads_to_http(make_rig: MakeRig, xet: Xet) -> None:
    xet.hub.access = xet.hub.access | {"accessToken": "xet-another"}
    rig = make_rig(PATIENT)
    found = fetched(rig, xet)
    assert content_of(found) == xet.content
    assert found.served == {xet.by_http: SIZE}
    assert ACCESS not in repr(rig.events)


def test_a_token_that_the_hub_refuses_is_what_is_told(make_rig: MakeRig, xet: Xet) -> None:
    with pytest.raises(SourceUnauthorized) as caught:
        fetched(make_rig(PATIENT), xet, HF_TOKEN="hf_withdrawn")
    assert "HF_TOKEN" in (caught.value.hint or "")


def test_wrong_bytes_are_condemned_and_never_published(make_rig: MakeRig, tmp_path: Path) -> None:
    content, other = random.Random(2).randbytes(MIB), random.Random(3).randbytes(MIB)
    with xet_hub(tmp_path, content, hashed=other) as wrong:
        rig = make_rig(PATIENT)
        found = fetched(rig, wrong)
        assert content_of(found) == content
        assert found.served == {wrong.by_http: MIB}
        assert "source.condemned" in rig.kinds()


def test_a_child_that_is_killed_is_followed_by_another(make_rig: MakeRig, xet: Xet) -> None:
    killed: list[int] = []

    def answer(asked: Asked) -> Reply:
        if not killed and "/xorb/" in asked.path:
            killed.extend(children())
            os.kill(killed[0], signal.SIGKILL)
        return xet.storage.honest(asked)

    xet.storage.answer = answer
    rig = make_rig(PATIENT)
    found = fetched(rig, xet)
    assert content_of(found) == xet.content
    assert found.served == {xet.by_xet: SIZE}
    (retry,) = [event for event in rig.events if event.kind == "transfer.retry"]
    assert "signal 9" in retry.reason


@pytest.mark.parametrize(
    ("doing", "said"),
    [
        ("time.sleep(600)", "sent nothing within"),
        ("return [b'x' * (end - start + 1)]", "more bytes than were asked for"),
        ("return [b'']", "still to come"),
        ("raise RuntimeError(f'no {os.environ} http://a/?signature=abc')", "could not read"),
        ("raise ImportError('no such symbol')", "cannot be used"),
        ("os._exit(3)", "ended with 3"),
    ],
)
def test_whatever_hf_xet_does_the_file_comes(
    make_rig: MakeRig, xet: Xet, tmp_path: Path, doing: str, said: str
) -> None:
    stall = 0.4 if "sleep" in doing else 20
    rig = make_rig(replace(PATIENT, stall_seconds=stall))
    found = fetched(rig, xet, PYTHONPATH=fake_hf_xet(tmp_path / "fake", doing))
    assert content_of(found) == xet.content
    assert found.served == {xet.by_http: SIZE}
    told = " ".join(event.reason for event in rig.events)
    assert said in told
    assert "transfer.waiting" not in rig.kinds(), "that this way fails is not held against the hub"
    assert xet.hub.url not in rig.transfer.breakers.troubles()
    assert "signature" not in told


def test_cancelled_while_the_child_hangs_it_is_ended_at_once(make_rig: MakeRig, xet: Xet, tmp_path: Path) -> None:
    rig = make_rig(replace(PATIENT, stall_seconds=600))
    watcher, fake = Watcher(), fake_hf_xet(tmp_path / "fake", "time.sleep(600)")
    ends: list[BaseException] = []

    def run() -> None:
        try:
            fetched(rig, xet, watcher, PYTHONPATH=fake)
        except Stopped as end:
            ends.append(end)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(children, what="the child")
    watcher._stop_after = 0
    thread.join(20)
    assert ends
    # One that was being started at that moment ends as soon as it has been.
    wait_until(lambda: not children(), what="the child's end")


def test_a_full_disk_ends_the_child_and_is_told_as_what_it_is(
    make_rig: MakeRig, xet: Xet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.write_at

    def full(descriptor: int, chunk: Any, offset: int, *flags: int) -> None:
        if offset >= 4 * MIB:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, chunk, offset, *flags)

    rig = make_rig(PATIENT)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_at", full)
        with pytest.raises(NoSpace):
            fetched(rig, xet)
    assert not children()
    assert content_of(fetched(rig, xet)) == xet.content


def test_without_room_no_child_is_started(make_rig: MakeRig, xet: Xet) -> None:
    rig = make_rig(PATIENT)
    rig.transfer = Transfer(rig.layout, Space(lambda: MIB), tuning=PATIENT)
    with pytest.raises(NoSpace):
        fetched(rig, xet)
    assert not [asked for asked in xet.hub.server.asked if "/xet-read-token/" in asked.path]


# -- whether it is used


def test_it_can_be_switched_off(make_rig: MakeRig, xet: Xet) -> None:
    found = fetched(make_rig(PATIENT), xet, HF_HUB_DISABLE_XET="1")
    assert content_of(found) == xet.content
    assert found.served == {xet.by_http: SIZE}


@pytest.mark.parametrize("version", [None, "1.4.3", "2.0.0", "odd"])
def test_without_a_version_that_fits_http_is_used_and_advice_given(
    make_rig: MakeRig, xet: Xet, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    def told(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", told)
    found = fetched(make_rig(PATIENT), xet)
    assert content_of(found) == xet.content
    assert found.served == {xet.by_http: SIZE}
    xet.repo.tampered[PATH] = b""
    monkeypatch.setattr(xet.hub.cdn, "route", lambda asked: Reply(403))
    try:
        with pytest.raises((SourceUnauthorized, SourceUnavailable)) as caught:
            fetched(make_rig(PATIENT, root="other"), xet)
    finally:
        xet.repo.tampered.clear()
    assert "pip install 'modeld[xet]'" in (caught.value.hint or "")
