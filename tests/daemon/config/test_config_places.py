"""Where the daemon keeps what is not the store."""

from __future__ import annotations

import pytest

from modeld.config import (
    ConfigError,
    Settings,
    log_directory,
    state_directory,
)

# --- places ---


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("/a/b", {}, "/a/b"),
        ("~/b", {"HOME": "/h"}, "/h/b"),
        (" /a ", {"STATE_DIRECTORY": "/s"}, "/a"),
        ("", {"STATE_DIRECTORY": "/var/lib/modeld:/var/lib/models"}, "/var/lib/modeld"),
        (None, {"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/modeld"),
        (None, {"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/modeld"),
        (None, {"HOME": "/h"}, "/h/.local/state/modeld"),
        (None, {"HOME": "/h", "MODELS_HOME": "/m"}, "/h/.local/state/modeld"),
    ],
)
def test_the_state_directory(configured: str | None, environ: dict[str, str], expected: str) -> None:
    settings = Settings(state_dir=configured)
    assert state_directory(settings, environ) == expected
    assert log_directory(settings, environ) == expected


@pytest.mark.parametrize(
    ("models_home", "environ", "root"),
    [
        (None, {"MODELS_HOME": " /m "}, "/m"),
        (None, {"MODELS_HOME": "/m", "HOME": " "}, "/m"),
        (None, {"MODELS_HOME": "/m", "HOME": "relative"}, "/m"),
        ("/c", {"MODELS_HOME": "/m"}, "/c"),
        (None, {"XDG_DATA_HOME": "/d"}, "/d/models"),
    ],
)
def test_a_service_account_without_a_home_has_its_state_in_the_store(
    models_home: str | None, environ: dict[str, str], root: str
) -> None:
    settings = Settings(models_home=models_home)
    assert state_directory(settings, environ) == log_directory(settings, environ) == f"{root}/.modeld/state"


def test_the_log_goes_where_the_service_manager_says() -> None:
    environ = {"LOGS_DIRECTORY": "/var/log/modeld", "STATE_DIRECTORY": "/var/lib/modeld"}
    assert log_directory(Settings(), environ) == "/var/log/modeld"
    assert state_directory(Settings(), environ) == "/var/lib/modeld"
    assert log_directory(Settings(state_dir="/a"), environ) == "/a"


@pytest.mark.parametrize(
    ("configured", "environ"),
    [
        (None, {}),
        (None, {"HOME": " "}),
        (None, {"MODELS_HOME": "m"}),
        ("relative", {"HOME": "/h"}),
        ("~/x", {}),
        ("~/x", {"MODELS_HOME": "/m"}),
    ],
)
def test_no_state_directory_is_guessed(configured: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        state_directory(Settings(state_dir=configured), environ)
