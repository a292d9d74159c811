"""Objects of buckets: moto on the other side, keys from each place, and the extra that may be missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.download.source import Description
from modeld.sources.credentials.aws import AwsAccount
from modeld.sources.parse import parse
from modeld.sources.s3.source import S3Reference, S3Source
from modelwire.errors import (
    InvalidRequest,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnavailable,
    Unsupported,
    WireError,
)
from rigs.described_bytes import read_all
from rigs.real_s3 import KEY, SECRET, Buckets, buckets
from rigs.scripted_server import Reply, serving

WEIGHTS = b"GGUF" + bytes(range(256)) * 40
FILES = {
    "models/m.gguf": WEIGHTS,
    "set/a b+c.gguf": WEIGHTS[::-1],
    "set/deep/config.json": b"{}",
    "ünïcode/x.gguf": b"GGUF1",
    "cut/m-00001-of-00002.gguf": b"GGUF cut",
    "cut/m-00002-of-00002.gguf": b"GGUF off",
    "torn/m-00001-of-00002.gguf": b"GGUF torn",
}
SHARDS = [key for key in FILES if "-of-" in key]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    from urllib.parse import quote

    with buckets(tmp_path_factory.mktemp("moto")) as running:
        running.put("weights")
        for key, content in FILES.items():
            running.put(f"weights/{quote(key)}", content)
        yield running


def described(source: S3Source, text: str) -> Description:
    reference = parse(text)
    assert isinstance(reference, S3Reference)
    return source.describe(reference)


def test_an_object_is_described_and_read_by_ranges(server: Buckets, http: HttpClient) -> None:
    source = S3Source(http, AwsAccount(server.signed))
    for key, content in FILES.items():
        if key in SHARDS:
            continue
        found = described(source, f"s3://weights/{key}")
        (file,) = found.files
        assert (file.path, file.size, file.digest) == (key.rpartition("/")[2], len(content), None)
        assert file.validator is not None
        assert (found.registry, found.repo) == (server.url[7:], "weights")
        assert read_all(source, file) == content
        assert read_all(source, file, 1, 2, file.validator) == content[1:2]


@pytest.mark.parametrize("number", [1, 2])
def test_the_key_of_one_shard_means_its_set(server: Buckets, http: HttpClient, number: int) -> None:
    source = S3Source(http, AwsAccount(server.signed))
    found = described(source, f"s3://weights/cut/m-0000{number}-of-00002.gguf")
    assert [(file.path, read_all(source, file)) for file in found.files] == [
        ("m-00001-of-00002.gguf", b"GGUF cut"),
        ("m-00002-of-00002.gguf", b"GGUF off"),
    ]
    assert not parse(f"s3://weights/cut/m-0000{number}-of-00002.gguf").is_single
    with pytest.raises(SourceNotFound, match="m-00002-of-00002"):
        described(source, "s3://weights/torn/m-00001-of-00002.gguf")


def test_all_below_a_prefix(server: Buckets, http: HttpClient) -> None:
    source = S3Source(http, AwsAccount(server.signed))
    found = described(source, "s3://weights/set/")
    assert {file.path: read_all(source, file) for file in found.files} == {
        "a b+c.gguf": FILES["set/a b+c.gguf"],
        "deep/config.json": b"{}",
    }
    assert len(described(source, "s3://weights").files) == len(FILES)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("s3://weights/none.gguf", SourceNotFound),
        ("s3://nowhere/none.gguf", SourceNotFound),
        ("s3://weights/none/", SourceNotFound),
        ("s3://nowhere/none/", SourceNotFound),
    ],
)
def test_what_is_not_there_is_said(server: Buckets, http: HttpClient, text: str, kind: type[WireError]) -> None:
    with pytest.raises(kind) as caught:
        described(S3Source(http, AwsAccount(server.signed)), text)
    assert caught.value.hint


def test_keys_of_the_reference_are_used_and_not_shown(server: Buckets, http: HttpClient) -> None:
    source = S3Source(http, AwsAccount(server.environ))
    secret = SECRET.replace("/", "%2F").replace("+", "%2B")
    found = described(source, f"s3://{KEY}:{secret}@weights/models/m.gguf")
    assert found.source == "s3://weights/models/m.gguf"
    for hidden in (SECRET, secret, KEY):
        assert hidden not in repr(found)
    assert read_all(source, found.files[0]) == WEIGHTS


def test_without_keys_nothing_is_signed(http: HttpClient) -> None:
    with serving(lambda asked: Reply(403)) as refusing:
        source = S3Source(http, AwsAccount({"AWS_ENDPOINT_URL": refusing.url, "HOME": "/nonexistent"}))
        with pytest.raises(SourceUnauthorized, match=r"access to .* is denied") as caught:
            described(source, "s3://weights/m.gguf")
        assert "s3:GetObject" in (caught.value.hint or "")
        assert [asked.target for asked in refusing.asked] == ["/weights/m.gguf"]
        with pytest.raises(SourceUnauthorized):
            described(source, "s3://weights/prefix/")


def test_the_region_of_the_bucket_is_named(http: HttpClient) -> None:
    with serving(lambda asked: Reply(301, {"x-amz-bucket-region": "eu-central-1"})) as elsewhere:
        source = S3Source(http, AwsAccount(source_environ(elsewhere.url)))
        assert source.origin(S3Reference(bucket="weights", path="x")) == elsewhere.url
        with pytest.raises(SourceUnavailable, match="is in the region eu-central-1") as caught:
            described(source, "s3://weights/m.gguf")
        assert "AWS_REGION=eu-central-1" in (caught.value.hint or "")


def source_environ(url: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/nonexistent"}


def test_where_keys_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id=A\naws_secret_access_key=B\n[work]\naws_access_key_id=C\n"
        "aws_secret_access_key=D\naws_session_token=E\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion=eu-west-1\n[profile work]\nregion=eu-west-3\nendpoint_url=https://s3.work.example\n"
    )
    home = {"HOME": str(tmp_path)}
    default, work = AwsAccount(home), AwsAccount({**home, "AWS_PROFILE": "work"})
    assert default.keys(None) == {"access_key_id": "A", "secret_access_key": "B"}
    assert (default.region, default.endpoint) == ("eu-west-1", None)
    assert work.keys(None) == {"access_key_id": "C", "secret_access_key": "D", "session_token": "E"}
    assert (work.region, work.endpoint) == ("eu-west-3", "https://s3.work.example")
    assert work.keys("k%2F:s%40") == {"access_key_id": "k/", "secret_access_key": "s@"}
    variables = AwsAccount({**home, "AWS_ACCESS_KEY_ID": "V", "AWS_SECRET_ACCESS_KEY": "W", "AWS_REGION": "r"})
    assert (variables.keys(None), variables.region) == ({"access_key_id": "V", "secret_access_key": "W"}, "r")
    assert AwsAccount({"HOME": "/nonexistent", "AWS_WEB_IDENTITY_TOKEN_FILE": "/x"}).keys(None) == {}


def test_a_missing_extra_is_named(http: HttpClient, server: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unsupported, match="extra s3") as caught:
        described(S3Source(http, AwsAccount(server.signed)), "s3://weights/models/m.gguf")
    assert "modeld[daemon,s3]" in (caught.value.hint or "")


def test_plain_http_to_another_machine_is_refused(http: HttpClient) -> None:
    with pytest.raises(InvalidRequest, match="not encrypted"):
        described(S3Source(http, AwsAccount(source_environ("http://minio.example:9000"))), "s3://weights/m.gguf")
