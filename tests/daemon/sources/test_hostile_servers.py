"""Every way in which a source asks a server, against every way in which a server can mean harm.

Whatever the server does, what is asked ends: within its stated time, with an answer or a typed error, in bounded
memory, and with no thread or connection left. The bytes of a file alone may come as slowly as they like, until the
download is left.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from modeld.download.cancel_scope import CancelScope
from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo, Opener
from modeld.download.tuning import Tuning
from modeld.progress import Stopped
from modeld.sources.credentials.aws import AwsAccount
from modeld.sources.huggingface.source import HuggingFaceSource
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modeld.sources.registries.source import ImageSource
from modeld.sources.s3.source import S3Source
from modeld.sources.web import WebMirror, WebSource
from modeld.store import parts
from modeld.store.digest import Digest
from modelwire.errors import InvalidRequest, SourceUnavailable, TimedOut, WireError
from rigs.hostile_server import FAST, SLOW, Hostile, polite
from rigs.real_s3 import KEY, SECRET
from rigs.registries import descriptor, modelpack
from rigs.scripted_server import Asked
from rigs.waiting import wait_until

TUNING = Tuning(connect_seconds=2, stall_seconds=0.3, head_seconds=0.4, document_seconds=0.4)
DESCRIBE_SECONDS = 0.8
MORE_SECONDS = 5.0
MEMORY = 24 << 20
READ = 1 << 18
"""Of a body. A download reads no more than the size of the file."""

COMMIT = "a" * 40
FILE = FileInfo(path="m.gguf", locator="", size=1 << 40, digest=Digest("0" * 64))
ANSWER = Callable[[Asked], Iterable[bytes] | None]


@dataclass(frozen=True)
class Way:
    """What is asked, and the honest answers on the way there; None is the moment for the harm."""

    ask: Callable[[HttpClient, Hostile], object]
    honest: ANSWER = lambda _asked: None
    reads: bool = False
    """The bytes of a file: they have no deadline but that of who waits for them."""


def hub(http: HttpClient, server: Hostile) -> HuggingFaceSource:
    return HuggingFaceSource(http, server.url)


def hub_until(*, tree: bool = True, gated: bool = False) -> ANSWER:
    def answer(asked: Asked) -> Iterable[bytes] | None:
        if "/revision/" in asked.path:
            return polite(json.dumps({"sha": COMMIT, "gated": gated}).encode())
        if "/tree/" in asked.path and tree:
            return polite(json.dumps([{"type": "file", "path": "m.gguf", "size": 5, "oid": "b" * 40}]).encode())
        return None

    return answer


def described(source: object, reference: Reference) -> object:
    return source.describe(reference)  # type: ignore[attr-defined]


def image(http: HttpClient, server: Hostile) -> object:
    return described(ImageSource(http, environ={"HOME": "/nonexistent"}), parse(f"oci://{server.host}/team/model:v1"))


def wants_token(asked: Asked) -> Iterable[bytes] | None:
    if asked.path.startswith("/token"):
        return None
    realm = f"http://{asked.headers['Host']}/token"
    return polite(b"{}", f'WWW-Authenticate: Bearer realm="{realm}",service="x"\r\n', "401 Unauthorized")


def wants_config(asked: Asked) -> Iterable[bytes] | None:
    weight = descriptor("application/vnd.cncf.model.weight.v1.raw", b"GGUF", "m.gguf")
    return polite(json.dumps(modelpack([weight], b"{}")).encode()) if "/manifests/" in asked.path else None


def bucket(http: HttpClient, server: Hostile, text: str) -> object:
    environ = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return described(S3Source(http, AwsAccount(environ | {"HOME": "/nonexistent"})), parse(text))


def opened(opener: Opener, file: FileInfo, start: int) -> None:
    """Reads as much as a download would, and at most READ."""
    body, left, buffer = opener.open(file, start, None if start == 0 else start + 4, None), READ, bytearray(READ)
    try:
        with CancelScope.current().woken_by(body.abort):
            while left > 0 and (got := body.readinto(memoryview(buffer)[:left])) > 0:
                left -= got
    finally:
        body.close()


def web_file(http: HttpClient, server: Hostile, start: int) -> None:
    opened(WebSource(http, {"HOME": "/nonexistent"}), replace(FILE, locator=f"{server.url}/m.gguf"), start)


def xet(http: HttpClient, server: Hostile) -> None:
    address = f"{server.url}/api/models/org/repo/xet-read-token/{COMMIT}"
    opened(hub(http, server)._xet, replace(FILE, locator=f"{'c' * 64} {address}"), 0)


def no_head(asked: Asked) -> Iterable[bytes] | None:
    return polite(b"", status="405 Method Not Allowed") if asked.method == "HEAD" else None


def can_list(asked: Asked) -> Iterable[bytes] | None:
    return polite(b"<ListBucketResult/>") if "max-keys=0" in asked.query else None


WAYS: dict[str, Way] = {
    "an address": Way(
        lambda http, server: described(WebSource(http, {"HOME": "/none"}), parse(f"{server.url}/m.gguf"))
    ),
    "its first byte": Way(
        lambda http, server: described(WebSource(http, {"HOME": "/none"}), parse(f"{server.url}/m.gguf")), no_head
    ),
    "a mirror": Way(
        lambda http, server: described(
            WebMirror(http, "https://a.example/", f"{server.url}/"), parse("https://a.example/m.gguf")
        )
    ),
    "a commit": Way(lambda http, server: described(hub(http, server), parse("hf:org/repo"))),
    "the files of a commit": Way(
        lambda http, server: described(hub(http, server), parse("hf:org/repo")), hub_until(tree=False)
    ),
    "the access to a file": Way(
        lambda http, server: described(hub(http, server), parse("hf:org/repo")), hub_until(gated=True)
    ),
    "the access to xet": Way(xet),
    "a manifest": Way(image),
    "a token": Way(image, wants_token),
    "a configuration": Way(image, wants_config),
    "an object": Way(lambda http, server: bucket(http, server, "s3://weights/m.gguf")),
    "the place of a bucket": Way(lambda http, server: bucket(http, server, "s3://weights/p/")),
    "the list of a bucket": Way(lambda http, server: bucket(http, server, "s3://weights/p/"), can_list),
    "a whole file": Way(lambda http, server: web_file(http, server, 0), reads=True),
    "a range": Way(lambda http, server: web_file(http, server, 9), reads=True),
}


class Asking(threading.Thread):
    """Asks in one thread, as a pull does, with the deadline of a description."""

    def __init__(self, way: Way, harm: Callable[[Hostile], Iterable[bytes]]) -> None:
        super().__init__(name="asking")
        self._way = way
        self._harm = harm
        self.scope = CancelScope(DESCRIBE_SECONDS)
        self.outcome: BaseException | None = None

    def run(self) -> None:
        def answer(asked: Asked) -> Iterable[bytes]:
            honest = self._way.honest(asked)
            return self._harm(server) if honest is None else honest

        http = HttpClient(environ={}, tuning=TUNING)
        with Hostile(answer) as server:
            try:
                with self.scope:
                    self._way.ask(http, server)
            except BaseException as fault:
                self.outcome = fault
            finally:
                http.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(
        lambda: not [each for each in set(threading.enumerate()) - before if each.name != "hostile"], 5, "its end"
    )


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def ended(asking: Asking, way: str, what: str) -> None:
    asking.join(DESCRIBE_SECONDS)
    if WAYS[way].reads:
        asking.scope.cancel()
    asking.join(MORE_SECONDS)
    assert not asking.is_alive(), f"{what}: it goes on"
    fault = asking.outcome
    assert fault is None or isinstance(fault, WireError | Stopped), f"{what}: {fault!r}"
    assert not isinstance(fault, Stopped) or WAYS[way].reads


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_slowly_ends_in_time(way: str) -> None:
    asked = {how: Asking(WAYS[way], lambda server, how=how: SLOW[how](server.pause)) for how in SLOW}  # type: ignore[misc]
    for asking in asked.values():
        asking.start()
    for how, asking in asked.items():
        ended(asking, way, how)


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_for_ever_or_lies_ends_in_little_memory(way: str) -> None:
    for how, harm in FAST.items():
        asking = Asking(WAYS[way], lambda _server, harm=harm: harm())  # type: ignore[misc]
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        asking.start()
        ended(asking, way, how)
        assert peak() - before < MEMORY, how


# -- lists without an end


def page(objects: Iterable[str], following: int | None) -> Iterable[bytes]:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>5</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key in objects
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>"
    body = f"<ListBucketResult><Name>weights</Name>{entries}{more if following is not None else ''}</ListBucketResult>"
    return polite(body.encode(), "Content-Type: application/xml\r\n")


def test_empty_pages_of_a_bucket_end() -> None:
    numbers = itertools.count()
    http = HttpClient(environ={}, tuning=replace(TUNING, document_seconds=2.0))
    with Hostile(lambda asked: can_list(asked) or page((), next(numbers))) as server:
        with pytest.raises(TimedOut, match="was not listed within 2 s"):
            bucket(http, server, "s3://weights/p/")
        assert len(server.asked) > 2, "it asked on"
    http.close()


def test_a_bucket_of_very_many_objects_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_ENTRIES", 100)
    numbers = itertools.count()

    def answer(asked: Asked) -> Iterable[bytes]:
        number = next(numbers)
        return can_list(asked) or page((f"p/{number}-{key}" for key in range(60)), number)

    http = HttpClient(environ={})
    with Hostile(answer) as server, pytest.raises(InvalidRequest, match="more than 100 objects") as caught:
        bucket(http, server, "s3://weights/p/")
    assert caught.value.hint
    http.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_repository_of_very_many_entries_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(parts, "MAX_ENTRIES", 100)
    numbers = itertools.count()

    def answer(asked: Asked) -> Iterable[bytes]:
        following = f'Link: <http://{asked.headers["Host"]}{asked.path}?page={next(numbers)}>; rel="next"\r\n'
        entries = [{"type": kind, "path": f"{number}", "size": 5} for number in range(60)]
        return hub_until(tree=False)(asked) or polite(json.dumps(entries).encode(), following)

    http = HttpClient(environ={})
    with Hostile(answer) as server, pytest.raises(InvalidRequest, match="120 entries and more, 100 are") as caught:
        described(hub(http, server), parse("hf:org/repo"))
    assert caught.value.hint
    http.close()


def test_a_manifest_of_very_many_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_ENTRIES", 100)
    layers = [descriptor("application/vnd.cncf.model.weight.v1.raw", b"GGUF", f"{number}") for number in range(101)]
    http = HttpClient(environ={})
    with (
        Hostile(lambda _: polite(json.dumps(modelpack(layers, b"{}")).encode())) as server,
        pytest.raises(SourceUnavailable, match="has 101 layers, 100 are allowed"),
    ):
        image(http, server)
    http.close()
