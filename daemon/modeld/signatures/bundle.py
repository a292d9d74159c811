"""The file that holds a signature: a sigstore bundle 0.3 around a DSSE envelope.

    {"mediaType", "verificationMaterial": {…},
     "dsseEnvelope": {"payload", "payloadType", "signatures": [{"sig", "keyid"}]}}

What the signature does not cover must be known, and either be checked against what the caller trusts or be empty. So
nothing in a bundle that holds can be changed, but for whitespace and the second form that each ECDSA signature has.
"""

from __future__ import annotations

from typing import Final

import msgspec

from modeld.signatures.document import from_base64, parse, shaped
from modeld.signatures.faults import Unverifiable

_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

_WHAT: Final = "the signature's bundle"

_MAX_CERTIFICATES: Final = 8
"""Chains in use have two to four."""


class _PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    hint: str | None = None
    raw_bytes: str | None = None
    key_details: str | None = None


class _Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    raw_bytes: str


class _Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificates: tuple[_Certificate, ...]


class _Timestamps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    rfc3161_timestamps: tuple[dict[str, object], ...] = ()


class _Material(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None
    tlog_entries: tuple[dict[str, object], ...] = ()
    timestamp_verification_data: _Timestamps = _Timestamps()


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sig: str
    keyid: str | None = None


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    media_type: str
    verification_material: _Material | None = None
    dsse_envelope: _Envelope | None = None


class KeyHint(msgspec.Struct, frozen=True):
    """What a bundle says of the key that signed it; nothing of it is signed."""

    hint: str | None
    raw_bytes: bytes | None
    """The key itself, in bundles of model-signing before 1.1."""

    details: str | None


class CertificateChain(msgspec.Struct, frozen=True):
    certificates: tuple[bytes, ...]
    """DER, that of the signer first."""


class Bundle(msgspec.Struct, frozen=True):
    material: KeyHint | CertificateChain | None
    """None when it is keyless."""

    payload: bytes
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """DSSE's pre-authentication encoding."""
        return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(self.payload), self.payload)


def read_bundle(data: bytes) -> Bundle:
    """What the file claims; nothing of it is verified. Raises Unverifiable."""
    if not data:
        raise Unverifiable("empty", "the signature is an empty file")
    document = shaped(parse(data, _WHAT), _Document, _WHAT)
    if document.media_type != _MEDIA_TYPE:
        raise Unverifiable("media_type", f"{_WHAT} is of the type {document.media_type[:200]!r}; {_MEDIA_TYPE} is read")
    if document.verification_material is None:
        raise Unverifiable("material", f"{_WHAT} names neither a key nor a certificate")
    if document.dsse_envelope is None:
        raise Unverifiable("envelope", f"{_WHAT} has no envelope with what is signed")
    payload, signature = _read_envelope(document.dsse_envelope)
    return Bundle(_read_material(document.verification_material), payload, signature)


def _read_envelope(envelope: _Envelope) -> tuple[bytes, bytes]:
    if envelope.payload_type != _PAYLOAD_TYPE:
        raise Unverifiable("payload_type", f"{_WHAT} signs a {envelope.payload_type[:200]!r}, not a {_PAYLOAD_TYPE}")
    if len(envelope.signatures) != 1:
        raise Unverifiable("signatures", f"{_WHAT} has {len(envelope.signatures)} signatures, and must have one")
    (signature,) = envelope.signatures
    if signature.keyid:
        raise Unverifiable("keyid", f"{_WHAT} names its key by a `keyid`, which model signatures do not use")
    return from_base64(envelope.payload, "what is signed"), from_base64(signature.sig, "the signature")


def _read_material(material: _Material) -> KeyHint | CertificateChain | None:
    kinds = (material.public_key, material.x509_certificate_chain, material.certificate)
    if sum(kind is not None for kind in kinds) != 1:
        raise Unverifiable("material", f"{_WHAT} must name one of a key, a chain of certificates, and a certificate")
    if material.certificate is not None:
        if not material.tlog_entries:
            raise Unverifiable("log_entries", f"{_WHAT} is of a keyless signature, without its entry in a log")
        from_base64(material.certificate.raw_bytes, "its certificate")
        return None
    if material.tlog_entries or material.timestamp_verification_data.rfc3161_timestamps:
        raise Unverifiable(
            "log_entries", f"{_WHAT} has entries of a log or timestamps, which only keyless signatures need"
        )
    if material.public_key is not None:
        return _read_key(material.public_key)
    assert material.x509_certificate_chain is not None
    chain = material.x509_certificate_chain.certificates
    if not 1 <= len(chain) <= _MAX_CERTIFICATES:
        raise Unverifiable("material", f"{_WHAT} has {len(chain)} certificates; one to {_MAX_CERTIFICATES} are read")
    return CertificateChain(tuple(from_base64(each.raw_bytes, "a certificate") for each in chain))


def _read_key(key: _PublicKey) -> KeyHint:
    if key.hint is None and key.raw_bytes is None:
        raise Unverifiable("material", f"{_WHAT} does not say which key signed it")
    raw_bytes = None if key.raw_bytes is None else from_base64(key.raw_bytes, "the key")
    return KeyHint(key.hint, raw_bytes, key.key_details)
