"""JSON and base64 that can be read in two ways are refused."""

from __future__ import annotations

import pytest

from modeld.signatures import document
from modeld.signatures.document import from_base64, parse
from modeld.signatures.faults import Unverifiable


def rule_of(data: bytes) -> str:
    with pytest.raises(Unverifiable) as caught:
        parse(data, "it")
    return caught.value.rule


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"nul",
        b'{"a": 1, "a": 1}',
        b'[{"b": {"a": 1, "\\u0061": 2}}]',
        b"NaN",
        b'{"a": [Infinity]}',
        b"[-Infinity]",
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        '"text"'.encode("utf-16"),
        b'"\n"',
        b'{"a": 1} {}',
        b"{'a': 1}",
        b"[1,]",
        b"01",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'["\\uD800"]',
        b'{"\\uDFFFx": 1}',
        b'"\\uDE00\\uD83D"',
    ],
)
def test_it_must_be_json_with_one_meaning(data: bytes) -> None:
    assert rule_of(data) == "json"


def test_it_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rule_of(b" " * (document.MAX_BUNDLE + 1)) == "size"
    assert rule_of(b"[" + b"0," * 600_000 + b"0]") == "size"


def test_what_is_json_is_read() -> None:
    assert parse(b'\t{"a": [1, 2.5, null, true, "\\u00e4\xc3\xa4", "\\ud83d\\ude00"]}\r\n', "it") == {
        "a": [1, 2.5, None, True, "ää", "\U0001f600"]
    }


@pytest.mark.parametrize(
    "text", ["", "YQ", "YQ=", "YQ==\n", " YQ==", "YR==", "YQ===", "YQ==YQ==", "-_-_", "Y", "ä==", "Y\u200bQ=="]
)
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(Unverifiable) as caught:
        from_base64(text, "it")
    assert caught.value.rule == "base64"


def test_base64_is_read() -> None:
    assert from_base64("YQ==", "it") == b"a"
    assert from_base64("+/+/", "it") == b"\xfb\xff\xbf"
