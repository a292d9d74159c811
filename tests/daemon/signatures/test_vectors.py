"""The bundles of the specification: those that are valid are read, each of the others is refused for its own reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.signatures.bundle import CertificateChain, KeyHint, read_bundle
from modeld.signatures.faults import Keyless, Unverifiable
from modeld.signatures.statement import Statement, read_statement
from modeld.signatures.verification import TrustedKey, signed_model
from rigs.signed_models import pem

VECTORS = Path(__file__).parent / "vectors"


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.bundle.json").read_bytes()


def read(name: str) -> Statement:
    return read_statement(read_bundle(vector(name)).payload)


@pytest.mark.parametrize(
    ("name", "kind"), [("key", KeyHint), ("certificate", CertificateChain), ("sigstore", type(None))]
)
def test_the_valid_ones_are_read(name: str, kind: type) -> None:
    assert type(read_bundle(vector(f"valid-{name}")).material) is kind
    statement = read(f"valid-{name}")
    assert set(statement.files) == {"signme-1", "signme-2"}
    assert ("ignore-me",) in statement.ignored
    assert statement.by_record


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("empty", "empty"),
        ("missing-envelope", "envelope"),
        ("missing-tlog-entries", "log_entries"),
        ("missing-verification-material", "material"),
        ("payload-wrong-predicate", "predicate_type"),
    ],
)
def test_the_invalid_ones_are_refused(name: str, rule: str) -> None:
    with pytest.raises(Unverifiable) as caught:
        read(f"invalid-{name}")
    assert caught.value.rule == rule


def test_all_vectors_are_used() -> None:
    assert len(list(VECTORS.glob("*.json"))) == 8


def test_a_keyless_signature_has_its_own_refusal() -> None:
    with pytest.raises(Keyless) as caught:
        signed_model(vector("valid-sigstore"), TrustedKey(pem("p256")))
    assert caught.value.rule == "keyless"
    assert "transparency log" in str(caught.value)
