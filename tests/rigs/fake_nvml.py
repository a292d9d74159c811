"""A library in the place of the one of NVIDIA's driver."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_nvml.c")


def built(directory: Path, *definitions: str, name: str = "libnvidia-ml.so.1") -> str:
    """The path of the library; skips the test where there is no compiler for it. `CARDS=3`, `INIT=9`, `HANGS` and
    `CRASHES` say what it does."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("there is no C compiler here, or no Linux")
    directory.mkdir(exist_ok=True)
    made = str(directory / name)
    macros = [f"-D{definition}" for definition in definitions]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", *macros, "-o", made, SOURCE], check=True)
    return made
