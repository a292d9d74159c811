"""The table [node]: this machine, where the daemon cannot see it from within a sandbox."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

MOST_MEGABYTES: Final = 2**32 - 1
"""Four petabytes: more was meant in another unit."""


class NodeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
