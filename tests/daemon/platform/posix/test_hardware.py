"""The memory of the machine, and the word for its processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeld.platform import hardware


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists it in a file")
def test_the_memory_is_what_the_kernel_lists() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        (listed,) = (int(line.split()[1]) * 1024 for line in file if line.startswith("MemTotal:"))
    assert hardware.memory() == listed


@pytest.mark.parametrize("fault", [ValueError("unknown name"), OSError("refused")])
def test_memory_that_the_system_does_not_tell_is_not_known(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def refuse(_: str) -> int:
        raise fault

    monkeypatch.setattr(os, "sysconf", refuse)
    assert hardware.memory() is None


def test_nor_is_a_number_that_means_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: -1 if name == "SC_PHYS_PAGES" else 4096)
    assert hardware.memory() is None


@pytest.mark.parametrize(
    ("content", "limit"), [("4294967296\n", 1 << 32), ("max\n", None), ("", None), ("\xff", None), (None, None)]
)
def test_the_limit_of_a_container(tmp_path: Path, content: str | None, limit: int | None) -> None:
    path = tmp_path / "memory.max"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    assert hardware.container_limit(str(path)) == limit


@pytest.mark.parametrize(
    ("system", "word"),
    [
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("aarch64", "aarch64"),
        ("arm64", "aarch64"),
        ("armv7l", "armv7"),
        ("armv8l", "armv7"),
        ("i686", "x86"),
        ("riscv64", "riscv64"),
    ],
)
def test_processors_have_the_words_of_models(system: str, word: str) -> None:
    assert hardware.architecture(system) == word


def test_those_of_this_machine_have_a_word() -> None:
    assert hardware.architecture() == hardware.architecture(os.uname().machine) != ""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has such numbers")
def test_another_system_has_no_number_of_macos() -> None:
    assert hardware.sysctl("iogpu.wired_limit_mb") is None


def test_a_library_is_found_by_its_name_or_not() -> None:
    program = "from modeld.platform import hardware; print(hardware.loads('libnone.so.1', 'libm.so.6', '/'))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == ("True\n" if sys.platform == "linux" else "False\n")
    assert not hardware.loads("libnone.so.1")
    assert not hardware.loads()
