"""One file by its address: what its headers tell, servers that know less than others, and passwords of ~/.netrc."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.download.source import Description
from modeld.download.urls import parse_url
from modeld.sources.credentials.netrc import netrc_authorization
from modeld.sources.parse import parse
from modeld.sources.web import WebReference, WebSource
from modeld.store.digest import Digest
from modelwire.errors import SourceNotFound, SourceUnauthorized, SourceUnavailable, WireError
from rigs.described_bytes import read_all
from rigs.scripted_server import Asked, Reply, Route, file_reply, serving, sha256

CONTENT = b"GGUF" + bytes(range(256)) * 30
HEX = sha256(CONTENT)
RAW = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()


def described(http: HttpClient, address: str, environ: Mapping[str, str] | None = None) -> Description:
    reference = parse(address)
    assert isinstance(reference, WebReference)
    return WebSource(http, environ or {"HOME": "/nonexistent"}).describe(reference)


def serve(told: Mapping[str, str] | None = None) -> Route:
    return lambda asked: file_reply(asked, CONTENT, told)


def test_a_file_is_described_by_the_headers_of_its_address(http: HttpClient) -> None:
    with serving(serve()) as server:
        found = described(http, f"{server.url}/models/m%20x.gguf?part=1")
        (file,) = found.files
        assert (file.path, file.size, file.digest, file.role) == ("m x.gguf", len(CONTENT), None, "weights")
        assert file.validator is not None
        assert file.ranges
        assert (found.registry, found.repo, found.revision) == (server.url[7:], "/models/m%20x.gguf", None)
        assert found.source == f"{server.url}/models/m%20x.gguf?part=1"
        source = WebSource(http, {})
        assert read_all(source, file) == CONTENT
        assert read_all(source, file, 10, 90, file.validator) == CONTENT[10:90]
        assert read_all(source, file, 10, 90, '"another"') == CONTENT


@pytest.mark.parametrize(
    "told",
    [
        {"Repr-Digest": f"sha-256=:{RAW}:"},
        {"Repr-Digest": f"sha-512=:AAAA:, sha-256=:{RAW}:"},
        {"Digest": f"SHA-256={RAW}"},
        {"X-Linked-Etag": f'"{HEX}"'},
        {"X-Checksum-Sha256": HEX},
        {"Docker-Content-Digest": f"sha256:{HEX}"},
    ],
    ids=lambda told: next(iter(told)),
)
def test_a_header_that_vouches_for_the_content_is_taken(http: HttpClient, told: Mapping[str, str]) -> None:
    with serving(serve(told)) as server:
        assert described(http, f"{server.url}/m.gguf").files[0].digest == Digest(HEX)


@pytest.mark.parametrize(
    "told",
    [
        {"ETag": f'"{HEX}"'},
        {"Content-Digest": f"sha-256=:{RAW}:"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"Digest": f"MD5={RAW}"},
        {"X-Linked-Etag": f'"{HEX[:40]}"'},
        {"X-Checksum-Sha256": HEX.upper()},
    ],
    ids=lambda told: next(iter(told)),
)
def test_a_header_that_does_not_is_not(http: HttpClient, told: Mapping[str, str]) -> None:
    with serving(serve(told)) as server:
        assert described(http, f"{server.url}/m.gguf").files[0].digest is None


def test_a_digest_that_only_the_redirect_tells(http: HttpClient) -> None:
    def hop(asked: Asked) -> Reply:
        if asked.path == "/m.gguf":
            return Reply(302, {"Location": "/deep/blob-17?sig=x", "X-Linked-Etag": f'"{HEX}"'})
        return file_reply(asked, CONTENT)

    with serving(hop) as server:
        (file,) = described(http, f"{server.url}/m.gguf").files
        assert (file.path, file.digest, file.size) == ("m.gguf", Digest(HEX), len(CONTENT))


@pytest.mark.parametrize("status", [405, 501, 403])
def test_a_server_that_does_not_answer_head(http: HttpClient, status: int) -> None:
    with serving(lambda asked: Reply(status) if asked.method == "HEAD" else file_reply(asked, CONTENT)) as server:
        (file,) = described(http, f"{server.url}/m.gguf").files
        assert (file.size, file.ranges) == (len(CONTENT), True)
        assert read_all(WebSource(http, {}), file) == CONTENT


def test_a_server_without_ranges(http: HttpClient) -> None:
    with serving(serve({"Accept-Ranges": "none"})) as server:
        (file,) = described(http, f"{server.url}/m.gguf").files
        assert not file.ranges
        assert read_all(WebSource(http, {}), file, 5, 9) == CONTENT


@pytest.mark.parametrize(
    ("disposition", "path"),
    [
        ('attachment; filename="named by it.gguf"', "named by it.gguf"),
        ("attachment; filename=plain.gguf; size=3", "plain.gguf"),
        ("attachment; filename=\"x.gguf\"; filename*=UTF-8''%C3%A4.gguf", "ä.gguf"),
        (r'attachment; filename="a\"b.gguf"', 'a"b.gguf'),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename=".."', "m.gguf"),
        ('attachment; filename=""', "m.gguf"),
        ("inline", "m.gguf"),
    ],
)
def test_the_name_that_the_server_gives(http: HttpClient, disposition: str, path: str) -> None:
    with serving(serve({"Content-Disposition": disposition})) as server:
        assert described(http, f"{server.url}/m.gguf").files[0].path == path


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Reply(404), SourceNotFound, "404"),
        (Reply(401), SourceUnauthorized, "demands credentials"),
        (Reply(403), SourceUnauthorized, "does not give this file"),
        (Reply(503, {"Retry-After": "7"}), SourceUnavailable, "the fault is at the source"),
        (
            Reply(200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
            SourceUnavailable,
            "web page instead of m.gguf",
        ),
        (Reply(302, {"Location": "file:///etc/passwd"}), SourceUnavailable, "to the scheme 'file'"),
        (Reply(302, {"Location": "/m.gguf"}), SourceUnavailable, "circle"),
        (Reply(302, {"Location": "http://elsewhere.example/x"}), SourceUnavailable, "not encrypted"),
    ],
)
def test_each_refusal_is_a_sentence(http: HttpClient, answer: Reply, kind: type[WireError], said: str) -> None:
    with serving(lambda asked: answer) as server:
        with pytest.raises(kind, match=said) as caught:
            described(http, f"{server.url}/m.gguf?token=s3cret")
        assert caught.value.hint
        assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value.details}"


# -- who asks


def test_a_password_of_netrc_goes_to_its_host_only(http: HttpClient, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    expected = "Basic " + base64.b64encode(b"me:s3cret").decode()
    with serving(serve()) as cdn:
        # By another name of this machine: another origin.
        away = cdn.url.replace("127.0.0.1", "localhost")
        with serving(lambda asked: Reply(307, {"Location": f"{away}/x"})) as server:
            (tmp_path / ".netrc").write_text(f"machine {server.url[7:]} login me password s3cret\n")
            (file,) = described(http, f"{server.url}/m.gguf", environ).files
            assert read_all(WebSource(http, environ), file) == CONTENT
            assert {asked.headers.get("Authorization") for asked in server.asked} == {expected}
        assert cdn.asked
        assert {asked.headers.get("Authorization") for asked in cdn.asked} == {None}


@pytest.mark.parametrize(
    "text", ["machine", "machine 127.0.0.1 loggin s3cret", "\xff", "machine other login a password b"]
)
def test_a_netrc_that_does_not_help_is_passed_over(http: HttpClient, tmp_path: Path, text: str) -> None:
    (tmp_path / "netrc").write_text(text, encoding="latin-1")
    with serving(serve()) as server:
        described(http, f"{server.url}/m.gguf", {"NETRC": str(tmp_path / "netrc")})
        assert {asked.headers.get("Authorization") for asked in server.asked} == {None}


@pytest.mark.parametrize(
    ("entry", "counts"),
    [
        ("machine models.example", {"https://models.example", "https://models.example:443", "http://models.example"}),
        ("machine models.example:8443", {"https://models.example:8443"}),
        ("machine models.example:443", {"https://models.example", "https://models.example:443"}),
        ("machine ::1", {"https://[::1]"}),
        ("machine other.example", set()),
        ("machine example", set()),
        ("default", set()),
    ],
)
def test_an_entry_of_netrc_counts_for_the_exact_host_and_port(tmp_path: Path, entry: str, counts: set[str]) -> None:
    (tmp_path / ".netrc").write_text(f"{entry} login me password s3cret\n")
    origins = {
        *("https://models.example", "https://models.example:443", "https://models.example:8443"),
        *("http://models.example", "http://models.example:8080", "https://models.example.evil", "https://[::1]"),
        *("https://[::1]:8443", "https://default", "https://a.models.example"),
    }
    found = {
        origin: netrc_authorization(parse_url(f"{origin}/m", plain_hosts=["models.example"]), {"HOME": str(tmp_path)})
        for origin in origins
    }
    expected = "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert {origin for origin, sent in found.items() if sent == expected} == counts & origins
    assert set(found.values()) <= {expected, None}


def test_user_and_password_of_the_address_come_before_netrc(http: HttpClient, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    with serving(serve()) as server:
        found = described(http, f"http://me:s3c%20ret@{server.url[7:]}/m.gguf", {"HOME": str(tmp_path)})
        assert "s3c" not in repr(found)
        assert read_all(WebSource(http, {}), found.files[0]) == CONTENT
        expected = "Basic " + base64.b64encode(b"me:s3c ret").decode()
        assert {asked.headers.get("Authorization") for asked in server.asked} == {expected}


# -- shards

SET = {f"/d x/m%2B-0000{number}-of-00003.gguf": b"GGUF" + bytes([number]) * 99 for number in (1, 2, 3)}


def shard(asked: Asked) -> Reply:
    content = SET.get(asked.path.replace("+", "%2B"))
    if content is None or asked.query not in ("", "part=1", "token=s3cret"):
        return Reply(404)
    return file_reply(asked, content, {"Content-Disposition": 'attachment; filename="other.gguf"'})


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("query", ["", "?part=1", "?token=s3cret"])
def test_the_address_of_one_shard_means_its_set(http: HttpClient, number: int, query: str) -> None:
    with serving(shard) as server:
        address = f"{server.url}/d%20x/m%2B-0000{number}-of-00003.gguf{query}"
        found = described(http, address)
        assert [file.path for file in found.files] == [f"m+-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
        source = WebSource(http, {})
        assert [read_all(source, file) for file in found.files] == list(SET.values())
        reference = parse(address)
        assert not reference.is_single
        assert reference.suggested_name.text == "m"
        assert "s3cret" not in repr(found)


def test_a_set_that_lacks_a_shard_is_no_model(http: HttpClient) -> None:
    with serving(lambda asked: Reply(404) if "00002" in asked.path else shard(asked)) as server:
        with pytest.raises(SourceNotFound, match=r"is one part of a set, and the part m\+-00002-of-00003"):
            described(http, f"{server.url}/d%20x/m%2B-00001-of-00003.gguf")


@pytest.mark.parametrize("name", ["m-00001-of-00001.gguf", "m-00004-of-00003.gguf", "m-00001-of-00002.safetensors"])
def test_what_only_looks_like_a_shard_is_one_file(http: HttpClient, name: str) -> None:
    with serving(serve()) as server:
        assert [file.path for file in described(http, f"{server.url}/{name}").files] == [name]
        assert parse(f"{server.url}/{name}").is_single
