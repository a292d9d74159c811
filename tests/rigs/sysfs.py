"""A directory that lists graphics cards as the kernel of Linux does."""

from __future__ import annotations

from pathlib import Path

NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"
DISPLAY, NETWORK = "0x030000", "0x020000"


class Sysfs:
    def __init__(self, root: Path) -> None:
        self.path = str(root)
        self._root = root

    def write(self, path: str, content: str) -> None:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def pci(self, address: str, vendor: str, kind: str = DISPLAY) -> None:
        self.write(f"bus/pci/devices/{address}/vendor", f"{vendor}\n")
        self.write(f"bus/pci/devices/{address}/class", f"{kind}\n")

    def amd(self, card: str, memory: int, product: str | None = None) -> None:
        """A card of which the driver tells the memory."""
        self.write(f"class/drm/{card}/device/mem_info_vram_total", f"{memory}\n")
        if product is not None:
            self.write(f"class/drm/{card}/device/product_name", f"{product}\n")

    def compute_node(self, number: int, gpu_id: int) -> None:
        self.write(f"class/kfd/kfd/topology/nodes/{number}/gpu_id", f"{gpu_id}\n")
