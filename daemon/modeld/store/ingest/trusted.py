"""Whether the files of a publication are signed as [trust] requires: every publication passes here before its manifest.

Files are compared by the digests that they were staged or found by. Where the signer used another hash, or signed
shards, the bytes are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from modeld.platform import files as system
from modeld.progress import FileProgress, JobProgress, check
from modeld.signatures.comparison import ModelFile, compare
from modeld.signatures.document import MAX_BUNDLE
from modeld.signatures.faults import FilesDiffer, SignatureFault
from modeld.signatures.rules import Rule, Rules, Signed
from modeld.signatures.statement import Statement
from modeld.store.blobs.blobs import Blob, chunks_of_blob
from modeld.store.blobs.hashing import CHUNK
from modeld.store.catalog.history import Outcome
from modeld.store.digest import Digest
from modeld.store.disk.durable import read_at, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.ingest.staged import Staged
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.index import Index
from modeld.store.names import ModelName
from modelwire.errors import Untrusted

SIGNATURE_FILE: Final = "model.sig"
"""What model-signing calls the signature of a directory by default."""

_GIT_FILES: Final = frozenset({".gitattributes", ".gitignore"})
"""At the top of a repository: git's, which signers leave out. Other files that signers may leave out must be listed:
an unsigned `.github/model.gguf` would be a model too."""

_GIVEN: Final = "`modelctl pull --signature` or `modelctl add --signature`"

_MOST_LISTED: Final = 100
"""Paths of each kind in the details of an error."""

_LONGEST: Final = 500
"""Characters of a subject in the history, which every `show` repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the files of a publication are from."""

    reference: str
    """The canonical spelling, for people."""

    spellings: tuple[str, ...]
    """All texts by which a rule can mean this reference, or one of the files."""

    signature: bytes | None = None
    """That the request brought, or that stands beside the files and not among them."""

    whole: bool = False
    """Whether these are all files that are there: then none that was signed may be missing."""

    placeless: bool = False
    """Whether the reference is no more than a name: the files are bytes that are here, wherever they came from."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A signature that holds for the files of a publication."""

    details: Mapping[str, str | bool]

    def outcome(self, name: ModelName, digest: Digest, content: str) -> Outcome:
        """As that of a later verification of the signature: it belongs to the name, and claims no digest of bytes."""
        return Outcome(digest=digest, outcome="signed", model=name, details={**self.details, "content": content})


def names_beside(filename: str | None) -> tuple[str, ...]:
    """The names of files that may hold the signature of a model, the nearest first; `filename` is that of a model of
    one file."""
    return (SIGNATURE_FILE,) if filename is None else (f"{filename}.sig", SIGNATURE_FILE)


def check_early(rules: Rules, origin: Origin, paths: Collection[str]) -> None:
    """Raises Untrusted when a signature is required, and there is none or nobody who is trusted has made it. Before
    the first byte of the files is copied or fetched. Blocks."""
    rule = rules.matching(origin.spellings)
    if rule is None:
        return
    if origin.signature is not None:
        _signed(rule, origin, origin.signature)
    elif SIGNATURE_FILE not in paths:
        raise _missing(rule, origin)


def check_signed(
    rules: Rules,
    origin: Origin,
    contents: Mapping[str, Blob | Staged],
    index: Index,
    layout: Layout,
    progress: JobProgress,
) -> Proof | None:
    """None when no rule matches. Raises Untrusted when one does, and no signature by its signers holds for all files;
    and when none does because the files have no place, and no model has their bytes. Blocks, for as long as the bytes
    are read when the signature has no SHA-256 of whole files."""
    rule = rules.matching(origin.spellings)
    if rule is None:
        if rules and origin.placeless:
            _check_named(origin, {content.digest for content in contents.values()}, index)
        return None
    signature = origin.signature
    if signature is None:
        if (among := contents.get(SIGNATURE_FILE)) is None:
            raise _missing(rule, origin)
        signature = _read(among.path)
    digest = Digest(hashlib.sha256(signature).hexdigest())
    signed = _signed(rule, origin, signature)
    statement = signed.model.statement
    if not statement.by_record:
        progress.phase("verify")
        progress.total(progress.done + sum(content.size for content in contents.values()))
    exempt = {path for path, content in contents.items() if _needs_no_signature(statement, path, content, digest)}
    files = [ModelFile(path, each.size, each.digest.hex) for path, each in contents.items() if path not in exempt]
    try:
        chunks_of = partial(_chunks, contents, layout, progress)
        verified = compare(signed.model, files, chunks_of, None, some=not origin.whole).verified
        # What a signer left out needs no signature to be verified, and does to be let in.
        unsigned = {file.path for file in files} - set(verified)
        if unsigned or not verified:
            raise FilesDiffer(unsigned=sorted(unsigned or exempt))
    except SignatureFault as fault:
        raise _refused(rule, origin, fault) from None
    details: dict[str, str | bool] = {
        "signature": digest.text,
        "by": signed.by,
        "signer": signed.model.signer,
        "read": not statement.by_record,
        "required_by": str(rule)[:_LONGEST],
    }
    if signed.model.subject is not None:
        details["subject"] = signed.model.subject[:_LONGEST]
    return Proof(details)


def _check_named(origin: Origin, digests: Set[Digest], index: Index) -> None:
    """Raises Untrusted for bytes that no model has. A rule may have refused them where they came from; those of a
    present model have passed here, or are older than the rules. Manifests count as they are read: any text of theirs
    that only looks like the digest may be a writer's."""
    unnamed = set(digests)
    for entry in index.all_entries():
        unnamed -= _judged_files(entry)
        if not unnamed:
            return
    blobs = sorted(digest.text for digest in unnamed)
    raise Untrusted(
        f"{origin.reference} gets no name: no model that is here has the bytes {', '.join(blobs)}, and without their"
        " place no rule of [[trust.require]] can judge them",
        hint="Pull them from their place, or add the file under that name, so that the rules judge where it is from:"
        f" `modelctl add PATH --name {origin.reference}`.",
        details={"reference": origin.reference, "rule": "unnamed", "blobs": blobs},
    )


def _judged_files(entry: Entry) -> set[Digest]:
    """The files of a model that a rule judges. The others get in without a signature, as files of this model only."""
    manifest = entry.manifest
    if manifest is None:
        return set()
    judged = {file.blob for file in manifest.files if file.path != SIGNATURE_FILE and file.path not in _GIT_FILES}
    return {Digest.parse(blob) for blob in (judged if manifest.files else {manifest.blob})}


def _needs_no_signature(statement: Statement, path: str, content: Blob | Staged, signature: Digest) -> bool:
    if path in statement.files:
        return False
    if path == SIGNATURE_FILE:
        return content.digest.matches(signature)
    # An empty file has no shard.
    return path in _GIT_FILES or (statement.shard_size is not None and content.size == 0)


def _signed(rule: Rule, origin: Origin, signature: bytes) -> Signed:
    try:
        return rule.signed(signature)
    except SignatureFault as fault:
        raise _refused(rule, origin, fault) from None


def _read(path: str) -> bytes:
    with store_faults("read", path), open(path, "rb") as file:
        return file.read(MAX_BUNDLE + 1)


def _chunks(
    contents: Mapping[str, Blob | Staged], layout: Layout, progress: JobProgress, path: str
) -> Iterator[memoryview]:
    content = contents[path]
    if isinstance(content, Blob):
        return chunks_of_blob(layout, content.digest, FileProgress(progress))
    return _chunks_of_staged(content, FileProgress(progress))


def _chunks_of_staged(staged: Staged, progress: FileProgress) -> Iterator[memoryview]:
    """The commit checks that nobody wrote to it since it was hashed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with store_faults("read", staged.path), system.closing(os.open(staged.path, flags)) as descriptor:
        buffer, offset = memoryview(bytearray(min(CHUNK, staged.size))), 0
        while offset < staged.size:
            check(progress)
            got = read_at(descriptor, buffer[: staged.size - offset], offset)
            if got == 0:
                return
            offset += got
            yield buffer[:got]
            progress.advance(done=got, verified=got)


def _missing(rule: Rule, origin: Origin) -> Untrusted:
    return Untrusted(
        f"{origin.reference} gets no name: {rule} requires a signature, and there is none",
        hint=f"Give the signer's file with {_GIVEN}, or have it beside the model as {SIGNATURE_FILE}, of one file as"
        " FILE.sig.",
        details=_details(rule, origin, "missing"),
    )


def _refused(rule: Rule, origin: Origin, fault: SignatureFault) -> Untrusted:
    details = _details(rule, origin, fault.rule)
    if isinstance(fault, FilesDiffer):
        details |= {kind: getattr(fault, kind)[:_MOST_LISTED] for kind in ("changed", "renamed", "missing", "unsigned")}
        hint = f"Get the files again from the signer, or give the signature that was made for these with {_GIVEN}."
    elif fault.rule == "cryptography":
        hint = "Install the extra `signatures` in the daemon's Python."
    else:
        hint = f"Give a signature by one of the signers of this rule with {_GIVEN}, or have the rule corrected."
    return Untrusted(
        f"{origin.reference} gets no name: {rule} requires a signature that holds: {fault}", hint=hint, details=details
    )


def _details(rule: Rule, origin: Origin, reason: str) -> dict[str, object]:
    signers = {"keys": rule.keys, "roots": rule.roots}
    return {"reference": origin.reference, "rule": reason, "required_by": rule.number, **signers}
