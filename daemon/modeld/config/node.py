"""The table [node]: what this machine is called in update commands, and what it has, where the daemon cannot see it."""

from __future__ import annotations

import socket
from typing import Annotated, Final

from msgspec import Meta, Struct

from modelwire.units import Duration

MOST_MEGABYTES: Final = 2**32 - 1
"""Four petabytes: more was meant in another unit."""


_Word = Annotated[str, Meta(min_length=1, max_length=255)]
"""Host names are no longer."""


class NodeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[
        str,
        Meta(max_length=255, description="the id by which update commands name this machine; empty for its host name"),
    ] = ""
    labels: Annotated[
        tuple[_Word, ...], Meta(description="further words by which update commands name it, with other machines")
    ] = ()
    load_within: Annotated[
        Duration,
        Meta(description="how long an engine may take to lease the new version of a model, before an update goes back"),
    ] = Duration(120)
    vram_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST_MEGABYTES,
            description="video memory that a model may take, in MB of 1024 x 1024 bytes; 0 to find out, which takes the"
            " largest graphics card",
        ),
    ] = 0
    ram_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST_MEGABYTES,
            description="memory that a model may take, in MB of 1024 x 1024 bytes; 0 to find out",
        ),
    ] = 0

    @property
    def name(self) -> str:
        return self.id or socket.gethostname()

    def is_among(self, targets: tuple[str, ...]) -> bool:
        """Whether these are all machines, or name this one."""
        return not targets or self.name in targets or any(label in targets for label in self.labels)
