"""Another tool that publishes into the store by the contract's steps and asks no daemon: a process, one step at a time.

Run as a program, it takes the steps that it reads: `python foreign_producer.py ROOT NAME DIGEST SOURCE`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import shutil
import subprocess
import sys
from typing import Final, Literal

from filelock import FileLock

Step = Literal["lock", "begin", "finish", "name", "clear", "publish", "unlock"]

_REASON: Final = "digest-mismatch"


class Producer:
    """The steps of the contract, each as plainly as it can be written: no sync, no unique names, no second look."""

    def __init__(self, root: str, name: str, digest: str, source: str) -> None:
        fanout = f"{root}/blobs/sha256/{digest[:2]}"
        self.partial, self.blob = f"{fanout}/.partial-{digest}", f"{fanout}/{digest}/data"
        self._manifest = f"{root}/manifests/{name.replace(':', '+')}.json"
        self._quarantine = f"{root}/locks/quarantine"
        self._lock = FileLock(f"{root}/locks/{name.replace(':', '+')}.lock", fallback_to_soft=False)
        self._model, self._digest = name, digest
        with open(source, "rb") as file:
            self._content = file.read()

    def lock(self) -> None:
        self._lock.acquire()

    def begin(self) -> None:
        os.makedirs(self.partial, exist_ok=True)
        self._file = open(f"{self.partial}/data.tmp", "wb")  # noqa: SIM115 - the next step closes it
        self._file.write(self._content[: len(self._content) // 2])
        self._file.flush()

    def finish(self) -> None:
        self._file.write(self._content[len(self._content) // 2 :])
        self._file.close()

    def name(self) -> None:
        path = f"{self.partial}/data.tmp"
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if not hmac.compare_digest(actual, self._digest):
            os.makedirs(self._quarantine, exist_ok=True)
            os.replace(path, f"{self._quarantine}/20260101T000000Z-{_REASON}.bin")
            return
        os.makedirs(os.path.dirname(self.blob), exist_ok=True)
        os.replace(path, self.blob)

    def clear(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def publish(self) -> None:
        document = {
            "schema_version": 1,
            "name": self._model,
            "format": "gguf",
            "blob": f"sha256:{self._digest}",
            "size_bytes": len(self._content),
            "license": None,
            "source": {"registry": "elsewhere", "repo": "org/repo", "revision": "main", "filename": "m.gguf"},
            "produced_by": "provisioner/2.3.1",
            "produced_at": "2026-01-15T09:30:00Z",
        }
        temporary = f"{self._manifest}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
        os.replace(temporary, self._manifest)

    def unlock(self) -> None:
        self._lock.release()


class ForeignProducer:
    """The process, from outside. `source` is a file with the bytes that it publishes, right or wrong, as `digest`."""

    def __init__(self, root: str, name: str, digest: str, source: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), root, name, digest, source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> ForeignProducer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, *steps: Step) -> None:
        """Takes the steps, and returns when the last is done."""
        for step in steps:
            self.begin(step)
            assert self.has_done(step, 30), f"{step} is not done"

    def begin(self, step: Step) -> None:
        """Begins a step that may have to wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step}\n".encode())
        self._process.stdin.flush()

    def has_done(self, step: Step, seconds: float = 0.0) -> bool:
        """Whether the step that was begun is done by now, or within these seconds. True only once for each step."""
        pipe = self._process.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], seconds)
        if not ready:
            return False
        line = pipe.readline()
        assert line == f"{step}\n".encode(), (step, line)
        return True


def _main() -> None:
    producer = Producer(*sys.argv[1:])
    for line in sys.stdin:
        getattr(producer, line.strip())()
        print(line.strip(), flush=True)


if __name__ == "__main__":
    _main()
