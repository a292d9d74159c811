"""One spelling for each digest, and a signature that notices a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.store.digest import Digest, Signature
from modelwire.errors import InvalidDigest

HEX = "0123456789abcdef" * 4


def test_both_spellings_give_the_same_digest() -> None:
    assert Digest.parse(HEX) == Digest.parse(f"sha256:{HEX}")
    assert Digest.parse(HEX).text == str(Digest(HEX)) == f"sha256:{HEX}"


def test_matches_only_itself() -> None:
    assert Digest(HEX).matches(Digest.parse(HEX))
    assert not Digest(HEX).matches(Digest("0" * 64))


@pytest.mark.parametrize("text", ["", "sha256:", HEX[:-1], HEX + "0", "z" * 63, f"sha256:{HEX}\n"])
def test_wrong_length_is_reported_with_the_length(text: str) -> None:
    with pytest.raises(InvalidDigest, match="64 hex characters, this one has") as caught:
        Digest.parse(text)
    assert caught.value.details["rule"] == "length"


@pytest.mark.parametrize("text", ["g" + HEX[1:], HEX[:-1] + "\n", "٣" + HEX[1:], " " + HEX[1:], "/" + HEX[1:]])
def test_wrong_alphabet_is_another_error(text: str) -> None:
    with pytest.raises(InvalidDigest, match="0-9 and a-f only") as caught:
        Digest.parse(text)
    assert caught.value.details["rule"] == "alphabet"


def test_uppercase_is_refused_because_two_spellings_break_deduplication() -> None:
    with pytest.raises(InvalidDigest, match="0-9 and a-f only") as caught:
        Digest.parse(HEX.upper())
    assert caught.value.hint == "Write it in lowercase."
    assert caught.value.details["rule"] == "alphabet"


@pytest.mark.parametrize("text", [f"sha512:{HEX}", f"SHA256:{HEX}", f":{HEX}"])
def test_another_algorithm_is_named(text: str) -> None:
    with pytest.raises(InvalidDigest, match="only sha256"):
        Digest.parse(text)


def test_no_digest_can_exist_that_is_not_one() -> None:
    with pytest.raises(InvalidDigest):
        Digest("../../../etc/passwd")


def test_signature_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = Signature.of(os.stat(path))
    assert Signature.of(os.stat(path)) == before
    os.utime(path, ns=(1, 1))
    assert Signature.of(os.stat(path)) != before
