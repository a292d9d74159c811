"""Sweeps without a grace period while eight programs bring models in, rename, hold and remove them.

Whatever a program was promised is there, and what nothing holds any more goes in the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs import sweep_racer
from rigs.pull_rig import MIB, gguf
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.rough_peers import incidents, scaled, staging

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(600),
    pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed"),
]

PROGRAMS = 8
SECONDS = scaled(60, 8)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as served:
        yield served


def furnish(sources: Path, served: Path) -> None:
    """Few contents for many names: most adds find the bytes that a sweep is about to remove."""
    sources.mkdir()
    for number in range(5):
        content = gguf(3 * MIB if number == 4 else 900 + number, seed=number)
        (sources / f"m{number}.gguf").write_bytes(content)
        (served / f"m{number}.gguf").write_bytes(content)
    for number in range(2):
        (sources / f"d{number}").mkdir()
        (sources / f"d{number}" / "config.json").write_bytes(b"{}")
        (sources / f"d{number}" / "model.gguf").write_bytes((sources / f"m{number}.gguf").read_bytes())


def race(daemon: RealDaemon, sources: Path, web: Nginx) -> list[dict[str, Any]]:
    """The reports of the programs; the test fails with what the first broken one says."""
    command = [sys.executable, sweep_racer.__file__, daemon.socket, str(sources), web.plain]
    racing = [
        subprocess.Popen(
            [*command, str(number), str(SECONDS)],
            env=daemon.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROGRAMS)
    ]
    try:
        ended = [program.communicate(timeout=SECONDS + 120) for program in racing]
    finally:
        for program in racing:
            program.kill()
            program.wait(10)
    assert [program.returncode for program in racing] == [0] * PROGRAMS, "\n".join(said[-3000:] for _, said in ended)
    return [json.loads(out) for out, _ in ended]


def files_below(daemon: RealDaemon, *directories: str) -> list[str]:
    return [
        os.path.join(where, file)
        for directory in directories
        for where, _, files in os.walk(os.path.join(daemon.root, directory))
        for file in files
    ]


def test_no_sweep_takes_what_a_program_was_promised(stopped: RealDaemon, tmp_path: Path, web: Nginx) -> None:
    stopped.configure('[store]\ngrace = "0s"\n[limits]\nwaiting_total = 200\nwaiting_per_peer = 200\n')
    stopped.environ["MODELD_STORE_MIN_FREE"] = "0"
    daemon = stopped.start()
    furnish(tmp_path / "sources", web.files)
    reports = race(daemon, tmp_path / "sources", web)
    done = sum((Counter(report["counts"]) for report in reports), Counter[str]())
    print(dict(done))
    assert min(done[what] for what in ("add", "pull", "copy", "move", "lease", "pin", "swept")) > 0
    stands = {name: set(content.values()) for report in reports for name, content in report["stands"].items()}
    models = daemon.ask("model.list")["value"]["models"]
    listed = {model["name"]: model["state"] for model in models}
    assert listed == dict.fromkeys(stands, "ready")
    verification = daemon.ask("model.verify", all=True)["value"]
    assert (verification["ok"], verification["checked"]) == (True, len(stands))
    daemon.ask("store.sweep", grace_s=0.0)
    blobs = {Path(path).parent.name for path in files_below(daemon, "blobs")}
    assert blobs == set().union(*stands.values())
    for name in stands:
        assert daemon.ask("model.remove", name=name, force=True)["type"] == "result"
    daemon.ask("store.sweep", grace_s=0.0)
    assert files_below(daemon, "blobs", "manifests", ".modeld/trees") == []
    assert (staging(daemon), incidents(daemon)) == ([], [])
