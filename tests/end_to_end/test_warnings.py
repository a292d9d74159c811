"""What a daemon warns of stands in its log at the start and in `status`."""

from __future__ import annotations

import os
import subprocess

from rigs.command import COMMAND
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, needs_root
from rigs.waiting import wait_until


def test_a_daemon_that_hashes_without_openssl_says_so_at_its_start_and_in_its_status(stopped: RealDaemon) -> None:
    run = "import sys; sys.modules['_hashlib'] = None; import runpy; runpy.run_module('modeld', run_name='__main__')"
    stopped.program = ("-c", run)
    stopped.start()
    warnings = stopped.ask("daemon.status")["value"]["warnings"]
    (warning,) = [each for each in warnings if "OpenSSL" in each]
    wait_until(lambda: warning in stopped.log(), what="the warning in the log")


def test_a_daemon_with_openssl_and_a_user_of_its_own_has_nothing_to_warn_of(stopped: RealDaemon) -> None:
    stopped.start()
    warnings = stopped.ask("daemon.status")["value"].get("warnings", [])
    assert [each for each in warnings if "runs as root" not in each] == []
    assert len(warnings) == (os.geteuid() == 0)


def test_a_store_that_the_users_of_the_configuration_cannot_reach_is_said(stopped: RealDaemon) -> None:
    stopped.configure(f'{ALLOW_ROOT}[access]\nusers = {{ nobody = "read" }}\n')
    private = os.path.dirname(stopped.root)
    os.chmod(private, 0o700)
    stopped.start()
    warnings = stopped.ask("daemon.status")["value"]["warnings"]
    (warning,) = [each for each in warnings if "cannot open the models" in each]
    assert f"they cannot enter {private} (" in warning
    wait_until(lambda: warning in stopped.log(), what="the warning in the log")
    stopped.terminate()
    os.chmod(private, 0o711)
    stopped.start()
    warnings = stopped.ask("daemon.status")["value"]["warnings"]
    assert not any(f"cannot enter {private} " in each for each in warnings)


@needs_root
def test_a_daemon_that_root_runs_says_so_at_its_start_and_in_its_status(stopped: RealDaemon) -> None:
    stopped.start()
    (warning,) = stopped.ask("daemon.status")["value"]["warnings"]
    assert "the daemon runs as root" in warning
    assert "Run it as a user of its own" in warning
    wait_until(lambda: warning in stopped.log(), what="the warning in the log")
    shown = subprocess.run([*COMMAND, "status"], env=stopped.environ, capture_output=True, text=True, check=True)
    assert warning in shown.stdout
