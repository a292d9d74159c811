"""A daemon has another working directory than the client that starts it."""

from __future__ import annotations

import os

import pytest

from rigs.command import Ctl


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


def test_a_relative_configuration_file_is_the_one_in_this_directory(ctl: Ctl) -> None:
    os.mkdir(ctl.room / "here")
    ctl.file("here/modeld.toml", b"[transfer]\nmax_rate = 12345678\n")
    with ctl.open("status", "--json", environ={"MODELD_CONFIG": "here/modeld.toml"}) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    done = ctl("start", environ={"MODELD_CONFIG": "here/modeld.toml"})
    assert done.returncode == 0, done.stderr
    assert ctl.json("status")["transfer"]["max_rate"] == 12345678
