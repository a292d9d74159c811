"""What a model needs of a machine."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """All five are always written."""

    min_vram_mb: Megabytes = 0
    recommended_vram_mb: Megabytes = 0
    min_ram_mb: Megabytes = 2048
    execution_providers: tuple[str, ...] = ("cpu",)
    architectures: tuple[str, ...] = ("aarch64", "x86_64")


SMALL_LLM: Final = Requirements(
    min_vram_mb=2048, recommended_vram_mb=4096, min_ram_mb=4096, execution_providers=("cuda", "cpu")
)
MEDIUM_LLM: Final = Requirements(
    min_vram_mb=4096, recommended_vram_mb=8192, min_ram_mb=8192, execution_providers=("cuda", "cpu")
)
YOLO_NANO: Final = Requirements(
    min_vram_mb=512, recommended_vram_mb=1024, min_ram_mb=1024, execution_providers=("tensorrt", "cuda", "cpu")
)
