"""`modelctl scrub` against a real daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rigs.real_daemon import RealDaemon
from store_contract.conftest import Ctl

MIB = 1 << 20


def test_the_command_says_what_was_read_and_what_is_bad(daemon: RealDaemon, ctl: Ctl) -> None:
    assert ctl("add", daemon.file("a.gguf", b"GGUF" + os.urandom(2 * MIB))).returncode == 0
    fine = ctl("scrub")
    assert (fine.returncode, fine.stdout) == (0, "")
    assert "1 blob (2.10 MB) read, none of them bad" in fine.stderr
    path = Path(ctl.path("a"))
    os.chmod(path, 0o644)
    with path.open("r+b") as file:
        file.write(b"XXXX")
    bad = ctl("scrub", "--full")
    assert bad.returncode == 6
    assert "corrupt" in bad.stdout
    assert "modelctl repair" in bad.stderr
    assert "1 blob read, 1 bad blob found" in ctl("status").stdout
    again = ctl("scrub", "--json")
    assert again.returncode == 6
    assert json.loads(again.stdout)["damaged"][0]["name"] == "a"
    assert ctl("scrub", "--quiet").stdout == "a\n"
