"""`modelctl verify --signature`, with a real daemon: what people and programs get, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from modelwire import limits
from rigs.command import Ctl
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement

FILES = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"\2\0\0\0\0\0\0\0{}"}


@pytest.fixture
def key() -> EllipticCurvePrivateKey:
    return new_key()


@pytest.fixture
def signed(ctl: Ctl, key: EllipticCurvePrivateKey) -> list[str]:
    """The model `m`, and the words that verify its signature."""
    (ctl.room / "m").mkdir()
    for path, content in FILES.items():
        (ctl.room / "m" / path).write_bytes(content)
    ctl.json("add", str(ctl.room / "m"))
    return words(ctl, signed_with_key(key, statement(resources_of(FILES))), key)


def words(ctl: Ctl, signature: dict[str, Any], key: EllipticCurvePrivateKey) -> list[str]:
    made = ctl.file("m.sig", json.dumps(signature).encode())
    return ["verify", "--signature", made, "--key", ctl.file("m.pub", public_pem(key)), "m"]


def test_a_signature_that_holds(ctl: Ctl, signed: list[str]) -> None:
    done = ctl(*signed)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["signature"] == "holds"
    assert rows["files"] == "2 files, compared by their recorded digests, without reading them"
    found = ctl.json(*signed)
    assert found["signer"] == rows["key"]
    assert (found["read"], found["verified"], found["not_signed"]) == (False, sorted(FILES), [])


def test_files_that_differ_end_with_six(ctl: Ctl, signed: list[str], key: EllipticCurvePrivateKey) -> None:
    other = words(ctl, signed_with_key(key, statement(resources_of(FILES | {"config.json": b"{}"}))), key)
    done = ctl(*other)
    assert (done.returncode, done.stdout) == (6, "")
    assert "changed: config.json" in done.stderr
    assert "the files are not those that were signed" in done.stderr
    done = ctl(*other, "--json")
    error = json.loads(done.stdout or done.stderr)["error"]
    assert (done.returncode, error["code"], error["details"]["rule"]) == (6, "digest_mismatch", "changed")


def test_what_cannot_be_verified_ends_with_one(ctl: Ctl, signed: list[str]) -> None:
    Path(signed[2]).write_text("{}")
    done = ctl(*signed)
    assert done.returncode == 1
    assert "cannot be verified" in done.stderr
    assert "it may hold, or not" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", "k", "m"],
        ["--signature", "s", "m"],
        ["--signature", "s", "--key", "k", "--roots", "r", "m"],
        ["--signature", "s", "--key", "k"],
        ["--signature", "s", "--key", "k", "--all"],
        ["--signature", "s", "--key", "k", "a", "b"],
        ["--signature", "s", "--key", "k", "--quick", "m"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_together(ctl: Ctl, arguments: list[str]) -> None:
    done = ctl("verify", "--no-start", *arguments)
    assert done.returncode == 2
    assert "with --signature and one of --key and --roots" in done.stderr


def test_files_that_cannot_be_sent(ctl: Ctl) -> None:
    """Before the daemon is asked: none is started."""
    for content, code, why in (
        (None, 3, "there is no file of the signature"),
        (b"\xff", 2, "not text"),
        (b"x" * (limits.SIGNATURE + 1), 2, "more than"),
    ):
        path = ctl.room / "s"
        if content is not None:
            path.write_bytes(content)
        done = ctl("verify", "--no-start", "--signature", "s", "--key", "k", "m")
        assert done.returncode == code
        assert why in done.stderr
