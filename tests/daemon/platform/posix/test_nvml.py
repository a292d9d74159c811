"""NVIDIA cards by the library of their driver, of which a double is compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.platform import nvml
from modeld.platform.posix.graphics import Card
from rigs import fake_nvml


def test_the_cards_but_for_a_lost_one(tmp_path: Path) -> None:
    assert nvml.cards(fake_nvml.built(tmp_path, "CARDS=3")) == [Card("Fake 1", 4 << 30), Card("Fake 3", None)]


def test_a_driver_without_cards(tmp_path: Path) -> None:
    assert nvml.cards(fake_nvml.built(tmp_path, "CARDS=0")) == []


def test_a_driver_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nvmlInit fails with 9"):
        nvml.cards(fake_nvml.built(tmp_path, "INIT=9"))


def test_no_library() -> None:
    with pytest.raises(OSError, match=r"libnone\.so\.1"):
        nvml.cards("libnone.so.1")


def test_a_library_that_lacks_a_call(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nvmlInit_v2"):
        nvml.cards(fake_nvml.built(tmp_path, "nvmlInit_v2=nvmlInit"))
