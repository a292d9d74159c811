"""What a bundle has besides what is signed is checked or refused; another spelling of the same is taken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from modeld.signatures.bundle import read_bundle
from modeld.signatures.document import from_base64
from modeld.signatures.verification import TrustedKey, signed_model
from rigs.signers import Json, new_key, public_pem, resources_of, signed_with_key, statement, text
from rigs.verifying import refusal

FILES = {"config.json": b"{}", "weights.bin": b"1"}

KEY = new_key()
TRUSTED = TrustedKey(public_pem(KEY))
SIGNED = signed_with_key(KEY, statement(resources_of(FILES)))

ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def changed(*path: Any, to: Any) -> Json:
    """The bundle with something else at this place; without it when that is an ellipsis."""
    document = copy.deepcopy(SIGNED)
    *above, last = path
    part: Any = document
    for each in above:
        part = part[each]
    if to is ...:
        del part[last]
    else:
        part[last] = to
    return document


MATERIAL = "verificationMaterial"
ENVELOPE = "dsseEnvelope"
HINT = SIGNED[MATERIAL]["publicKey"]["hint"]
SIG = SIGNED[ENVELOPE]["signatures"][0]


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        (changed("mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.1"), "media_type"),
        (changed("mediaType", to=None), "structure"),
        (changed("mediaType", to=...), "structure"),
        (changed("more", to=1), "structure"),
        (changed("messageSignature", to={}), "structure"),
        (changed(MATERIAL, to=[]), "structure"),
        (changed(MATERIAL, to=...), "material"),
        (changed(MATERIAL, to={}), "material"),
        (changed(MATERIAL, "more", to={}), "structure"),
        (changed(MATERIAL, "certificate", to={"rawBytes": "YQ=="}), "material"),
        (changed(MATERIAL, "publicKey", to={}), "material"),
        (changed(MATERIAL, "publicKey", "hint", to=7), "structure"),
        (changed(MATERIAL, "publicKey", "more", to="x"), "structure"),
        (changed(MATERIAL, "publicKey", "hint", to=""), "key"),
        (changed(MATERIAL, "publicKey", "hint", to=HINT.upper()), "key"),
        (changed(MATERIAL, "publicKey", "rawBytes", to=text(b"another")), "key"),
        (changed(MATERIAL, "publicKey", "rawBytes", to="YQ"), "base64"),
        (changed(MATERIAL, "publicKey", "keyDetails", to="PKIX_ECDSA_P384_SHA_384"), "key"),
        (changed(MATERIAL, "tlogEntries", to=[{}]), "log_entries"),
        (changed(MATERIAL, "tlogEntries", to={}), "structure"),
        (changed(MATERIAL, "timestampVerificationData", to={"rfc3161Timestamps": [{}]}), "log_entries"),
        (changed(MATERIAL, "timestampVerificationData", to={"more": []}), "structure"),
        (changed(MATERIAL, to={"x509CertificateChain": {"certificates": []}}), "material"),
        (changed(MATERIAL, to={"x509CertificateChain": {"certificates": [{"rawBytes": "YQ=="}] * 9}}), "material"),
        (changed(MATERIAL, to={"x509CertificateChain": {"certificates": [{"rawBytes": "YQ"}]}}), "base64"),
        (changed(MATERIAL, to={"certificate": {"rawBytes": "YQ"}, "tlogEntries": [{}]}), "base64"),
        (changed(ENVELOPE, to=...), "envelope"),
        (changed(ENVELOPE, "more", to=""), "structure"),
        (changed(ENVELOPE, "payload", to=text(b"{}")), "signature"),
        (changed(ENVELOPE, "payload", to=SIGNED[ENVELOPE]["payload"].rstrip("=") + "\n"), "base64"),
        (changed(ENVELOPE, "payloadType", to="application/json"), "payload_type"),
        (changed(ENVELOPE, "signatures", to=[]), "signatures"),
        (changed(ENVELOPE, "signatures", to=[SIG, SIG]), "signatures"),
        (changed(ENVELOPE, "signatures", 0, "keyid", to="x"), "keyid"),
        (changed(ENVELOPE, "signatures", 0, "keyid", to=0), "structure"),
        (changed(ENVELOPE, "signatures", 0, "more", to=0), "structure"),
        (changed(ENVELOPE, "signatures", 0, "sig", to=""), "base64"),
        (changed(ENVELOPE, "signatures", 0, "sig", to=text(b"no DER")), "signature"),
    ],
)
def test_what_is_not_as_it_must_be_is_refused(document: Json, rule: str) -> None:
    assert refusal(document, TRUSTED)[1] == rule


def test_a_field_twice_is_refused() -> None:
    twice = json.dumps(SIGNED).replace('"sig":', '"sig": "YQ==", "sig":').encode()
    assert refusal(twice, TRUSTED) == ("Unverifiable", "json")


def other_form(document: Json) -> Json:
    """Whoever has a signature can make the other one; both are of the same bytes."""
    r, s = decode_dss_signature(from_base64(SIG["sig"], "it"))
    return changed(ENVELOPE, "signatures", 0, "sig", to=text(encode_dss_signature(r, ORDER_OF_P256 - s)))


@pytest.mark.parametrize(
    "spelled",
    [
        lambda: json.dumps(SIGNED, indent=4),
        lambda: json.dumps(SIGNED, sort_keys=True, separators=(",", ":")) + "\r\n",
        lambda: json.dumps(changed(ENVELOPE, "signatures", 0, "keyid", to=None)),
        lambda: json.dumps(changed(ENVELOPE, "signatures", 0, "keyid", to=...)),
        lambda: json.dumps(changed(MATERIAL, "tlogEntries", to=...)),
        lambda: json.dumps(changed(MATERIAL, "timestampVerificationData", to={})),
        lambda: json.dumps(changed(MATERIAL, "timestampVerificationData", to={"rfc3161Timestamps": []})),
        lambda: json.dumps(changed(MATERIAL, "publicKey", to={"rawBytes": text(public_pem(KEY))})),
        lambda: json.dumps(changed(MATERIAL, "publicKey", "keyDetails", to="PKIX_ECDSA_P256_SHA_256")),
        lambda: json.dumps(other_form(SIGNED)),
    ],
)
def test_other_spellings_mean_the_same(spelled: Callable[[], str]) -> None:
    again = spelled().encode()
    assert again != json.dumps(SIGNED).encode()
    assert signed_model(again, TRUSTED) == signed_model(json.dumps(SIGNED).encode(), TRUSTED)


def test_what_is_signed_is_dsse_s_encoding() -> None:
    bundle = read_bundle(json.dumps(changed(ENVELOPE, "payload", to=text("ä".encode()))).encode())
    assert bundle.signed_bytes == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xa4"
