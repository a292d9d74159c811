"""Makes an archive of a store with the modeld of the Python that runs this; README.md beside says how and why."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from old_stores.served import CONFIG, Served, gguf, safetensors
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

MODELCTL = str(Path(sys.executable).with_name("modelctl"))
CORRUPT = 6
NAMING = "link,linkat,rename,renameat,renameat2"


class Maker:
    """One room, in which a real daemon does what the real command asks for."""

    def __init__(self, room: Path, served: Served) -> None:
        self.room = room
        self.sources = room / "sources"
        self.sources.mkdir()
        self.served = served
        self.daemon = RealDaemon(str(room), served.environ())
        self.daemon.configure(CONFIG)
        self.root = Path(self.daemon.root)
        self.jobs: dict[str, str] = {}
        """Ids of jobs by what they are here for."""
        self.facts: dict[str, Any] = {}

    def close(self) -> None:
        self.daemon.close()

    def ctl(self, *arguments: str, exits: Container[int] = (0,)) -> str:
        done = subprocess.run(
            [MODELCTL, *arguments],
            env=self.daemon.environ,
            cwd=self.room,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in exits, (arguments, done)
        return done.stdout

    def file(self, name: str, content: bytes) -> str:
        path = self.sources / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def add(self, name: str, content: bytes, *options: str) -> None:
        self.ctl("add", self.file(name.replace(":", "-") + ".gguf", content), "--name", name, *options)

    def detached(self, purpose: str, *arguments: str) -> str:
        self.jobs[purpose] = self.ctl(*arguments, "--detach", "-q").strip()
        return self.jobs[purpose]

    def newest_job(self, purpose: str) -> None:
        self.jobs[purpose] = self.daemon.ask("job.list", limit=1)["value"]["jobs"][0]["id"]

    # -- what has ended

    def models(self) -> None:
        self.add("tiny", gguf("tiny"), "--license", "mit")
        self.ctl("add", self.file("notes.bin", b"no format that anybody knows\n" * 9), "--name", "unknown")
        self.add("chat:small", gguf("chat"))
        self.file("folder/config.json", b'{"model_type": "llama"}\n')
        self.file("folder/tokenizer.json", b"{}\n")
        self.ctl("add", str(Path(self.file("folder/model.safetensors", safetensors("folder"))).parent))
        shards = [self.file(f"set-0000{number}-of-00002.gguf", gguf(f"shard {number}")) for number in (1, 2)]
        self.ctl("add", shards[0], "--name", "shards")
        self.add("linked", gguf("linked"), "--link")
        self.add("taken-along", gguf("taken along"), "--move")
        self.ctl("cp", "tiny", "tiny-copy")
        self.ctl("cp", "folder", "folder-copy")
        self.add("before", gguf("renamed"))
        self.ctl("mv", "before", "after:renamed")
        self.add("gone", gguf("gone"))
        self.ctl("rm", "gone")
        self.ctl("pull", "http://models.test/plain.gguf")
        self.ctl("pull", "hf:org/one/one.gguf", "--name", "one")
        self.ctl("pull", "hf:org/many", "--name", "many")
        self.ctl("verify", "tiny", "folder")
        self.ctl("path", "tiny")

    def faults(self) -> None:
        offered = self.file("other.gguf", gguf("other"))
        self.ctl("add", offered, "--name", "tiny", "--replace", "--sha256", "22" * 32, exits=(CORRUPT,))
        self.newest_job("failed")
        self.ctl("pull", "http://models.test/wrong.gguf", "--sha256", "11" * 32, exits=(CORRUPT,))
        self.newest_job("wrong")
        self.add("rotten", gguf("rotten"))
        blob = Path(self.ctl("path", "rotten").strip())
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"\xff")
        blob.chmod(0o444)
        self.ctl("verify", "rotten", exits=(CORRUPT,))

    def foreign(self) -> None:
        """As another tool does it: fields that modeld does not know, and a manifest that modeld has not written."""
        for name in ("foreign", "shards"):
            if name == "foreign":
                self.add(name, gguf(name))
            path = self.root / "manifests" / f"{name}.json"
            document = json.loads(path.read_bytes())
            document["x_rating"] = {"stars": 5, "by": ["ada", "lin"]}
            for file in document.get("files", ()):
                file["x_part"] = file["path"].upper()
            path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        document = json.loads((self.root / "manifests" / "tiny.json").read_bytes())
        document |= {"name": "theirs", "produced_by": "other-tool/2", "x_theirs": True}
        (self.root / "manifests" / "theirs.json").write_text(json.dumps(document), encoding="utf-8")

    # -- what has not

    def pulls(self) -> None:
        for name in ("keyed", "paused", "killed"):
            self.served.held.add(f"/{name}.gguf")
        self._held_pull("keyed")
        self.ctl("cancel", self.jobs["keyed"])
        self._held_pull("paused", "--sha256", self.digest("paused"))
        self.ctl("pause", self.jobs["paused"])
        self._held_pull("killed", "--sha256", self.digest("killed"), "--max-rate", "500MB")
        for token in ("first", "second"):  # one job, for two who asked
            with self.daemon.connect() as wire:
                fields = {"ref": "http://models.test/waiting.gguf", "token": token, "on_disconnect": "continue"}
                self.jobs["waiting"] = wire.until(wire.request("model.pull", **fields), "accepted")["job"]
        self.detached("urgent", "pull", "http://models.test/urgent.gguf", "--priority", "1")

    def digest(self, name: str) -> str:
        return hashlib.sha256(self.served.files[f"/{name}.gguf"]).hexdigest()

    def _held_pull(self, name: str, *options: str) -> None:
        before = self._pieces()
        self.detached(name, "pull", f"http://models.test/{name}.gguf", *options)
        wait_until(lambda: self._pieces() >= before + 2, 20, f"the journal of {name}")

    def _pieces(self) -> int:
        journals = (*self.root.glob("blobs/sha256/*/.partial-*/journal"), *self.root.glob(".modeld/partials/*/journal"))
        return sum(journal.read_bytes().count(b'"piece"') for journal in journals)

    @contextlib.contextmanager
    def lock_of(self, name: str) -> Iterator[None]:
        """Another tool has the name: a publication under it goes as far as it may."""
        with open(self.root / "locks" / f"{name}.lock", "a+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def staged(self, name: str) -> None:
        """Until the bytes of an add are here and only the name is missing."""
        content, staging = gguf(name), self.root / ".modeld" / "staging"
        wait_until(lambda: any(_holds(path, content) for path in staging.iterdir()), what=f"the bytes of {name}")

    @contextlib.contextmanager
    def killed_at(self, path: Path, calls: str) -> Iterator[None]:
        """The daemon dies at the first of these calls on this path, and the call is not carried out."""
        self.facts = self.look()
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-p", str(self.daemon.pid), "-o", os.devnull, "-P", str(path)),
                *("-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        try:
            yield
            assert self.daemon.wait() == -signal.SIGKILL
        finally:
            tracer.kill()
            tracer.communicate()

    # -- what a later version has to find

    def look(self) -> dict[str, Any]:
        """As the daemon tells it right before its end."""
        names = [model["name"] for model in self.daemon.ask("model.list")["value"]["models"]]
        jobs = self.daemon.ask("job.list", limit=100)["value"]["jobs"]
        return {
            "models": {name: self._show(name) for name in names},
            "jobs": {job["id"]: job for job in jobs},
            "purposes": self.jobs,
            "quarantine": self.daemon.ask("store.quarantine")["value"]["items"],
            "server": self.daemon.ask("daemon.status")["value"]["server"],
            "room": str(self.room),
        }

    def _show(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = self.daemon.ask("model.show", name=name)["value"]
        del value["manifest"]  # it stands in the archive itself
        return value

    def archive(self, path: Path) -> None:
        self.facts["last_seq"] = self.daemon.activity()[-1]["seq"]
        self.facts["unnamed"] = [hashlib.sha256(gguf("gone")).hexdigest()]

        def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            return member

        with tarfile.open(path.with_suffix(".tar.xz"), "w:xz", format=tarfile.PAX_FORMAT) as tar:
            for name in ("models", "state", "sources"):
                tar.add(self.room / name, name, filter=anonymous)
        path.with_suffix(".json").write_text(json.dumps(self.facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _holds(path: Path, content: bytes) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and path.read_bytes() == content
    return False


def make_open(maker: Maker) -> None:
    """Of everything something; killed between the announcement of a publication and the name."""
    maker.models()
    maker.faults()
    maker.foreign()
    maker.ctl("stop")
    maker.daemon.wait()
    maker.daemon.start()
    maker.pulls()
    manifest = maker.root / "manifests" / "announced.json"
    with contextlib.ExitStack() as death, maker.lock_of("announced"):
        for name in ("announced", "waiting-add", "paused-add"):
            maker.detached(name, "add", maker.file(f"{name}.gguf", gguf(name)), "--name", name)
        maker.ctl("pause", maker.jobs["paused-add"])
        maker.staged("announced")
        death.enter_context(maker.killed_at(manifest, NAMING))
    assert not manifest.exists()


def make_named(maker: Maker) -> None:
    """Killed when the model had its name and the ledger did not know."""
    manifests = maker.root / "manifests"
    source = maker.file("named.gguf", gguf("named"))
    with maker.killed_at(manifests, "fsync,fdatasync"):
        maker.detached("named", "add", source, "--name", "named")
    assert (manifests / "named.json").exists()


def make_moving(maker: Maker) -> None:
    """Killed when a model had both names."""
    maker.add("old", gguf("moving"))
    manifests = maker.root / "manifests"
    with maker.killed_at(manifests / "old.json", "unlink,unlinkat,rename,renameat,renameat2"):
        maker.ctl("mv", "old", "new", exits=range(256))
    assert (manifests / "old.json").exists()
    assert (manifests / "new.json").exists()


def make(room: Path, archive: Path, story: Callable[[Maker], None]) -> None:
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    with Served() as served, contextlib.closing(Maker(room, served)) as maker:
        maker.daemon.start()
        story(maker)
        maker.archive(archive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--room", type=Path, required=True, help="is emptied; its path stands in what is archived")
    parser.add_argument("--out", type=Path, required=True, help="the directory for the archives")
    options = parser.parse_args()
    os.umask(0o022)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, story in (("open", make_open), ("named", make_named), ("moving", make_moving)):
        make(options.room, options.out / name, story)


if __name__ == "__main__":
    main()
