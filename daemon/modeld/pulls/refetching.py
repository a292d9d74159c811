"""Whether the source that a model was pulled from still has its bytes: it is asked, and describes them.

The digest or at least the size of each file must be the same. A source of plain addresses that has put other bytes of
the same size there is not noticed before they are fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from modeld.download.cancel_scope import CancelScope
from modeld.download.source import Description
from modeld.progress import Stopped
from modeld.pulls.context import PullContext
from modeld.pulls.own_thread import in_own_thread
from modeld.pulls.places import UserOf
from modeld.pulls.recorded import Recorded, recorded_source
from modeld.sources.kind import For
from modeld.sources.reference import Reference
from modeld.store import Digest
from modeld.store.maintain.evict import Fetchable
from modeld.store.manifests.entries import Entry
from modelwire.errors import WireError

SECONDS: Final = 5.0
"""For one source: what takes longer is not counted on."""

REMEMBERED_SECONDS: Final = 60.0
REMEMBERED: Final = 1000
"""Sources that did not have it: refused jobs in a row must not all wait for the same silent hosts. What a source has is
asked each time."""

_UNKNOWN: Final = "no source of its bytes is known: it was added from this machine, or by another tool"


class Refetching:
    def __init__(self, context: PullContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._failed: dict[tuple[str, str, For], tuple[float, Fetchable]] = {}

    async def ask(self, entry: Entry, user_of: UserOf) -> Fetchable:
        """`user_of` says on whose behalf the source is asked."""
        recorded = await self._context.store.index.in_thread(lambda: recorded_source(entry))
        if recorded is None:
            return Fetchable("", _UNKNOWN)
        if recorded.signed:
            return Fetchable(recorded.text, "its address had a secret, which is kept nowhere")
        whom = await user_of(recorded.text)
        key = (recorded.text, ",".join(digest.hex for _, digest, _ in recorded.files), whom)
        until, failed = self._failed.pop(key, (float("-inf"), None))
        if failed is None or self._clock() >= until:
            found = Fetchable(recorded.text, await self._why_not(recorded, whom))
            if found.why_not is None:
                return found
            until, failed = self._clock() + REMEMBERED_SECONDS, found
        while len(self._failed) >= REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = until, failed
        return failed

    async def _why_not(self, recorded: Recorded, user: For) -> str | None:
        try:
            reference = self._context.sources.read(recorded.text)
            if not reference.network:
                return _UNKNOWN
            if self._context.settings.transfer.offline:
                return "no connection may be opened, so its source cannot be asked"
            description = await self._described(reference.choosing(recorded.include, recorded.exclude), user)
        except Stopped:
            return f"its source has not answered within {SECONDS:g} s"
        except WireError as fault:
            return f"its source does not give it: {fault.message}"
        return _difference(description, recorded.files)

    async def _described(self, reference: Reference, user: For) -> Description:
        scope, until = CancelScope(), self._clock() + SECONDS

        def over() -> bool:
            return scope.cancelled or self._clock() >= until

        def ask() -> Description:
            route = self._context.route(reference, user)
            return self._context.transfer.router.describe(route, stopped=over).description

        return await in_own_thread(ask, name="ask for a source", stopped=over, scope=scope)


def _difference(description: Description, files: Sequence[tuple[str, Digest, int]]) -> str | None:
    offered = {file.path: file for file in description.files}
    for path, digest, size in files:
        found = offered.get(path)
        if found is None:
            return f"its source has no {path} any more"
        if (found.digest is not None and found.digest != digest) or found.size not in (None, size):
            return f"its source has other bytes under {path} now"
        if found.digest is None and found.size is None:
            return f"its source says neither digest nor size of {path}, so it may have other bytes"
    return None
