"""Signs statements, also such as no honest signer signs; and certificates, also such as no authority issues."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

Json = dict[str, Any]

_HASHES: Mapping[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def resources_of(files: Mapping[str, bytes]) -> list[Json]:
    return [
        {"name": path, "algorithm": "sha256", "digest": hashlib.sha256(content).hexdigest()}
        for path, content in sorted(files.items())
    ]


def statement(resources: Sequence[Json], **serialization: Any) -> Json:
    digests = b"".join(bytes.fromhex(each["digest"]) for each in resources)
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, **serialization}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": hashlib.sha256(digests).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": how, "resources": list(resources)},
    }


def envelope(key: ec.EllipticCurvePrivateKey, payload: bytes) -> Json:
    kind = "application/vnd.in-toto+json"
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = key.sign(encoded, ec.ECDSA(_HASHES[key.key_size]))
    return {"payload": text(payload), "payloadType": kind, "signatures": [{"sig": text(signature), "keyid": ""}]}


def bundle_of(material: Json, enveloped: Json) -> Json:
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    return {"mediaType": kind, "verificationMaterial": material, "dsseEnvelope": enveloped}


def signed_with_key(key: ec.EllipticCurvePrivateKey, payload: bytes | Json) -> Json:
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    hint = hashlib.sha256(public_pem(key)).hexdigest()
    return bundle_of({"publicKey": {"hint": hint}, "tlogEntries": []}, envelope(key, payload))


def signed_with_chain(
    key: ec.EllipticCurvePrivateKey, payload: Json, certificates: Iterable[x509.Certificate | bytes]
) -> Json:
    chain = [each if isinstance(each, bytes) else each.public_bytes(Encoding.DER) for each in certificates]
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": text(each)} for each in chain]}}
    return bundle_of(material, envelope(key, json.dumps(payload).encode()))


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{each: each in names for each in _USAGES})


def issue(
    subject: str,
    key: Any,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
    begins: datetime = datetime(2025, 1, 1, tzinfo=UTC),
    ends: datetime = datetime(2099, 1, 1, tzinfo=UTC),
) -> x509.Certificate:
    """With these extensions and no others; the first is critical."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for number, extension in enumerate(extensions):
        builder = builder.add_extension(extension, critical=number == 0)
    return builder.sign(signer, hashes.SHA256())
