"""A hostile network: whatever it does, there are the right bytes or a typed error, never wrong ones."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import replace
from typing import get_args

import pytest

from daemon.conftest import MakeRig
from modeld.progress import Stopped
from modelwire.errors import (
    DigestMismatch,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnavailable,
    TimedOut,
    WireError,
)
from rigs.chaos_server import Chaos, Fault, Kind
from rigs.download_rig import QUICK, SIZE, Elsewhere, content_of, digest_of, quick
from rigs.rough_peers import scaled
from rigs.watcher import Watcher

CONTENT = content_of()
DIGEST = digest_of(CONTENT)


@pytest.mark.parametrize("kind", ["changed_etag", "changed_content"])
@pytest.mark.parametrize("connections", [1, 8])
def test_without_a_digest_two_versions_are_never_mixed(make_rig: MakeRig, kind: Kind, connections: int) -> None:
    rig = make_rig(quick(connections))
    with Chaos(CONTENT, Fault(kind, 0.5)) as chaos:
        file = replace(rig.info(chaos.url), size=SIZE, validator='"one"')
        fetched = rig.fetch(file)
        assert fetched.digest == digest_of(chaos.content)
        rig.commit(fetched)
    assert "transfer.restarted" in rig.kinds()


def test_a_file_that_keeps_changing_is_given_up(make_rig: MakeRig) -> None:
    rig = make_rig()

    class Restless(Chaos):
        def _send_file(self, sock, request):  # type: ignore[no-untyped-def]
            self.etag = f'"{len(self.requests)}"'
            return super()._send_file(sock, request)

    with Restless(CONTENT) as chaos:
        with pytest.raises(SourceUnavailable, match="keeps changing"):
            rig.fetch(replace(rig.info(chaos.url), size=SIZE, validator='"0"'))
    assert rig.kinds().count("transfer.restarted") == 3


def test_bytes_of_two_versions_that_do_not_fit_are_fetched_once_more(make_rig: MakeRig) -> None:
    rig = make_rig(quick(1))
    wrong = bytes(byte ^ 0xFF for byte in CONTENT[: SIZE // 2]) + CONTENT[SIZE // 2 :]
    with Chaos(wrong) as chaos:

        class Mended(Chaos):
            """Says that it is another version from the middle on, and is."""

            def _send_file(self, sock, request):  # type: ignore[no-untyped-def]
                if self.sent > SIZE // 2:
                    self.etag, self.content = '"good"', CONTENT
                return super()._send_file(sock, request)

        with Mended(wrong) as mended:
            fetched = rig.fetch(rig.info(mended.url, CONTENT))
            rig.commit(fetched)
            assert fetched.digest == DIGEST
        assert chaos.sent == 0
    assert "source.changed" in rig.kinds()
    assert "transfer.restarted" in rig.kinds()
    assert "source.condemned" not in rig.kinds()


def test_wrong_bytes_are_set_aside_and_the_source_condemned(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("wrong_bytes", 0.5)) as chaos:
        file = replace(rig.info(chaos.url, CONTENT), validator='"one"')
        with pytest.raises(DigestMismatch) as caught:
            rig.fetch(file)
        details = caught.value.details
        assert details["expected_sha256"] == DIGEST.hex
        assert details["actual_sha256"] != DIGEST.hex
        assert os.path.getsize(details["quarantine_path"]) == SIZE
        sent = chaos.sent
        with pytest.raises(DigestMismatch, match="gave wrong bytes"):
            rig.fetch(file)
        assert chaos.sent == sent, "it is not asked again while it has that version"
        chaos.etag = '"two"'
        rig.commit(rig.fetch(replace(file, validator='"two"')))
    assert os.path.exists(rig.layout.blob(DIGEST))
    assert rig.transfer.condemned._by_key == {}


def test_a_condemned_source_is_replaced_by_the_next(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("wrong_bytes", 0.5)) as bad, Chaos(CONTENT) as good:
        sources = [Elsewhere(rig.client, "mirror", f"{bad.url}/m"), Elsewhere(rig.client, "origin", f"{good.url}/m")]
        fetched = rig.fetch(rig.info(good.url, CONTENT), sources=sources)
        rig.commit(fetched)
    assert fetched.served == {f"origin at {good.url}": SIZE}
    assert [each.source for each in rig.transfer.condemned._by_key.values()] == [f"mirror at {bad.url}"]


def test_failover_keeps_the_bytes_that_are_here(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("status", 0.5, times=1_000_000, status=404)) as first, Chaos(CONTENT) as second:
        sources = [
            Elsewhere(rig.client, "mirror", f"{first.url}/m"),
            Elsewhere(rig.client, "origin", f"{second.url}/m"),
        ]
        fetched = rig.fetch(rig.info(second.url, CONTENT), sources=sources)
        rig.commit(fetched)
        # What the first was sending when it was given up was asked for again, and nothing else.
        assert SIZE <= first.sent + second.sent <= SIZE + 2 * QUICK.segment_bytes
    assert set(fetched.served) == {f"mirror at {first.url}", f"origin at {second.url}"}
    assert "source.failed" in rig.kinds()


def test_failover_without_a_digest_begins_anew(make_rig: MakeRig) -> None:
    rig = make_rig()
    other = content_of(seed=2)
    with Chaos(CONTENT, Fault("status", 0.5, times=1_000_000, status=404)) as first, Chaos(other) as second:
        sources = [
            Elsewhere(rig.client, "mirror", f"{first.url}/m"),
            Elsewhere(rig.client, "origin", f"{second.url}/m"),
        ]
        fetched = rig.fetch(replace(rig.info(second.url), size=SIZE, validator=first.etag), sources=sources)
        rig.commit(fetched)
    assert fetched.digest == digest_of(other)
    assert fetched.served == {f"origin at {second.url}": SIZE}


def test_a_source_with_another_digest_or_size_is_passed_over(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(content_of(seed=3)) as stranger, Chaos(CONTENT) as good:
        sources = [
            Elsewhere(rig.client, "mirror", f"{stranger.url}/m", digest=digest_of(stranger.content)),
            Elsewhere(rig.client, "origin", f"{good.url}/m"),
        ]
        rig.commit(rig.fetch(rig.info(good.url, CONTENT), sources=sources, expected=DIGEST))
        assert stranger.requests == []
    assert "source.skipped" in rig.kinds()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, SourceUnauthorized),
        (403, SourceUnauthorized),
        (404, SourceNotFound),
        (410, SourceNotFound),
        (416, SourceUnavailable),
        (418, SourceUnavailable),
        (429, SourceUnavailable),
        (500, SourceUnavailable),
        (503, SourceUnavailable),
        (408, TimedOut),
    ],
)
def test_each_status_is_an_error_with_a_cause(make_rig: MakeRig, status: int, error: type[WireError]) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("status", times=1_000_000, status=status)) as chaos:
        with pytest.raises(error, match=f"answers {status}") as caught:
            rig.fetch(rig.info(chaos.url, CONTENT))
    assert caught.value.hint or status == 408
    assert rig.only_partial()


def test_retry_after_is_obeyed(make_rig: MakeRig) -> None:
    rig = make_rig(quick(8))
    busy = Fault("status", 0.25, status=429, headers={"Retry-After": "1"})
    with Chaos(CONTENT, busy) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    waits = [event.delay_s for event in rig.events if event.kind == "transfer.retry"]
    assert max(waits) >= 1


def test_a_source_that_wants_us_to_wait_for_hours_is_given_up(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("status", status=503, headers={"Retry-After": "7200"})) as chaos:
        with pytest.raises(SourceUnavailable) as caught:
            rig.fetch(rig.info(chaos.url, CONTENT))
    assert caught.value.retry_after_ms == 7_200_000


@pytest.mark.parametrize(("kind", "says"), [("page", "web page"), ("pointer", "Git LFS pointer")])
def test_what_is_no_file_is_recognised(make_rig: MakeRig, kind: Kind, says: str) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault(kind, times=1_000_000)) as chaos:
        with pytest.raises(SourceUnavailable, match=says) as caught:
            rig.fetch(rig.info(chaos.url))
    assert not caught.value.retryable
    assert rig.leftovers() == []


def test_no_bytes_at_all_is_an_error(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(b"") as chaos:
        with pytest.raises(SourceUnavailable, match="no bytes"):
            rig.fetch(rig.info(chaos.url))


def test_an_empty_file_that_is_meant_to_be_empty(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(b"") as chaos:
        blob, _ = rig.commit(rig.fetch(rig.info(chaos.url, b"")))
    assert blob.size == 0


@pytest.mark.parametrize("faults", [[], [Fault("chunked", times=99)], [Fault("ignored_range", times=99)]])
def test_a_file_of_which_nothing_is_known(make_rig: MakeRig, faults: list[Fault]) -> None:
    rig = make_rig()
    with Chaos(CONTENT, *[replace(fault) for fault in faults]) as chaos:
        watcher = Watcher()
        fetched = rig.fetch(rig.info(chaos.url), watcher=watcher)
        rig.commit(fetched)
    assert fetched.digest == DIGEST
    assert watcher.totals[-1] == SIZE


def test_an_end_that_could_be_a_broken_connection_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("no_length", times=99), ranges=False) as chaos:
        with pytest.raises(SourceUnavailable, match="how long the file is"):
            rig.fetch(rig.info(chaos.url))


def test_two_fetches_of_one_digest_do_not_write_into_one_file(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        file = rig.info(chaos.url, CONTENT)
        first = rig.fetch(file)
        second = rig.fetch(file)
        assert first.path != second.path
        assert rig.commit(first)[1] is False
        assert rig.commit(second)[1] is True
    assert rig.leftovers() == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(scaled(150, 40)))
def test_any_mixture_of_faults(make_rig: MakeRig, seed: int) -> None:
    """Stopped and resumed in between, with and without a digest: the right bytes or a typed error."""
    chosen = random.Random(seed)
    rig = make_rig(quick(chosen.choice([1, 2, 8, 16])))
    kinds: list[Kind] = [kind for kind in get_args(Kind) if kind not in ("page", "pointer", "changed_content")]
    known = chosen.random() < 0.7
    if not known:
        kinds.remove("wrong_bytes")  # without a digest nobody can tell
    faults = [
        Fault(chosen.choice(kinds), chosen.random(), times=chosen.choice([1, 1, 1, 3]))
        for _ in range(chosen.randrange(1, 7))
    ]
    with Chaos(CONTENT, *faults, rate=chosen.choice([None, 4 << 20])) as chaos:
        file = rig.info(chaos.url, CONTENT)
        if not known:
            file = replace(file, digest=None, validator='"one"')
        for _ in range(6):
            stop = chosen.choice([None, SIZE // 3, SIZE - 1])
            with contextlib.suppress(Stopped, WireError):
                fetched = rig.fetch(file, watcher=Watcher(stop_after=stop))
                rig.commit(fetched)
                assert fetched.digest == DIGEST
                break
    if os.path.exists(rig.layout.blob(DIGEST)):
        with open(rig.layout.blob(DIGEST), "rb") as blob:
            assert blob.read() == CONTENT
        assert [path for path in rig.leftovers() if "/quarantine/" not in path and "/partials/" not in path] == []
    assert rig.space.promised == 0
