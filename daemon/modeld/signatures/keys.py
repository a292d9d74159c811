"""Signatures by a key: the caller has the public key. This module and `certificates` alone need `cryptography`."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from modeld.signatures.bundle import Bundle, KeyHint
from modeld.signatures.faults import InvalidSignature, Unverifiable


class _Curve(NamedTuple):
    hash: hashes.HashAlgorithm
    details: str
    """What a bundle of model-signing before 1.1 calls such a key."""


_CURVES: Final = {
    "secp256r1": _Curve(hashes.SHA256(), "PKIX_ECDSA_P256_SHA_256"),
    "secp384r1": _Curve(hashes.SHA384(), "PKIX_ECDSA_P384_SHA_384"),
    "secp521r1": _Curve(hashes.SHA512(), "PKIX_ECDSA_P521_SHA_512"),
}


def check_key(bundle: Bundle, named: KeyHint, pem: bytes) -> str:
    """Checks that the key signed the bundle, which names it so. Returns the fingerprint of the key."""
    key = load(pem)
    # model-signing hashes the PEM as it writes it itself, not the DER that is in it.
    spelled = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(spelled).hexdigest()
    if named.hint not in (None, fingerprint) or named.raw_bytes not in (None, spelled):
        raise InvalidSignature("key", f"the model is signed with another key than {fingerprint}")
    if named.details not in (None, _CURVES[key.curve.name].details):
        raise InvalidSignature("key", f"the model is signed with a key of another kind than {fingerprint}")
    check_signature(bundle, key)
    return fingerprint


def check_signature(bundle: Bundle, key: ec.EllipticCurvePublicKey) -> None:
    """Checks that the holder of the key signed the bundle; the key is of a curve that `supported` lets pass."""
    try:
        key.verify(bundle.signature, bundle.signed_bytes, ec.ECDSA(_CURVES[key.curve.name].hash))
    except exceptions.InvalidSignature:
        raise InvalidSignature("signature", "the signature does not match what is signed, or its key") from None


def supported(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise Unverifiable("public_key", "the public key is none of the curves P-256, P-384 and P-521")
    return key


def load(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as fault:
        raise Unverifiable("public_key", f"the given key is no public key in PEM: {str(fault)[:200]}") from None
    return supported(key)
