"""What the daemon answers without becoming one, and which of file, variable and flag counts."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from modelwire.version import __version__
from rigs.real_daemon import RealDaemon


def modeld(daemon: RealDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modeld", *arguments], env=daemon.environ, capture_output=True, text=True, timeout=30
    )


def printed(daemon: RealDaemon, *arguments: str) -> dict[str, Any]:
    run = modeld(daemon, "--print-config", *arguments)
    assert run.returncode == 0, run.stderr
    return tomllib.loads(run.stdout)


def nothing_was_made(daemon: RealDaemon) -> bool:
    return not any(os.path.lexists(path) for path in (daemon.root, daemon.state, daemon.socket))


def test_the_version(stopped: RealDaemon) -> None:
    run = modeld(stopped, "--version")
    assert (run.returncode, run.stdout) == (0, f"modeld {__version__}\n")


def test_the_help_names_every_public_flag(stopped: RealDaemon) -> None:
    run = modeld(stopped, "--help")
    assert run.returncode == 0
    for flag in ("--config", "--socket", "--models-home", "--state-dir", "--log-level", "--set", "--check-config"):
        assert flag in run.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["extra"], ["--check-config", "--print-config"], ["--set", "x"]])
def test_flags_without_sense(stopped: RealDaemon, arguments: list[str]) -> None:
    run = modeld(stopped, *arguments)
    assert run.returncode == 2
    assert "modeld: " in run.stderr
    assert "Traceback" not in run.stderr
    assert nothing_was_made(stopped)


def test_a_good_configuration_is_called_good(stopped: RealDaemon) -> None:
    stopped.configure("[limits]\nrunning_bytes = 3\n")
    run = modeld(stopped, "--check-config")
    assert (run.returncode, run.stderr) == (0, "")
    assert stopped.config_path in run.stdout
    assert nothing_was_made(stopped)


def test_what_a_start_would_warn_of_is_said_of_a_valid_configuration(stopped: RealDaemon) -> None:
    loan = '[[access.credentials]]\nmatch = "hf:"\nusers = ["no-such-user"]\n'
    stopped.configure(f'[access.users]\nnobody-here = "read"\n[access.groups]\nno-such-group = "write"\n{loan}')
    stopped.environ["MODELD_LIMITS_WAITING_TOTA"] = "5"
    run = modeld(stopped, "--check-config")
    assert (run.returncode, run.stdout) == (0, f"{stopped.config_path}: valid, with the warnings above\n")
    assert run.stderr.splitlines() == [
        "modeld: warning: MODELD_LIMITS_WAITING_TOTA is not a setting and was ignored; did you mean"
        " MODELD_LIMITS_WAITING_TOTAL?",
        "modeld: warning: [access] users: this machine has no user 'nobody-here': it grants nothing",
        "modeld: warning: [access] groups: this machine has no group 'no-such-group': it grants nothing",
        "modeld: warning: [[access.credentials]] for hf:: this machine has no user 'no-such-user': it lends nothing",
    ]
    assert nothing_was_made(stopped)


def test_a_bad_configuration_is_told_with_its_place(stopped: RealDaemon) -> None:
    stopped.configure("[limits]\nrunning_bytes = -3\n")
    run = modeld(stopped, "--check-config")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"modeld: {stopped.config_path}")
    assert "running_bytes" in run.stderr


def test_each_problem_is_told_once(stopped: RealDaemon) -> None:
    stopped.configure("[limits]\nrunning_bytes = -3\nwrite_stal = '1s'\n[transfr]\nx = 1\n")
    told = modeld(stopped, "--check-config").stderr.splitlines()
    assert len(told) == 3
    for word in ("running_bytes", "write_stal'", "transfr"):
        assert len([line for line in told if word in line]) == 1, told


@pytest.mark.parametrize("setting", ["models_home", "state_dir"])
def test_a_place_that_no_start_would_take_is_not_called_good(stopped: RealDaemon, setting: str) -> None:
    stopped.environ.pop("MODELD_STATE_DIR", None)  # it would be above the file
    stopped.configure(f"{setting} = 'some/where'\n")
    run = modeld(stopped, "--check-config")
    assert (run.returncode, run.stdout) == (2, "")
    assert setting in run.stderr
    assert "absolute path" in run.stderr


def test_a_file_is_checked_before_it_is_installed(stopped: RealDaemon, room: Path) -> None:
    candidate = room / "candidate.toml"
    candidate.write_text("[log]\nlevel = 'loud'\n", encoding="utf-8")
    assert modeld(stopped, "--config", str(candidate), "--check-config").returncode == 2
    candidate.write_text("[log]\nlevel = 'debug'\n", encoding="utf-8")
    assert modeld(stopped, "--config", str(candidate), "--check-config").returncode == 0


def test_the_flag_is_above_the_variable_and_the_variable_above_the_file(stopped: RealDaemon) -> None:
    stopped.configure("[limits]\nrunning_bytes = 2\nwaiting_total = 7\nwaiting_per_peer = 5\n")
    stopped.environ |= {"MODELD_LIMITS_RUNNING_BYTES": "3", "MODELD_LIMITS_WAITING_TOTAL": "8"}
    limits = printed(stopped, "--set", "limits.running_bytes=4")["limits"]
    assert (limits["running_bytes"], limits["waiting_total"], limits["waiting_per_peer"]) == (4, 8, 5)


def test_what_is_printed_reads_back_to_the_same(stopped: RealDaemon) -> None:
    stopped.configure("[daemon]\ndrain_deadline = '90s'\n[store]\nmin_free = '3GiB'\n[access.users]\nann = 'read'\n")
    text = modeld(stopped, "--print-config").stdout
    assert "#" in text
    stopped.configure(text)
    assert modeld(stopped, "--print-config").stdout == text


def test_each_flag_reaches_the_daemon(stopped: RealDaemon, room: Path) -> None:
    paths = {name: str(room / name) for name in ("other.sock", "other-store", "other-state")}
    stopped.start(
        "--socket",
        paths["other.sock"],
        "--models-home",
        paths["other-store"],
        "--state-dir",
        paths["other-state"],
        "--log-level",
        "error",
        "--set",
        "limits.waiting_total=9",
    )
    stopped.socket = paths["other.sock"]
    status = stopped.ask("daemon.status")["value"]
    assert status["store"] == paths["other-store"]
    assert status["queue"]["capacity"] == 9
    assert status["log"]["path"] == os.path.join(paths["other-state"], "activity.ndjson")
    assert stopped.log() == ""


def test_the_store_of_the_file_is_above_the_variable(stopped: RealDaemon, room: Path) -> None:
    stopped.configure(f"models_home = '{room}/from-file'\n")
    stopped.start()
    assert stopped.ask("daemon.status")["value"]["store"] == f"{room}/from-file"
