"""What NVIDIA's driver says, and what becomes of one that is broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modeld.machine import nvidia
from modeld.machine.nvidia import Nvidia, look
from modeld.platform.posix.graphics import Card
from rigs import fake_nvml
from rigs.sysfs import NVIDIA, Sysfs

SECONDS = 30.0
AT_ONCE = 0.3
NO_LIBRARY = (sys.executable, "-c", 'print(\'{"fault": "libnvidia-ml.so.1 is not there"}\')')
CRASHES = (sys.executable, "-c", "import os; print('{\"car', end='', flush=True); os.abort()")
HANGS = ("sleep", "600")

Smi = Callable[[str], dict[str, str]]


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def smi(tmp_path: Path) -> Smi:
    """The environment with a program of the driver that runs this script."""

    def made(script: str) -> dict[str, str]:
        program = tmp_path / "bin" / nvidia.PROGRAM
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return {"PATH": f"{program.parent}:{os.environ['PATH']}"}

    return made


@pytest.fixture
def without_smi(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path)}


def answers(*lines: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({chr(10).join(lines)!r})")


def test_the_library_is_believed_and_the_program_is_not_asked(sysfs: Sysfs, smi: Smi, tmp_path: Path) -> None:
    child = answers('{"cards": [["RTX", 1024], ["GB10", null]]}', '{"tensorrt": true}')
    asked = tmp_path / "asked"
    found = look(smi(f"touch {asked}"), sysfs=sysfs.path, child=child, seconds=SECONDS)
    assert found == Nvidia([Card("RTX", 1024), Card("GB10", None)], tensorrt=True)
    assert not asked.exists()


def test_the_cards_count_when_tensorrt_crashes(sysfs: Sysfs, without_smi: dict[str, str]) -> None:
    child = answers('{"cards": [["RTX", 1024]]}', '{"tenso')
    assert look(without_smi, sysfs=sysfs.path, child=child, seconds=SECONDS) == Nvidia([Card("RTX", 1024)])


@pytest.mark.parametrize("child", [NO_LIBRARY, CRASHES])
def test_without_the_library_the_program_is_asked(sysfs: Sysfs, smi: Smi, child: tuple[str, ...]) -> None:
    environ = smi(
        '[ "$*" = "--query-gpu=memory.total,name --format=csv,noheader,nounits" ] || exit 2\n'
        "echo '24564, NVIDIA GeForce RTX 4090'; echo '[N/A], NVIDIA GB10'; echo 'a warning'"
    )
    assert look(environ, sysfs=sysfs.path, child=child, seconds=SECONDS) == Nvidia(
        [Card("NVIDIA GeForce RTX 4090", 24564 << 20), Card("NVIDIA GB10", None)]
    )


@pytest.mark.parametrize("script", ["echo '24564, RTX'; exit 9", "echo 'No devices were found'", ""])
def test_a_program_that_finds_none(sysfs: Sysfs, smi: Smi, script: str) -> None:
    assert look(smi(script), sysfs=sysfs.path, child=NO_LIBRARY, seconds=SECONDS) == Nvidia([])


def test_neither_library_nor_program(sysfs: Sysfs, without_smi: dict[str, str]) -> None:
    assert look(without_smi, sysfs=sysfs.path, child=NO_LIBRARY, seconds=SECONDS) == Nvidia([])


def test_a_program_that_is_no_program(sysfs: Sysfs, smi: Smi, tmp_path: Path) -> None:
    environ = smi("")
    (tmp_path / "bin" / nvidia.PROGRAM).write_bytes(b"\x7fELF but not really")
    assert look(environ, sysfs=sysfs.path, child=NO_LIBRARY, seconds=SECONDS) == Nvidia([])


def test_a_program_in_a_relative_directory_is_not_run(
    sysfs: Sysfs, smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi("echo '24564, RTX'")
    monkeypatch.chdir("/")  # where programs are run
    assert look(
        {"PATH": str(tmp_path / "bin").lstrip("/")}, sysfs=sysfs.path, child=NO_LIBRARY, seconds=SECONDS
    ) == Nvidia([])


def test_a_library_that_hangs_is_left_and_the_program_is_not_asked(sysfs: Sysfs, smi: Smi) -> None:
    found = look(smi("echo '24564, RTX'"), sysfs=sysfs.path, child=HANGS, seconds=AT_ONCE)
    assert found == Nvidia([], fault="the driver of NVIDIA gave no answer within 0.3 s")


def test_a_program_that_hangs_is_left(sysfs: Sysfs, smi: Smi) -> None:
    # The time is for the child too, which has to end within it.
    found = look(smi("sleep 600"), sysfs=sysfs.path, child=("true",), seconds=2.0)
    assert found == Nvidia([], fault="the driver of NVIDIA gave no answer within 2 s")


def test_a_card_whose_driver_is_not_reached_is_reported(sysfs: Sysfs, without_smi: dict[str, str]) -> None:
    sysfs.pci("0000:01:00.0", NVIDIA)
    found = look(without_smi, sysfs=sysfs.path, child=NO_LIBRARY, seconds=SECONDS)
    assert found.fault == "an NVIDIA card is here, and its driver does not answer the daemon"


# -- the child itself, with a library that is compiled for the test


def environ_with(library: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONHOME") if name in os.environ}
    return kept | {"LD_LIBRARY_PATH": os.path.dirname(library), "PATH": os.path.dirname(library)}


def test_the_child_asks_the_library(sysfs: Sysfs, tmp_path: Path) -> None:
    environ = environ_with(fake_nvml.built(tmp_path / "lib", "CARDS=1"))
    found = look(environ, sysfs=sysfs.path, seconds=SECONDS)
    assert found.cards == [Card("Fake 1", 4 << 30)]


def test_the_child_finds_tensorrt_by_its_name(sysfs: Sysfs, tmp_path: Path) -> None:
    environ = environ_with(fake_nvml.built(tmp_path / "lib", "CARDS=1"))
    fake_nvml.built(tmp_path / "lib", name="libnvinfer.so.10")
    assert look(environ, sysfs=sysfs.path, seconds=SECONDS) == Nvidia([Card("Fake 1", 4 << 30)], tensorrt=True)


@pytest.mark.parametrize("definition", ["INIT=9", "CRASHES"])
def test_a_library_that_fails_ends_no_daemon(sysfs: Sysfs, tmp_path: Path, definition: str) -> None:
    environ = environ_with(fake_nvml.built(tmp_path / "lib", definition))
    assert look(environ, sysfs=sysfs.path, seconds=SECONDS) == Nvidia([])


def test_a_library_that_never_returns(sysfs: Sysfs, tmp_path: Path) -> None:
    environ = environ_with(fake_nvml.built(tmp_path / "lib", "HANGS"))
    found = look(environ, sysfs=sysfs.path, seconds=AT_ONCE)
    assert found.fault == "the driver of NVIDIA gave no answer within 0.3 s"
