"""Signatures by a certificate: the bundle has the chain, the caller the roots and the time at which it must be valid.

The paths are built and judged by `cryptography`, by RFC 5280. The names in certificates for web servers are not asked
for: as in model-signing, the signer may sign data, or code.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from modeld.signatures.bundle import Bundle, CertificateChain
from modeld.signatures.faults import InvalidSignature, Unverifiable
from modeld.signatures.keys import check_signature, supported

_UNREADABLE: Final = (
    ValueError,
    KeyError,  # 45 and 46, for a name in an alphabet that does not exist
    exceptions.UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for certificates, which it reads part by part."""


class Signer(NamedTuple):
    subject: str
    fingerprint: str


def check_chain(bundle: Bundle, chain: CertificateChain, roots: bytes, at: datetime) -> Signer:
    """Checks that a certificate signed the bundle which leads to one of the roots (PEM), all valid at that time."""
    trusted = load_roots(roots)
    try:
        leaf, *issuers = [_load(each) for each in chain.certificates]
        keys = {each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in issuers}
        # With a key each, a certificate has one issuer, and there is one path. Seven that could issue each other have
        # 7^7: `cryptography` counts them out since a version after 46.
        path = _path(leaf, issuers, trusted, at) if len(keys) == len(issuers) else []
        if not set(issuers) <= set(path):
            raise InvalidSignature("certificate_chain", "the bundle has certificates that its signer does not need")
        if not _may_sign(leaf):
            raise InvalidSignature("certificate_usage", f"{_named(leaf)} is no certificate for signing")
        check_signature(bundle, supported(leaf.public_key()))
        return Signer(leaf.subject.rfc4514_string(), leaf.fingerprint(hashes.SHA256()).hex())
    except _UNREADABLE as fault:
        raise Unverifiable("certificate", f"a certificate cannot be read: {str(fault)[:200]}") from None


def _load(der: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(der)
    # The signature ends the certificate. The byte before it counts the bits to leave out: `cryptography` 50 takes any
    # number whose bits are zero, so one certificate could be written in two ways.
    if der[-len(certificate.signature) - 1]:
        raise ValueError("its signature is not of whole bytes")
    return certificate


def load_roots(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as fault:
        raise Unverifiable("roots", f"the given roots are no certificates in PEM: {str(fault)[:200]}") from None


def _path(
    leaf: x509.Certificate, issuers: list[x509.Certificate], roots: list[x509.Certificate], at: datetime
) -> list[x509.Certificate]:
    try:
        return _verified(leaf, issuers, roots, at)
    except VerificationError as fault:
        reason = str(fault)[:300]
    try:
        # The time for which model-signing verifies: what holds then and not now fails by its time alone.
        path = _verified(leaf, issuers, roots, leaf.not_valid_before_utc)
    except VerificationError:
        raise InvalidSignature(
            "certificate_untrusted", f"{_named(leaf)} does not lead to one of the given roots: {reason}"
        ) from None
    for each in path:
        if at > each.not_valid_after_utc:
            raise InvalidSignature(
                "certificate_expired", f"{_named(each)} expired on {each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            )
    raise InvalidSignature(
        "certificate_not_yet_valid", f"{_named(leaf)} or one that it needs is not valid yet on {at:%Y-%m-%d %H:%M %Z}"
    )


def _verified(
    leaf: x509.Certificate, issuers: list[x509.Certificate], roots: list[x509.Certificate], at: datetime
) -> list[x509.Certificate]:
    issuer = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_issuer)
    )
    policy = PolicyBuilder().extension_policies(ca_policy=issuer, ee_policy=ExtensionPolicy.permit_all())
    return policy.store(Store(roots)).time(at).build_client_verifier().verify(leaf, issuers).chain


def _check_issuer(_policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError(f"{_named(certificate)} may not sign certificates")


def _may_sign(leaf: x509.Certificate) -> bool:
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and value.digital_signature:
            return True
        if isinstance(value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in value:
            return True
    return False


def _named(certificate: x509.Certificate) -> str:
    return f"the certificate {certificate.subject.rfc4514_string()[:200]!r}"
