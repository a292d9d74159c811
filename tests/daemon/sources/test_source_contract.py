"""What holds for every source: the same suite over all registered kinds, each against the other side that it has.

A kind that is registered without a line in SIDES fails here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo, Source
from modeld.sources.kind import NetworkKind
from modeld.sources.kinds import KINDS
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modeld.sources.sources import Sources
from modeld.store import parts
from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire.errors import SourceNotFound, SourceUnavailable, WireError
from rigs.described_bytes import OWN_USER, read_all
from rigs.hub_server import Hub, Repo
from rigs.real_s3 import buckets
from rigs.registries import OllamaDouble, descriptor, modelpack, real_registry
from rigs.scripted_server import Reply, file_reply, serving, sha256

CONTENT = b"GGUF" + bytes(range(256)) * 3000
"""More than one buffer of any layer in between."""


@dataclass
class Side:
    """A source with one model of one file, and how its other side is ended."""

    source: Source[Any]
    reference: Reference
    missing: Reference
    pinned: bool
    vouched: bool


@contextlib.contextmanager
def web(http: HttpClient, room: Path) -> Iterator[Side]:
    with serving(lambda asked: file_reply(asked, CONTENT) if asked.path == "/m.gguf" else Reply(404)) as server:
        reference = parse(f"{server.url}/m.gguf")
        source = Sources(http, {"HOME": str(room)}).source(reference, OWN_USER)
        yield Side(source, reference, parse(f"{server.url}/none.gguf"), False, False)


@contextlib.contextmanager
def huggingface(http: HttpClient, room: Path) -> Iterator[Side]:
    with Hub({"org/repo": Repo({"m.gguf": CONTENT}, frozenset({"m.gguf"}))}) as hub:
        reference = parse("hf:org/repo/m.gguf")
        environ = {"HF_ENDPOINT": hub.url, "HOME": str(room)}
        sources = Sources(http, environ)
        assert sources.read(f"{hub.url}/org/repo/blob/main/m.gguf") == parse("hf:org/repo/m.gguf@main")
        yield Side(sources.source(reference, OWN_USER), reference, parse("hf:org/none"), True, True)


@contextlib.contextmanager
def hub_mirror(http: HttpClient, room: Path) -> Iterator[Side]:
    with Hub({"org/repo": Repo({"m.gguf": CONTENT}, frozenset({"m.gguf"}))}) as hub:
        reference = parse("hf:org/repo/m.gguf")
        source = Sources(http, {"HOME": str(room)}).mirror(reference, "", hub.url, OWN_USER)
        yield Side(source, reference, parse("hf:org/none"), True, True)


@contextlib.contextmanager
def oci(http: HttpClient, room: Path) -> Iterator[Side]:
    with real_registry(room) as registry:
        weight = descriptor("application/vnd.cncf.model.weight.v1.raw", CONTENT, "m.gguf")
        registry.push("team/model", "v1", modelpack([weight], b"{}"), CONTENT, b"{}")
        reference = parse(f"oci://{registry.host}/team/model:v1")
        source = Sources(http, {"HOME": str(room)}).source(reference, OWN_USER)
        yield Side(source, reference, parse(f"oci://{registry.host}/team/model:v2"), True, True)


@contextlib.contextmanager
def ollama(http: HttpClient, room: Path) -> Iterator[Side]:
    with OllamaDouble() as double:
        double.blob(CONTENT)
        layer = descriptor("application/vnd.ollama.image.model", CONTENT)
        config = descriptor("application/vnd.docker.container.image.v1+json", b"{}")
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
        double.put("library/m", "latest", manifest)
        reference = parse("ollama:m")
        source = Sources(http, {"HOME": str(room)}).mirror(reference, "", double.server.url, OWN_USER)
        yield Side(source, reference, parse("ollama:none"), True, True)


@contextlib.contextmanager
def s3(http: HttpClient, room: Path) -> Iterator[Side]:
    with buckets(room) as running:
        running.put("weights")
        running.put("weights/m.gguf", CONTENT)
        reference = parse("s3://weights/m.gguf")
        yield Side(
            Sources(http, running.signed).source(reference, OWN_USER),
            reference,
            parse("s3://weights/n.gguf"),
            False,
            False,
        )


Making = Callable[[HttpClient, Path], contextlib.AbstractContextManager[Side]]
SIDES: dict[str, Making] = {"https": web, "hf": huggingface, "oci": oci, "ollama": ollama, "s3": s3}
NETWORK = {kind.name: kind for kind in KINDS if isinstance(kind, NetworkKind)}
MIRROR = "mirror of hf"


def making(name: str) -> Making:
    if name == MIRROR:
        return hub_mirror
    assert name in SIDES, f"the kind {name!r} is registered and has no other side: give it one in SIDES"
    return SIDES[name]


@pytest.fixture(params=[*NETWORK, MIRROR])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    http = HttpClient(environ={})
    with making(request.param)(http, tmp_path) as made:
        yield made
        http.close()


@pytest.mark.parametrize("kind", NETWORK.values(), ids=NETWORK)
def test_its_reference_is_of_its_kind_and_is_read_again(kind: NetworkKind, tmp_path: Path) -> None:
    http = HttpClient(environ={})
    with making(kind.name)(http, tmp_path) as side:
        reference = side.reference
        assert type(reference) is type(side.missing) is kind.reference
        assert parse(reference.text) == reference
        assert ModelName.parse(reference.suggested_name.text) == reference.suggested_name
        assert reference.choosing(("*.gguf",), ("*.bin",)).text == reference.text
        assert side.source.name.split()[0] == kind.name
        sources = Sources(http, {"HOME": str(tmp_path)})
        match, url = reference.text.rpartition("/")[0], "https://mirror.example"
        assert sources.mirror(reference, match, url, OWN_USER).origin(reference) == url
        assert sources.mirror(reference, match, url, OWN_USER) is sources.mirror(reference, match, url, OWN_USER)
    http.close()


def only_file(side: Side) -> FileInfo:
    (file,) = side.source.describe(side.reference).files
    return file


def test_a_description_says_what_the_reference_means(side: Side) -> None:
    found = side.source.describe(side.reference)
    assert found.source == side.reference.text
    assert found.registry
    assert found.repo
    assert (found.revision is not None) == side.pinned
    (file,) = found.files
    assert parts.path_fault(file.path) is None
    assert file.size == len(CONTENT)
    assert file.digest == (Digest(sha256(CONTENT)) if side.vouched else None)
    assert file.role == "weights"
    assert file.origin == side.source.origin(side.reference)
    assert file.origin is not None
    assert side.source.describe(side.reference) == found, "asked again, the same"
    assert "locator" not in repr(found), "it may hold a signature"


def test_the_whole_and_any_range_are_the_bytes_of_the_file(side: Side) -> None:
    file = only_file(side)
    assert read_all(side.source, file) == CONTENT
    for start, end in [(0, 1), (1, 70_000), (65_536, 131_072), (len(CONTENT) - 1, len(CONTENT)), (9, None)]:
        assert read_all(side.source, file, start, end, file.validator) == CONTENT[start:end]


def test_a_body_tells_where_it_is(side: Side) -> None:
    file = only_file(side)
    body = side.source.open(file, 1000, 3000, None)
    try:
        assert (body.start, body.end, body.total, body.partial) == (1000, 3000, len(CONTENT), True)
        assert body.validator is not None
        assert body.readinto(memoryview(bytearray(0))) == 0
        got = body.readinto(memoryview(bytearray(500)))
        assert 0 < got <= 500
    finally:
        body.close()
        body.close()


def test_what_changed_is_given_from_the_start_or_shows_another_validator(side: Side) -> None:
    body = side.source.open(only_file(side), 1000, 3000, '"not-this-one"')
    try:
        # Buckets do not know If-Range: who continues a file compares.
        assert body.start == 0 or body.validator not in (None, '"not-this-one"')
    finally:
        body.close()


def test_after_an_abort_nothing_looks_like_the_end(side: Side) -> None:
    body = side.source.open(only_file(side), 0, None, None)
    try:
        body.readinto(memoryview(bytearray(10)))
        body.abort()
        with pytest.raises(WireError):
            read_to_the_end(body)
    finally:
        body.close()


def read_to_the_end(body: Any) -> None:
    buffer = memoryview(bytearray(1 << 20))
    for _ in range(100):
        if body.readinto(buffer) == 0:
            return


def test_what_is_not_there_is_said_once_and_for_all(side: Side) -> None:
    with pytest.raises(SourceNotFound) as caught:
        side.source.describe(side.missing)
    assert not caught.value.retryable
    assert caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", [*NETWORK, MIRROR])
def test_an_other_side_that_is_gone_may_come_back(name: str, tmp_path: Path) -> None:
    http = HttpClient(environ={})
    with making(name)(http, tmp_path) as side:
        file = only_file(side)
    http.close()
    with pytest.raises(SourceUnavailable) as caught:
        side.source.describe(side.reference)
    assert caught.value.retryable
    with pytest.raises(SourceUnavailable) as caught:
        read_all(side.source, file)
    assert caught.value.retryable
    http.close()
