"""Which references a rule matches, and whom it trusts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modeld.signatures import rules as module
from modeld.signatures.faults import Unverifiable
from modeld.signatures.rules import MAX_PEM, Rule, Rules, Untrustworthy
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement

FILES = {"m.gguf": b"GGUF"}


def matches(pattern: str, *texts: str) -> bool:
    return Rules([Rule(1, [pattern], ["/k"], [])]).matching(texts) is not None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("hf:org/*", "hf:org/repo/sub/m.gguf@main"),
        ("hf:org/*", "hf:Org/Repo"),
        ("hf:ORG/*", "hf:org/repo"),
        ("hf:org/a b.gguf", "hf:org/a%20b.gguf"),
        ("hf:org/a%20b.gguf", "hf:org/a b.gguf"),
        ("hf:org/r?po", "hf:org/repo"),
        ("hf:org/[rs]epo", "hf:org/repo"),
        ("local:/srv/\u00fc/*", "local:/srv/u\u0308/m.gguf"),
        ("local:/srv/stra\u00dfe/*", "local:/srv/STRASSE/m.gguf"),
        ("https://host/*", "http://host/m.gguf"),
        ("http://host/*", "https://host/m.gguf"),
        ("*", "a-name"),
        ("local:/srv/*", "local:/srv/new\nline"),
    ],
)
def test_a_pattern_matches_whatever_may_mean_the_same(pattern: str, text: str) -> None:
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("hf:org/*", "hf:organisation/repo"),
        ("hf:org/*", "https://host/?hf:org/repo"),
        ("hf:org/repo", "hf:org/repo2"),
        ("local:/srv/models/*", "local:/srv/models2/m.gguf"),
        ("s3://bucket/a/*", "s3://bucket/b/m.gguf"),
    ],
)
def test_a_pattern_matches_no_other_place(pattern: str, text: str) -> None:
    assert not matches(pattern, text)


def test_the_first_rule_that_matches_counts() -> None:
    first, second = Rule(1, ["hf:org/open-*"], ["/a"], []), Rule(2, ["hf:org/*"], ["/b"], [])
    assert Rules([first, second]).matching(["hf:org/open-1"]) is first
    assert Rules([first, second]).matching(["hf:org/closed"]) is second
    assert Rules([first, second]).matching(["hf:other/x"]) is None
    assert Rules().matching(["hf:org/open-1"]) is None


def test_one_of_the_signers_is_enough_and_each_is_read_when_it_is_asked(tmp_path: Path) -> None:
    mine, other = new_key(), new_key()
    first, second = tmp_path / "other.pem", tmp_path / "mine.pem"
    first.write_bytes(public_pem(other))
    rule = Rule(1, ["*"], [str(first), str(second)], [])
    bundle = json.dumps(signed_with_key(mine, statement(resources_of(FILES)))).encode()
    with pytest.raises(Untrustworthy) as caught:
        rule.signed(bundle)
    assert caught.value.rule == "key"
    assert [reason.partition(":")[0] for reason in caught.value.reasons] == [str(first), str(second)]
    second.write_bytes(public_pem(mine))
    assert rule.signed(bundle).by == "key"
    second.write_bytes(public_pem(new_key()))
    with pytest.raises(Untrustworthy):
        rule.signed(bundle)


@pytest.mark.parametrize("kind", ["absent", "directory", "pipe", "open to all", "too long", "no key"])
def test_a_signer_that_cannot_be_asked_verifies_nothing_and_is_reported(tmp_path: Path, kind: str) -> None:
    key, path = new_key(), tmp_path / "key.pem"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "absent":
        path.write_bytes({"too long": public_pem(key) + b" " * MAX_PEM, "no key": b"PEM"}.get(kind, public_pem(key)))
        path.chmod(0o666 if kind == "open to all" else 0o644)
    rule = Rule(3, ["hf:org/*"], [str(path)], [])
    (warning,) = Rules([rule]).faults()
    assert str(path) in warning
    assert "rule 3 of [[trust.require]], 'hf:org/*'" in warning
    with pytest.raises(Untrustworthy):
        rule.signed(json.dumps(signed_with_key(key, statement(resources_of(FILES)))).encode())


def test_a_good_signer_gives_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(new_key()))
    assert Rules([Rule(1, ["*"], [str(path)], [])]).faults() == ()


def test_an_unreadable_key_hides_no_signature_that_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(new_key()))
    rule = Rule(1, ["*"], [str(path), "/nowhere/key.pem"], [])
    with pytest.raises(Untrustworthy) as caught:
        rule.signed(json.dumps(signed_with_key(new_key(), statement(resources_of(FILES)))).encode())
    assert caught.value.rule == "key"
    assert "no such file" in str(caught.value)


def test_a_missing_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_trusted: object) -> None:
        raise Unverifiable("cryptography", "it is missing")

    monkeypatch.setattr(module, "check_signer", missing)
    path = tmp_path / "key.pem"
    path.write_bytes(b"PEM")
    (warning,) = Rules([Rule(1, ["*"], [str(path)], [])]).faults()
    assert "it is missing" in warning
