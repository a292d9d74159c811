"""What a command puts on the wire, to the byte, against a peer that answers with the protocol's own vectors.

Run by the Python of an environment that has some version installed, it records what that version's `modelctl` sends:

    PYTHONPATH=tests /path/to/that/venv/bin/python -m client.tape > tests/client/tape_v0_1_0.ndjson
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors" / "operations.ndjson"

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bb822cd15d6c15b0f00a0"

COMMANDS = (
    "add /srv/in/a.gguf",
    f"add /srv/in/a.gguf --name a:1 --sha256 {HEX} --replace --license mit --priority 1 --move",
    "add /srv/in/a.gguf --link --detach",
    "pull hf:org/repo/file.gguf",
    "pull hf:org/repo --include *.json --include *.gguf --exclude x* --max-rate 20MB --priority 5 --offline",
    f"pull https://models.test/a.gguf --name a --sha256 {HEX} --replace --license mit --detach",
    "list",
    "list --filter size>1GB,name~^llama --sort -size",
    "show a:1",
    "path a",
    "path a --no-start",
    "path a --file config.json",
    "cp a b",
    "cp a b --dry-run",
    "mv a b",
    "rm a b",
    "rm a --force",
    "verify",
    "verify --all",
    "verify a b",
    "quarantine",
    "usage",
    "sweep",
    "sweep --dry-run --grace 0",
    "sweep --grace 90",
    "jobs",
    "jobs --state failed -n 3",
    "job 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "attach 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "cancel 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "pause 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "resume 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "status",
    "watch",
    "watch --model a --job 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "log",
    "log -n 3",
    "log --since 9",
    "log -f -n 3",
    "set max_rate=20MB/s",
    "set max_rate=none running_bytes=3 running_fetches=2 waiting_total=9 waiting_per_peer=4",
    "set priority=1 max_rate=1MB --job 01k3vxq4m7e2d9c8b6a5f4g3h2",
    "start",
    "stop",
    "stop --deadline 5",
)


NO_PROCESS = 2**30
"""More than any kernel gives: `stop` waits for the process in the status."""


def _vectors() -> dict[str, list[dict[str, Any]]]:
    """The first replies to each operation that end in a result; and the greeting, under no name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in VECTORS.read_text(encoding="utf-8").splitlines():
        vector = json.loads(line)
        if not {"open", "extra"} & vector.keys() and vector["receive"][-1]["type"] in ("result", "hello"):
            found.setdefault(vector["send"]["op"] if vector["send"] else "", vector["receive"])
    found["daemon.status"][-1]["value"]["pid"] = NO_PROCESS
    return found


class Deck:
    """Listens at `path`; `sent` has every line that came, in its order."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sent: list[str] = []
        self._vectors = _vectors()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines, suppress(ConnectionError):
                self._answer(connection, self._vectors[""], None)
                for line in lines:
                    self.sent.append(line.decode())
                    request = json.loads(line)
                    self._answer(connection, self._vectors[request["op"]], request["id"])
                    if request["op"] == "daemon.drain":
                        break  # as a daemon that has ended

    def _answer(self, connection: socket.socket, replies: list[dict[str, Any]], request_id: str | None) -> None:
        for reply in replies:
            sent = reply if request_id is None else {**reply, "id": request_id}
            connection.sendall(json.dumps(sent).encode() + b"\n")


@contextmanager
def deck(path: Path) -> Iterator[Deck]:
    made = Deck(str(path))
    try:
        yield made
    finally:
        made.close()


def played(modelctl: Sequence[str], command: str) -> dict[str, Any]:
    """One line of a tape: what the command sent, and what it made of the answers."""
    with tempfile.TemporaryDirectory() as room, deck(Path(room, "s")) as made:
        as_json = () if command == "path a" else ("--json",)  # that one has a fast way of its own
        done = subprocess.run(
            [*modelctl, *command.split(), *as_json],
            env={"MODELD_SOCKET": made.path, "HOME": room},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        out = done.stdout.replace(made.path, "SOCKET")
        return {"command": command, "sent": made.sent, "exit": done.returncode, "out": out}


if __name__ == "__main__":
    for each in COMMANDS:
        sys.stdout.write(json.dumps(played([str(Path(sys.executable).with_name("modelctl"))], each)) + "\n")
