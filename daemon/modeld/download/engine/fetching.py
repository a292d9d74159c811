"""One file from its sources, one after the other: failover, restarts, and what a wrong digest leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modeld.download.engine.assembly import Assembly, Fetched, Workspace
from modeld.download.engine.attempt import Attempt
from modeld.download.engine.budget import Pace
from modeld.download.engine.source_file import SourceFile
from modeld.download.partials.journal import Piece
from modeld.download.routes.condemned import Condemned
from modeld.download.routes.events import EventKind, OnEvent, TransferEvent
from modeld.download.routes.outcomes import Changed, GaveUp, Network
from modeld.download.routes.router import Offer
from modeld.download.source import giver_shown
from modeld.progress import FileProgress
from modeld.store.digest import Digest
from modeld.store.disk.space import Space
from modelwire.errors import Corrupt, DigestMismatch, SourceUnavailable, WireError


class Fetching:
    """Blocks in `run`; for a byte thread. `offers` may block too, when the next source has to be asked."""

    def __init__(
        self,
        workspace: Workspace,
        space: Space,
        network: Network,
        condemned: Condemned,
        offers: Iterator[Offer],
        *,
        alternatives: int,
        expected: Digest | None,
        pace: Pace,
        progress: FileProgress,
        on_event: OnEvent,
    ) -> None:
        self._workspace = workspace
        self._space = space
        self._network = network
        self._condemned = condemned
        self._offers = offers
        self._alternatives = alternatives
        self._expected = expected
        self._pace = pace
        self._progress = progress
        self._on_event = on_event
        self._fault: WireError | None = None
        self._restarts = 0
        self._as_described = True
        self._ended: Digest | None = None
        """The digest of wrong bytes whose size no answer announced."""

    def run(self) -> Fetched:
        """A verified file. Raises Stopped, the fault of the store, DigestMismatch, or the fault of the last source. The
        bytes that are here by then stay for a later run, except those with a wrong digest."""
        offer = self._next_offer(None, None)
        while True:
            found = self._assemble(offer)
            if isinstance(found, Fetched):
                self._progress.finished()
                return found
            offer = self._next_offer(found.file.size, found.file.digest) if found is offer else found

    # -- sources

    def _next_offer(self, size: int | None, digest: Digest | None) -> Offer:
        """The next offer of these bytes; raises the last fault when there is none."""
        for offer in self._offers:
            self._alternatives -= not offer.preferred
            file = offer.file
            wanted = self._expected or digest or file.digest
            if file.digest is not None and wanted is not None and not file.digest.matches(wanted):
                self._skip(offer, f"it has sha256:{file.digest.hex}, sha256:{wanted.hex} is expected", wanted)
            elif size is not None and file.size is not None and file.size != size:
                self._skip(offer, f"it has {file.size} bytes, {size} are expected", None)
            elif self._condemned.holds(offer.giver, wanted, file.validator):
                self._skip(offer, "it gave wrong bytes for this digest before, and still has that version", wanted)
            else:
                return Offer(offer.opener, replace(file, digest=wanted, size=file.size if size is None else size))
        assert self._fault is not None, "a route has a source"
        raise self._fault

    def _skip(self, offer: Offer, reason: str, expected: Digest | None) -> None:
        self._tell("source.skipped", offer, reason)
        if self._fault is not None:
            return
        message = f"{offer.shown} is not asked for {offer.file.path}: {reason}"
        if expected is None:
            self._fault = SourceUnavailable(message, retryable=False)
        else:
            self._fault = DigestMismatch(
                message,
                hint="Check where the digest comes from, or pull again when the source has another version.",
                details={"source": offer.shown, "expected_sha256": expected.hex},
            )

    # -- one assembly

    def _assemble(self, offer: Offer) -> Fetched | Offer:
        """The file; or, when its bytes were wrong, the offer to start over with: `offer` itself when another source is
        to be tried, a copy of it when the same source is."""
        file = offer.file
        assembly = Assembly(
            self._workspace,
            self._space,
            digest=file.digest,
            size=file.size,
            validator=file.validator,
            key=offer.partial_key,
            progress=self._progress,
            damaged=lambda piece: self._tell("transfer.damaged_piece", offer, _damage(piece)),
        )
        try:
            if assembly.resumed:
                self._tell("transfer.resumed", offer, "an earlier run left bytes here", kept=assembly.resumed)
            while True:
                offer = self._fill(assembly, offer)
                hashed = assembly.wait_hashed()
                if hashed is None:
                    continue
                if assembly.is_spoiled(hashed):
                    self._begin_spoiled_anew(assembly, offer)
                    continue
                if assembly.digest is not None and not assembly.digest.matches(hashed.digest):
                    if len(assembly.contributors()) > 1:
                        self._restart(assembly, offer, "bytes of several versions do not fit together")
                        continue
                    if assembly.size_by_end and hashed.digest != self._ended:
                        # A connection that breaks off may look the same; but not twice at the same byte.
                        self._ended = hashed.digest
                        self._restart(assembly, offer, "its end was not announced, and may have come too early")
                        continue
                    return self._mismatch(assembly, offer, assembly.digest, hashed.digest)
                return assembly.seal(hashed, origin=file.path, as_described=self._as_described)
        finally:
            assembly.close()

    def _fill(self, assembly: Assembly, offer: Offer) -> Offer:
        """Fetches every byte that is missing; returns the offer of the source that gave the last of them."""
        while True:
            source = SourceFile(
                self._network,
                assembly,
                offer.opener,
                offer.file,
                pace=self._pace,
                attempted=self._progress.attempted,
                on_event=self._on_event,
                has_alternative=lambda: self._alternatives > 0,
            )
            try:
                Attempt(self._network, source, self._progress).run()
                return offer
            except GaveUp as end:
                self._fault = end.fault
                before = offer
                offer = self._next_offer(assembly.state.segments.size, assembly.digest)
                kept = assembly.state.segments.have.total
                self._tell("source.failed", before, end.fault.message, kept=kept)
                if assembly.digest is None:
                    # Without a digest, two sources may have different bytes.
                    self._as_described = False
                    assembly.start_over(offer.file.size, offer.file.validator)
            except Changed as change:
                offer = Offer(
                    offer.opener, replace(offer.file, size=change.size, validator=change.validator, digest=None)
                )
                self._as_described = False
                if change.broke_off:
                    self._begin_anew(assembly, offer)
                else:
                    self._restart(assembly, offer, change.what)

    def _restart(self, assembly: Assembly, offer: Offer, why: str) -> None:
        end = SourceUnavailable(
            f"{offer.shown} keeps changing {offer.file.path} while it is fetched: {why}",
            hint="Pull again later, when the file is no longer being replaced.",
        )
        self._from_the_first_byte(assembly, offer, why, end)

    def _begin_anew(self, assembly: Assembly, offer: Offer) -> None:
        why = "it breaks off, and without a digest, an ETag or a date the rest may be of another version"
        end = SourceUnavailable(
            f"{offer.shown} cannot give all of {offer.file.path}: {why}",
            hint="Give its digest with --sha256: then the bytes that have arrived are kept.",
        )
        self._from_the_first_byte(assembly, offer, why, end)

    def _begin_spoiled_anew(self, assembly: Assembly, offer: Offer) -> None:
        why = f"another program wrote to {assembly.partial.path}"
        end = Corrupt(
            f"{offer.file.path} cannot be fetched: {why} each time; nothing was published",
            hint="Find the program that writes to the private part of the store, then pull again.",
            retryable=True,
            details={"path": assembly.partial.path},
        )
        self._from_the_first_byte(assembly, offer, why, end)

    def _from_the_first_byte(self, assembly: Assembly, offer: Offer, why: str, end: WireError) -> None:
        self._restarts += 1
        if self._restarts > self._network.tuning.restarts:
            raise end
        self._tell("transfer.restarted", offer, why)
        assembly.start_over(offer.file.size, offer.file.validator)

    def _mismatch(self, assembly: Assembly, offer: Offer, expected: Digest, actual: Digest) -> Offer:
        """Not a fault of the transport: the source is not asked again until it has another version."""
        numbers = assembly.contributors()
        culprit = assembly.partial.identities[numbers[0]] if numbers else None
        name = offer.giver if culprit is None else culprit.name
        shown = giver_shown(name)
        self._progress.phase("quarantine")
        kept = assembly.condemn()
        self._condemned.condemn(name, expected, culprit.validator if culprit else offer.file.validator)
        self._tell("source.condemned", offer, f"{shown} gave sha256:{actual.hex}, sha256:{expected.hex} is expected")
        self._fault = DigestMismatch(
            f"{shown} gave bytes of {offer.file.path} with the digest {actual.text}, {expected.text} was expected;"
            " nothing was published",
            hint="Check where the digest comes from. The source is asked again when it has another version.",
            details={
                "source": shown,
                "path": offer.file.path,
                "expected_sha256": expected.hex,
                "actual_sha256": actual.hex,
                "quarantine_path": kept,
            },
        )
        # All bytes may be of an earlier run: then the version that the source has now was not tried yet.
        untried = culprit is not None and culprit.validator != offer.file.validator
        untried = untried and assembly.resumed == assembly.state.segments.size
        return offer if name == offer.giver and not untried else Offer(offer.opener, offer.file)

    def _tell(self, kind: EventKind, offer: Offer, reason: str, *, kept: int = 0) -> None:
        self._on_event(TransferEvent(kind=kind, file=offer.file.path, source=offer.shown, reason=reason, bytes=kept))


def _damage(piece: Piece) -> str:
    return f"the bytes {piece.start}-{piece.end - 1} of an earlier run are not what it wrote; they are fetched again"
