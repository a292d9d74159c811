"""The signature of a model that a rule of [trust] requires, fetched from beside the model at its source."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Final

from modeld.download.cancel_scope import CancelScope, Overdue
from modeld.download.routes.events import OnEvent
from modeld.download.routes.router import Offer
from modeld.download.tuning import DEFAULT
from modeld.pulls.context import PullContext
from modeld.pulls.own_thread import in_own_thread
from modeld.signatures.document import MAX_BUNDLE
from modeld.sources.kind import For
from modeld.sources.reference import Reference
from modelwire.errors import SourceNotFound, SourceUnauthorized, SourceUnavailable, TimedOut, WireError

_CHUNK: Final = 64 * 1024
"""A signature has 160 bytes for each file."""


async def fetch_signature(
    context: PullContext, reference: Reference, user: For, *, stopped: Callable[[], bool], on_event: OnEvent, name: str
) -> bytes | None:
    """The content of the first file beside the model that is there; None when there is none. `reference` is at the
    revision that was described, `name` is that of the threads. Nothing of it is kept."""
    for place in reference.signatures:
        scope = CancelScope()
        read = partial(_read_at, context, place, user, partial(_left, scope, stopped), on_event)
        try:
            return await in_own_thread(read, name=name, stopped=stopped, scope=scope)
        except (SourceNotFound, SourceUnauthorized):
            pass  # servers refuse what is not there, too
        except SourceUnavailable as fault:
            if fault.retryable:
                raise
            # A web page, where there is no such file.
    return None


def _left(scope: CancelScope, stopped: Callable[[], bool]) -> bool:
    return scope.cancelled or stopped()


def _read_at(
    context: PullContext, place: Reference, user: For, stopped: Callable[[], bool], on_event: OnEvent
) -> bytes:
    described = context.transfer.router.describe(context.route(place, user), stopped=stopped, on_event=on_event)
    last: WireError = SourceNotFound(f"there is no {place.text}")
    for offer in described.offers(described.description.files[0].path, stopped):
        try:
            return _read(offer)
        except WireError as fault:
            last = fault
    raise last


def _read(offer: Offer) -> bytes:
    """One byte more than a signature may have is refused as one that is too long."""
    data, buffer = bytearray(), memoryview(bytearray(_CHUNK))
    try:
        with (
            CancelScope(DEFAULT.document_seconds) as scope,
            closing(offer.opener.open(offer.file, 0, None, None)) as body,
            scope.woken_by(body.abort),
        ):
            while len(data) <= MAX_BUNDLE:
                scope.wait()
                got = body.readinto(buffer)
                if got == 0:
                    break
                data += buffer[:got]
            else:
                body.abort()
    except Overdue as over:
        raise TimedOut(
            f"{offer.shown} has not sent the signature {offer.file.path} within {over.seconds:g} s",
            hint="Try again later, or give the signature with `modelctl pull --signature`.",
        ) from None
    return bytes(data)
