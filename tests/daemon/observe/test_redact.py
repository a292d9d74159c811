"""No secret reaches the log, in whatever shape it comes; what is no secret stays readable."""

from __future__ import annotations

import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.observe.redact import MARK, MAX_TEXT, redact, redact_text

S = "s3cr3tValue"  # what must never be seen; every fixture holds it or spells out its own
HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

TEXTS = {
    "authorization header": (f"Authorization: Bearer {S}", [S]),
    "basic": ("authorization: Basic YWxhZGRpbjpvcGVu", ["YWxhZGRpbjpvcGVu"]),
    "basic alone": ("sent Basic YWxhZGRpbjpvcGVu to it", ["YWxhZGRpbjpvcGVu"]),
    "digest scheme": (f'Authorization: Digest username="u", response="{S}"', [S, "username"]),
    "proxy": (f"Proxy-Authorization: Bearer {S}\r\nHost: h", [S]),
    "bearer alone": (f"refused: bearer {S}", [S]),
    "bearer in a url": (f"https://h/x?h=Bearer%20{S}", [S]),
    "curl": (f"curl -H 'Authorization: token {S}' https://h/x", [S]),
    "token=": (f"token={S} next", [S]),
    "token: scheme": (f"token: Bearer {S}", [S]),
    "password": (f"password = {S}", [S]),
    "a password with a comma": (f"password={S},{S}2;{S}3", [S]),
    "passphrase": (f"passphrase: '{S} {S}'", [S]),
    "secret": (f"client_secret={S}", [S]),
    "api key": (f"api_key={S} apikey:{S} x-api-key: {S}", [S]),
    "aws words": (f"aws_secret_access_key={S} aws_access_key_id = {S}", [S]),
    "environment": (f"HF_TOKEN={S} HUGGING_FACE_HUB_TOKEN={S}", [S]),
    "json key": (f'got {{"token":"{S}","a":1}}', [S]),
    "json key with spaces": (f'{{"access_token" : "{S}"}}', [S]),
    "json in json": (json.dumps({"body": json.dumps({"password": f'{S}"{S}'})}), [S]),
    "json in json in json": (json.dumps(json.dumps({"body": json.dumps({"secret": S})})), [S]),
    "json never closed": (f'{{"token":"{S} {S}', [S]),
    "json container": (f'{{"credentials":{{"a":"{S}","b":["{S}"]}}}}', [S]),
    "json list": (f'{{"tokens":["{S}", "{S}"]}}', [S]),
    "python repr": (f"{{'Authorization': 'Bearer {S}', 'x': 1}}", [S]),
    "hugging face": (f"using {HF} for it", [HF]),
    "hugging face, letters only": ("hf_" + "abcdefghijklmnopqrst", ["abcdefgh"]),
    "github pat": ("github_pat_11ABCDEFG0abcdefghij_KLMNOP", ["11ABCDEFG0"]),
    "github classic": ("ghp_0123456789abcdefABCDEF0123456789abcd", ["0123456789abcdef"]),
    "openai": ("sk-abcdefghijklmnopqrstuvwx0123456789", ["abcdefghij"]),
    "openai project": ("key is sk-proj-Ab_Cd-Ef0123456789", ["Ab_Cd-Ef"]),
    "aws id": ("AKIAIOSFODNN7EXAMPLE", ["IOSFODNN"]),
    "jwt": (f"got {JWT}", ["eyJhbGci", "dozjgN"]),
    "userinfo": (f"https://user:{S}@host/path", [S, "user:"]),
    "userinfo with an at": (f"https://user:{S}@{S}@host/path", [S]),
    "userinfo, token only": (f"git+https://{S}@host/path", [S]),
    "amz signature": (f"https://h/k?X-Amz-Date=1&X-Amz-Signature={S}&x=1", [S]),
    "amz credential": (f"https://h/k?X-Amz-Credential={S}%2F20251120%2Fus-east-1", [S, "20251120"]),
    "amz token": (f"https://h/k?X-Amz-Security-Token={S}&a=b", [S]),
    "signed cdn": (f"https://h/k?Policy={S}&Signature={S}~&Key-Pair-Id={S}", [S]),
    "sas": (f"https://h/k?se=2025&sig={S}%3D", [S]),
    "google key": (f"https://h/k?key={S}", [S]),
    "query token": (f"https://h/k?access_token={S}&token={S}", [S]),
    "url in url": (f"https://h/login?to=https%3A%2F%2Fx%2F%3Fsig%3D{S}%26b%3D1", [S]),
    "cookie": (f"Cookie: a={S}; b={S}", [S]),
    "set-cookie": (f"set-cookie: id={S}; Path=/; HttpOnly", [S]),
    "pem": (f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n{S}\n-----END RSA PRIVATE KEY-----", [S]),
    "pem, cut": (f"-----BEGIN PRIVATE KEY-----\n{S}", [S]),
    "slack": ("xoxb-123456789012-abcdef", ["123456789012"]),
}


@pytest.mark.parametrize(("text", "secrets"), TEXTS.values(), ids=TEXTS.keys())
def test_a_secret_in_a_text_goes(text: str, secrets: list[str]) -> None:
    clean = redact_text(text)
    assert MARK in clean
    for secret in secrets:
        assert secret not in clean
    assert redact_text(clean) == clean
    assert secret_free_line({"message": text, text: [{"deep": (text,)}]}, secrets)


def secret_free_line(value: Any, secrets: list[str]) -> bool:
    line = msgspec.json.encode(redact(value))
    json.loads(line)
    return not any(secret.encode() in line for secret in secrets)


KEYS = (
    *("token", "hf_token", "accessToken", "access-token", "PASSWORD", "db.password", "passwd", "passphrase"),
    *("secret", "clientSecret", "client_secret", "api_key", "apiKey", "X-Api-Key", "Authorization"),
    *("proxy-authorization", "cookie", "Set-Cookie", "aws_secret_access_key", "AWSAccessKeyId", "private_key"),
    *("credential", "credentials", "X-Amz-Signature", "X-Amz-Security-Token", "jwt", "tokens", "cookies"),
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [S, [S], {"a": {"b": S}}, (S, 1)])
def test_whatever_stands_under_a_secrets_name_goes(key: str, value: object) -> None:
    assert redact({"a": [{key: value, "next": 1}]}) == {"a": [{key: MARK, "next": 1}]}


def test_names_that_only_sound_like_it_stay() -> None:
    plain = {
        "tokenizer": "llama-bpe",
        "token_count": 17,
        "tokens": 17,
        "max_tokens": 4096,
        "cookies": 0,
        "secretary": "alice",
        "keys": ["a", "b"],
        "token": None,
        "path": "/home/alice/secret-project/passwords.gguf",
        "message": "unexpected end of file after the tokenizer; basic Llama is fine; the bearer token is missing",
        "file": "hf_transfer/hf_tokenizer/task-list/sk-learn-models/risk-assessment-of-many-things",
        "ref": "hf:org/repo/file.gguf@main",
        "url": "https://hub.example/org/repo/resolve/main/model-q4_k_m.gguf?download=true&page=2",
    }
    assert redact(plain) == plain


names = st.text(string.ascii_letters + string.digits + "._-+ ", min_size=1, max_size=40)


@given(st.lists(names, min_size=1, max_size=6))
def test_paths_stay_as_they_are(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if not any(shape in path for shape in ("hf_", "gh", "sk-", "AKIA", "ASIA", "AIza", "xox", "eyJ", "asic", "earer")):
        assert redact_text(path) == path


@given(st.binary(min_size=32, max_size=32))
def test_digests_stay_as_they_are(raw: bytes) -> None:
    for text in (raw.hex(), f"sha256:{raw.hex()}", f"digest {raw.hex()} does not match"):
        assert redact_text(text) == text


marks = ['"', "'", "\\", "=", ":", " ", "&", "?", "@", "://", "token", "cookie", "Bearer ", "{", "-----BEGIN "]
noise = st.one_of(st.sampled_from(marks), st.text(max_size=10))
pieces = st.lists(
    st.one_of(noise, st.sampled_from([text for text, _ in TEXTS.values()])),
    max_size=6,
).map("".join)
values = st.recursive(
    st.one_of(pieces, st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(pieces, inner, max_size=3)),
    max_leaves=8,
)


@given(values)
def test_redacting_twice_is_once_and_the_line_is_always_json(value: object) -> None:
    once = redact(value)
    line = msgspec.json.encode(once)
    assert b"\n" not in line
    json.loads(line)
    assert msgspec.json.encode(redact(once)) == line


@given(st.lists(noise, max_size=12).map("".join), st.sampled_from(list(TEXTS.values())))
def test_what_stands_before_it_hides_no_secret(before: str, fixture: tuple[str, list[str]]) -> None:
    clean = redact_text(f"{before} {HF} {JWT} https://u:{S}@h/ X-Amz-Signature={S}\n{fixture[0]}")
    assert HF not in clean
    assert JWT not in clean
    assert S not in clean


def test_what_json_cannot_say_is_said_otherwise() -> None:
    deep: list[Any] = []
    deep.append(deep)
    odd = {
        1: 2**200,
        "bytes": b"abc",
        "error": ValueError(f"token={S}"),
        "path": b"/m/\xff.gguf".decode("utf-8", "surrogateescape"),
        "nan": float("nan"),
        "set": {1},
        "deep": deep,
    }
    decoded = json.loads(msgspec.json.encode(redact(odd)))
    assert decoded["1"] == str(2**200)
    assert decoded["bytes"] == "<3 bytes>"
    assert decoded["error"] == f"token={MARK}"
    assert decoded["path"] == "/m/\\udcff.gguf"
    assert decoded["nan"] is None
    assert decoded["set"] == [1]


def test_a_long_text_is_cut_and_no_half_secret_is_left_at_the_cut() -> None:
    for start in range(MAX_TEXT - 60, MAX_TEXT, 7):
        clean = redact_text("x " * (start // 2) + HF + " tail" * 100)
        assert len(clean) <= MAX_TEXT
        assert clean.endswith("…")
        assert "hf_A" not in clean
        assert redact_text(clean) == clean


@pytest.mark.parametrize("unit", ["a", "eyJ", "sk-", "token", "token:'", "://", "Basic ", "%26", "\\", "hf_", '"', "@"])
def test_hostile_repetition_costs_no_more_than_plain_text(unit: str) -> None:
    # The test's own time limit is the assertion: a quadratic rule takes minutes for this.
    for _ in range(20):
        redact_text((unit * MAX_TEXT)[:MAX_TEXT])
