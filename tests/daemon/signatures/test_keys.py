"""The caller's key is a public one, of a curve that the specification names."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from modeld.signatures.verification import TrustedKey, signed_model
from rigs.signed_models import bundle, pem
from rigs.signers import new_key, public_pem
from rigs.verifying import refusal


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"no PEM",
        b"-----BEGIN PUBLIC KEY-----\nYQ==\n-----END PUBLIC KEY-----\n",
        private(new_key()),
        public_pem(new_key(ec.SECP256K1())),
        public_pem(new_key(ec.SECP224R1())),
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_what_is_no_such_key_is_refused(given: bytes) -> None:
    assert refusal(bundle("key-p256"), TrustedKey(given)) == ("Unverifiable", "public_key")


def test_the_key_may_be_written_in_another_way() -> None:
    """model-signing hashes the PEM as it would write it itself."""
    given = pem("p256")
    spelled = b"# the key\r\n" + given.replace(b"\n", b"\r\n")
    assert signed_model(bundle("key-p256"), TrustedKey(spelled)) == signed_model(bundle("key-p256"), TrustedKey(given))
