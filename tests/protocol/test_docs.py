"""What the documents list of the wire is all that there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from modelwire import exits
from modelwire.errors import BY_CODE

ROOT = Path(__file__).parent.parent.parent


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_error_code_is_documented() -> None:
    errors = section((ROOT / "docs/protocol.md").read_text(encoding="utf-8"), "Errors")
    first_cells = [line.split("|")[1] for line in errors.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(first_cells))) == sorted(BY_CODE)


def test_every_exit_code_is_documented() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {
        int(number) for number in re.findall(r"\b(\d+) ", readme.split("The exit code says", 1)[1].split(".", 1)[0])
    }
    numbers = {value for name, value in vars(exits).items() if name.isupper()}
    assert listed | {exits.FINE, exits.BROKEN_PIPE} == numbers
