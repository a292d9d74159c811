"""No regular expression of the product keeps the interpreter busy for long, whatever text a peer sends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from rigs.slow_patterns import slow_text


def test_all_patterns_end_soon() -> None:
    command = [sys.executable, "-m", "rigs.slow_patterns"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["slow"] == {}
    assert found["tried"] > 80


def test_a_pattern_with_many_ways_to_repeat_is_found() -> None:
    many = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL)
    assert slow_text(many, 0.5) is not None
    assert slow_text(re.compile(r"(a+)+$"), 0.5) is not None
    assert slow_text(re.compile(r"(?>a+)+$"), 0.5) is None
