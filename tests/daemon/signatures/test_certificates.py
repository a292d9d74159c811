"""A certificate signs models when it leads to a root by certificates that may issue it, all valid, none needless."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from modeld.signatures.verification import TrustedRoots, signed_model
from rigs.signed_models import AT
from rigs.signers import Json, issue, new_key, resources_of, signed_with_chain, statement, usage
from rigs.verifying import refusal, verify

FILES = {"config.json": b"{}", "weights.bin": b"1"}

ROOT, ISSUER, SIGNER, OTHER = new_key(), new_key(), new_key(ec.SECP521R1()), new_key()

CA = x509.BasicConstraints(True, None)
NO_CA = x509.BasicConstraints(False, None)
SIGNS = usage("digital_signature")
ISSUES = usage("key_cert_sign")
CODE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
WEB = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

root = issue("Root", ROOT, "Root", ROOT, CA, ISSUES)
issuer = issue("Issuer", ISSUER, "Root", ROOT, CA, ISSUES)
signer = issue("Signer", SIGNER, "Issuer", ISSUER, NO_CA, SIGNS)

UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")


def trusted(*roots: x509.Certificate, at: datetime = AT) -> TrustedRoots:
    return TrustedRoots(b"".join(each.public_bytes(Encoding.PEM) for each in roots or (root,)), at)


def signed(*chain: x509.Certificate | bytes, key: Any = SIGNER) -> Json:
    return signed_with_chain(key, statement(resources_of(FILES)), chain)


def encoded(document: Json) -> bytes:
    return json.dumps(document).encode()


LONE = issue("Lone", SIGNER, "Lone", SIGNER, NO_CA, SIGNS)


@pytest.mark.parametrize(
    ("chain", "roots"),
    [
        ((signer, issuer), (root,)),
        ((signer, issuer, root), (root,)),
        ((signer, root, issuer), (root,)),
        ((signer, issuer), (issue("Root", OTHER, "Root", OTHER, CA), root)),
        ((signer,), (root, issuer)),
        ((LONE,), (LONE,)),
        ((issue("Signer", SIGNER, "Issuer", ISSUER, NO_CA, CODE), issuer), (root,)),
        ((issue("Signer", SIGNER, "Issuer", ISSUER, CA, SIGNS), issuer), (root,)),
        # Of an authority that has the name of what it issues.
        ((issue("Issuer", SIGNER, "Issuer", ISSUER, CA, SIGNS), issuer), (root,)),
        ((signer, issue("Issuer", ISSUER, "Root", ROOT, CA)), (root,)),
        ((signer, issue("Issuer", ISSUER, "Root", ROOT, x509.BasicConstraints(True, 0), CODE)), (root,)),
    ],
)
def test_a_chain_that_leads_to_a_root_holds(
    chain: tuple[x509.Certificate, ...], roots: tuple[x509.Certificate, ...]
) -> None:
    comparison, read = verify(encoded(signed(*chain)), trusted(*roots), FILES)
    assert comparison.verified
    assert not read


OTHERS = issue("Issuer", OTHER, "Root", ROOT, CA, ISSUES)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("document", "roots", "rule"),
    [
        (signed(signer), (root,), "certificate_untrusted"),
        (signed(signer, OTHERS), (root,), "certificate_untrusted"),
        (signed(signer, issuer), (issue("Root", OTHER, "Root", OTHER, CA, ISSUES),), "certificate_untrusted"),
        (signed(signer, issue("Issuer", ISSUER, "Root", ROOT, NO_CA, ISSUES)), (root,), "certificate_untrusted"),
        (signed(signer, issue("Issuer", ISSUER, "Root", ROOT, ISSUES)), (root,), "certificate_untrusted"),
        (signed(signer, issue("Issuer", ISSUER, "Root", ROOT, CA, SIGNS)), (root,), "certificate_untrusted"),
        (signed(signer, issue("Issuer", ISSUER, "Root", ROOT, UNKNOWN, CA)), (root,), "certificate_untrusted"),
        (
            signed(signer, issuer),
            (issue("Root", ROOT, "Root", ROOT, x509.BasicConstraints(True, 0)),),
            "certificate_untrusted",
        ),
        (
            signed(signer, issuer, issue("Root", ROOT, "Top", OTHER, x509.BasicConstraints(True, 0))),
            (issue("Top", OTHER, "Top", OTHER, CA),),
            "certificate_untrusted",
        ),
        (signed(LONE), (root,), "certificate_untrusted"),
        (signed(issue("Signer", SIGNER, "Issuer", ISSUER, UNKNOWN, SIGNS), issuer), (root,), "certificate_untrusted"),
        (signed(signer, issuer, OTHERS), (root,), "certificate_chain"),
        (signed(signer, issuer, root), (issuer,), "certificate_chain"),
        (signed(issue("Signer", SIGNER, "Issuer", ISSUER, NO_CA), issuer), (root,), "certificate_usage"),
        (signed(issue("Signer", SIGNER, "Issuer", ISSUER, WEB), issuer), (root,), "certificate_usage"),
        (signed(issue("Signer", SIGNER, "Issuer", ISSUER, ISSUES), issuer), (root,), "certificate_usage"),
        (signed(signer, issuer, key=OTHER), (root,), "signature"),
        (signed(issue("S", OTHER, "Issuer", ISSUER, SIGNS), issuer), (root,), "signature"),
        (signed(b"no certificate"), (root,), "certificate"),
        (signed(issue("S", ed25519.Ed25519PrivateKey.generate(), "Root", ROOT, SIGNS)), (root,), "public_key"),
        (signed(issue("S", rsa.generate_private_key(65537, 2048), "Root", ROOT, SIGNS)), (root,), "public_key"),
        (signed(issue("S", new_key(ec.SECP256K1()), "Root", ROOT, SIGNS)), (root,), "public_key"),
        (signed(signer, issue("Issuer", ISSUER, "Root", ROOT, CA, ends=AT)), (root,), "ok"),
        (
            signed(signer, issue("Issuer", ISSUER, "Root", ROOT, CA, ends=AT - timedelta(seconds=1))),
            (root,),
            "certificate_expired",
        ),
        (
            signed(signer, issuer),
            (issue("Root", ROOT, "Root", ROOT, CA, ends=AT - timedelta(days=1)),),
            "certificate_expired",
        ),
        (
            signed(issue("Signer", SIGNER, "Issuer", ISSUER, SIGNS, begins=LATER), issuer),
            (root,),
            "certificate_not_yet_valid",
        ),
    ],
)
def test_what_does_not_lead_there_is_refused_for_its_reason(
    document: Json, roots: tuple[x509.Certificate, ...], rule: str
) -> None:
    if rule == "ok":
        assert signed_model(encoded(document), trusted(*roots)).subject == "CN=Signer"
    else:
        assert refusal(document, trusted(*roots))[1] == rule


def test_the_time_may_be_of_any_zone() -> None:
    document = signed(signer, issue("Issuer", ISSUER, "Root", ROOT, CA, ends=AT))
    east = timezone(timedelta(hours=9))
    assert signed_model(encoded(document), trusted(at=AT.astimezone(east))).subject
    late = (AT + timedelta(seconds=1)).astimezone(east)
    assert refusal(document, trusted(at=late)) == ("InvalidSignature", "certificate_expired")


def test_a_certificate_has_one_spelling() -> None:
    """A signature whose last bit is zero can be written as one of a bit less."""
    while (certificate := issue("Signer", SIGNER, "Issuer", ISSUER, NO_CA, SIGNS)).signature[-1] & 1:
        continue
    der = bytearray(certificate.public_bytes(Encoding.DER))
    assert signed_model(encoded(signed(bytes(der), issuer)), trusted()).subject
    der[-len(certificate.signature) - 1] = 1
    assert refusal(signed(bytes(der), issuer), trusted()) == ("Unverifiable", "certificate")


@pytest.mark.parametrize("pem", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"])
def test_roots_that_cannot_be_read_are_refused(pem: bytes) -> None:
    assert refusal(signed(signer, issuer), TrustedRoots(pem, AT)) == ("Unverifiable", "roots")


def test_authorities_that_issue_each_other_do_not_hold_the_verifier_up() -> None:
    """With one key, seven of one name make 7^7 paths; with a key each, there is one."""
    same = [issue("Issuer", ISSUER, "Issuer", ISSUER, CA) for _ in range(7)]
    assert refusal(signed(signer, *same), trusted()) == ("InvalidSignature", "certificate_chain")
    assert refusal(signed(signer, issuer, issuer), trusted()) == ("InvalidSignature", "certificate_chain")
    keys = [ISSUER, *(new_key() for _ in range(6))]
    in_a_ring = [
        issue("Issuer", key, "Issuer", above, CA) for key, above in zip(keys, [*keys[1:], ISSUER], strict=True)
    ]
    assert refusal(signed(signer, *in_a_ring), trusted()) == ("InvalidSignature", "certificate_untrusted")
