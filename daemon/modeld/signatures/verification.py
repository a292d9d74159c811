"""The signature of a model, verified for a signer that the caller trusts: the only way to what is signed."""

from __future__ import annotations

from datetime import datetime
from types import ModuleType

import msgspec

from modeld.signatures.bundle import CertificateChain, KeyHint, read_bundle
from modeld.signatures.faults import InvalidSignature, Keyless, MissingPackage
from modeld.signatures.statement import Statement, read_statement


class TrustedKey(msgspec.Struct, frozen=True):
    pem: bytes


class TrustedRoots(msgspec.Struct, frozen=True):
    pem: bytes
    """One certificate or more."""

    at: datetime
    """With its time zone. The specification wants the signer's certificate to be valid when it is verified;
    model-signing takes the beginning of that certificate, so that it never expires."""


class SignedModel(msgspec.Struct, frozen=True):
    """What a trusted signer signed. Only `compare` says whether the files are these."""

    signer: str
    """The fingerprint of a key (of its PEM, as bundles name it), or of a certificate (of its DER)."""

    subject: str | None
    """Of a certificate."""

    statement: Statement


def signed_model(bundle: bytes, trusted: TrustedKey | TrustedRoots) -> SignedModel:
    """Raises InvalidSignature or Unverifiable, and reads what is signed only after the signature holds."""
    read = read_bundle(bundle)
    if read.material is None:
        raise Keyless
    keys, certificates = _readers()
    match read.material, trusted:
        case KeyHint() as named, TrustedKey(pem=pem):
            signer, subject = keys.check_key(read, named, pem), None
        case CertificateChain() as chain, TrustedRoots(pem=pem, at=at):
            subject, signer = certificates.check_chain(read, chain, pem, at)
        case KeyHint(), TrustedRoots():
            raise InvalidSignature(
                "signer", "the model is signed with a key alone, which no root certificate vouches for"
            )
        case _:
            raise InvalidSignature("signer", "the model is signed with a certificate, and not with the given key alone")
    return SignedModel(signer, subject, read_statement(read.payload))


def check_signer(trusted: TrustedKey | TrustedRoots) -> None:
    """Raises Unverifiable when no signature can be verified by this key or these roots."""
    keys, certificates = _readers()
    if isinstance(trusted, TrustedKey):
        keys.load(trusted.pem)
    else:
        certificates.load_roots(trusted.pem)


def _readers() -> tuple[ModuleType, ModuleType]:
    try:
        # Costs 40 ms, and is an extra: only who verifies pays for it.
        from modeld.signatures import certificates, keys
    except ImportError as fault:
        if (fault.name or "").partition(".")[0] != "cryptography":
            raise
        raise MissingPackage(
            "cryptography",
            "verifying signatures needs the package `cryptography`, 45 or later, which the extra `signatures` installs:"
            " pip install 'modeld[daemon,signatures]'",
        ) from None
    return keys, certificates
