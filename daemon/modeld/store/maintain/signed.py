"""Verifies the signature of a model: that a trusted signer signed its files as they are here.

Files are compared by the digests that the manifest names. That holds only for a model that is given out, so one that is
suspect is verified first. Where the signer used another hash, or signed shards, the bytes are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

import anyio
import anyio.to_thread

from modeld.progress import FileProgress, JobProgress
from modeld.signatures.comparison import Comparison, ModelFile, compare
from modeld.signatures.faults import FilesDiffer, InvalidSignature, Keyless, Unverifiable
from modeld.signatures.resources import ONE_FILE
from modeld.signatures.verification import SignedModel, TrustedKey, TrustedRoots, signed_model
from modeld.store.blobs.blobs import chunks_of_blob
from modeld.store.catalog.history import Outcome
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.maintain.checking import Checker, Manner
from modeld.store.maintain.verify import Verifier
from modeld.store.manifests.entries import Entry, cannot_be_used
from modeld.store.manifests.states import Answer
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modelwire.errors import Corrupt, DigestMismatch, Unsupported
from modelwire.values import SignatureVerified

_MOST_LISTED: Final = 1_000
"""Paths of each kind in the details of an error, which the ledger keeps: with usual paths 50 KB."""


_LONGEST: Final = 500
"""Characters of a subject or a reason in the history, which every `show` repeats: a sentence can name twelve paths."""


class Signature:
    """A bundle, and who is trusted to have signed it."""

    def __init__(self, bundle: bytes, trusted: TrustedKey | TrustedRoots) -> None:
        self.bundle = bundle
        self.trusted = trusted
        self.by: Literal["key", "certificate"] = "key" if isinstance(trusted, TrustedKey) else "certificate"
        self.digest = Digest(hashlib.sha256(bundle).hexdigest())


class SignatureVerifier:
    """For the event loop; the bytes are read in the threads of the checker."""

    def __init__(self, checker: Checker, verifier: Verifier, holds: Holds) -> None:
        self._name_changes = checker.name_changes
        self._history = checker.history
        self._threads = checker.threads
        self._verifier = verifier
        self._holds = holds

    async def verify(
        self, name: str, signature: Signature, *, manner: Manner, progress: JobProgress
    ) -> SignatureVerified:
        """Raises DigestMismatch when the signature does not hold for the model, which is recorded as a success is, and
        Unsupported when nothing can be known of it. Both have the `rule` in their details."""
        index, layout = self._name_changes.index, self._name_changes.layout
        entry = await self._name_changes.in_thread(partial(index.find, name))
        with self._holds.relying_on(*entry.usable().blobs(), layout.staging):
            await self._make_sure(entry, manner, progress)
            run = _Run(entry, layout, signature, progress)
            try:
                compared = await anyio.to_thread.run_sync(run.compare, limiter=self._threads)
            except InvalidSignature as fault:
                await self._record(run.refused(fault), manner)
                raise run.mismatch(fault) from None
            except Unverifiable as fault:
                raise run.unsupported(fault) from None
            await self._make_sure(entry, manner, progress)
        await self._record(run.outcome("signed"), manner)
        return run.verified(compared)

    async def _record(self, outcome: Outcome, manner: Manner) -> None:
        with anyio.CancelScope(shield=True):
            await self._history.record([outcome], manner.requester)

    async def _make_sure(self, entry: Entry, manner: Manner, progress: JobProgress) -> None:
        """Returns when the model can be given out: its bytes are as they were when they were last hashed."""
        look = await self._name_changes.in_thread(entry.look)
        if look.state.answer is Answer.VERIFY:
            verification = await self._verifier.verify([entry.name.text], manner, progress=progress)
            bad = next((model for model in verification.models if not model.ok), None)
            if bad is not None:
                raise cannot_be_used(entry, bad.reason or "its bytes are not what they were")
            look = await self._name_changes.in_thread(entry.look)
        entry.checked(look)
        if look.state.answer is not Answer.PATH:
            raise Corrupt(
                f"'{entry.name.text}' changes each time it is looked at",
                hint="Find the program that writes to its files, then try again.",
                details={"name": entry.name.text},
            )


class _Run:
    """One verification. `compare` blocks."""

    def __init__(self, entry: Entry, layout: Layout, signature: Signature, progress: JobProgress) -> None:
        self._manifest = entry.usable()
        self._layout = layout
        self._signature = signature
        self._progress = progress
        self._blobs = {file.path: Digest.parse(file.blob) for file in self._manifest.files}
        if not self._blobs:
            source = self._manifest.source
            self._blobs = {(source and source.filename) or ONE_FILE: self._manifest.digest}
        self._sizes_of = entry.sizes
        self._signed: SignedModel | None = None
        self._read = False

    def compare(self) -> Comparison:
        self._progress.phase("verify")
        self._signed = signed_model(self._signature.bundle, self._signature.trusted)
        sizes = self._sizes_of()
        files = [ModelFile(path, sizes[digest.text], digest.hex) for path, digest in self._blobs.items()]
        if not self._signed.statement.by_record:
            self._progress.total(self._progress.done + sum(file.size for file in files))
        beside = next((path for path, digest in self._blobs.items() if digest.matches(self._signature.digest)), None)
        return compare(self._signed, files, self._chunks_of, beside)

    def _chunks_of(self, path: str) -> Iterator[memoryview]:
        self._read = True
        return chunks_of_blob(self._layout, self._blobs[path], FileProgress(self._progress))

    def outcome(self, outcome: str, **more: str) -> Outcome:
        """It belongs to the name: a model that shares a blob with this one is not signed for that. `content` tells
        what the name stood for. No digest of bytes is claimed, also where bytes were read for another hash."""
        signed = self._signed
        details: dict[str, str | bool] = {
            "signature": self._signature.digest.text,
            "by": self._signature.by,
            "read": self._read,
            "content": self._manifest.content,
            **more,
        }
        if signed is not None:
            details["signer"] = signed.signer
            if signed.subject is not None:
                details["subject"] = signed.subject[:_LONGEST]
        name = ModelName.parse(self._manifest.name)
        return Outcome(digest=self._manifest.digest, outcome=outcome, model=name, details=details)

    def refused(self, fault: InvalidSignature) -> Outcome:
        return self.outcome("signature_invalid", rule=fault.rule, reason=str(fault)[:_LONGEST])

    def verified(self, compared: Comparison) -> SignatureVerified:
        assert self._signed is not None
        return SignatureVerified(
            name=self._manifest.name,
            blob=self._manifest.blob,
            signature=self._signature.digest.text,
            by=self._signature.by,
            signer=self._signed.signer,
            subject=self._signed.subject,
            read=self._read,
            verified=compared.verified,
            not_signed=compared.not_signed,
        )

    def mismatch(self, fault: InvalidSignature) -> DigestMismatch:
        details: dict[str, object] = {
            "name": self._manifest.name,
            "rule": fault.rule,
            "signature": self._signature.digest.text,
            "read": self._read,
        }
        if isinstance(fault, FilesDiffer) and self._signed is not None:
            details |= {"signer": self._signed.signer, "subject": self._signed.subject}
            for kind in ("changed", "renamed", "missing", "unsigned"):
                paths = getattr(fault, kind)
                details |= {kind: paths[:_MOST_LISTED], f"{kind}_count": len(paths)}
            hint = "Get the files again from the signer, or use the signature that was made for these."
        else:
            hint = "Do not trust the model by this signature; check that it is the signer's, and that the key is."
        return DigestMismatch(f"'{self._manifest.name}': {fault}", hint=hint, details=details)

    def unsupported(self, fault: Unverifiable) -> Unsupported:
        return Unsupported(
            f"the signature of '{self._manifest.name}' cannot be verified: {fault}",
            hint="Nothing is known of this signature: it may hold, or not. Ask the signer for one that is made with a"
            " key or a certificate."
            if isinstance(fault, Keyless)
            else "Nothing is known of this signature: it may hold, or not.",
            details={"name": self._manifest.name, "rule": fault.rule, "signature": self._signature.digest.text},
        )
