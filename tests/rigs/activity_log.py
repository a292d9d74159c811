"""What a log on disk says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]
