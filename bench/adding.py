"""What adding a file costs, beside the hash of the same file and beside other stores.

    python bench/adding.py [--size 2GiB] [--rounds 5] [--small 1000] [--directory DIR] [--without NAME ...]

Absolute figures drift with the machine, ratios hold when both sides run in turn: each round runs every
contender once, on new content, and the medians are compared. The reference is `openssl dgst -sha256` of
the file in the page cache. Bytes that a contender stored are truncated after each run, and deleted only
at the end: ext4 is slow for minutes after a mass delete. The script ends by itself and leaves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from bench.daemon import daemon, modelctl
from bench.timed import REFERENCE, Row, command, print_rows
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob, find_good
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.copying import Source as OpenFile
from modeld.store.ingest.copying import hash_source, stage_copy
from modeld.store.ingest.readers import Reader
from modelwire.units import parse_size

SMALL_SIZE = 16 * 1024


def version_of(*arguments: str) -> str:
    output = subprocess.run(arguments, capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0].strip() if output else "?"


class Source:
    """One file whose content is new each time, at the price of one page."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        piece = os.urandom(1 << 20)
        with open(path, "wb") as file:
            for _ in range(size >> 20):
                file.write(piece)
            file.write(piece[: size & 0xFFFFF])
            file.flush()
            os.fsync(file.fileno())

    def renew(self) -> None:
        with open(self.path, "r+b") as file:
            file.write(os.urandom(4096))
            file.flush()
            os.fsync(file.fileno())


class Ours:
    """The store of modeld, called as its daemon calls it. `last` is the blob of the last add."""

    def __init__(self, root: str, source: Source) -> None:
        self.layout = Layout(root)
        os.makedirs(self.layout.blobs_dir)
        self.space = Space(lambda: 1 << 60)
        self.source = source
        self.last: Blob | None = None

    def add(self) -> None:
        batch = Batch(self.layout)
        self._stage(batch, self.source.path, sync=True)
        batch.settle({})
        (committed,) = batch.commit().values()
        self.last = committed.blob

    def _stage(self, batch: Batch, path: str, *, sync: bool) -> None:
        descriptor = Reader().open(path)
        try:
            source = OpenFile.of(descriptor, path)
            batch.take(stage_copy(self.layout, source, space=self.space, progress=FileProgress(), sync=sync))
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        if self.last is not None:
            os.truncate(self.last.path, 0)
        self.last = None

    def add_again(self) -> None:
        descriptor = Reader().open(self.source.path)
        try:
            digest = hash_source(OpenFile.of(descriptor, self.source.path), FileProgress())
        finally:
            os.close(descriptor)
        assert find_good(self.layout, digest, verified=self._known().signature) is not None

    def _known(self) -> Blob:
        assert self.last is not None
        return self.last

    def add_known(self) -> None:
        assert find_good(self.layout, self._known().digest, verified=self._known().signature) is not None

    def add_small(self, paths: list[str]) -> None:
        batch = Batch(self.layout, len(paths))
        sync = batch.syncs_alone(SMALL_SIZE)
        for path in paths:
            self._stage(batch, path, sync=sync)
        batch.settle({})
        batch.commit()


def truncate_big_files(directory: str) -> None:
    for folder, _folders, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.getsize(path) > 1 << 20:
                os.chmod(path, 0o600)
                os.truncate(path, 0)


@contextlib.contextmanager
def containerd(directory: str) -> Iterator[str]:
    """A daemon of its own under `directory`; the address of its socket."""
    os.mkdir(directory)
    address, config = f"{directory}/sock", f"{directory}/config.toml"
    with open(config, "w", encoding="ascii") as file:
        file.write('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    daemon = subprocess.Popen(
        [
            *("containerd", "--config", config, "--address", address),
            *("--root", f"{directory}/root", "--state", f"{directory}/state"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(["ctr", "-a", address, "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("containerd does not start here")
            time.sleep(0.1)
        yield address
    finally:
        daemon.terminate()
        daemon.wait(20)


def nix_environment(directory: str) -> dict[str, str]:
    return {
        "NIX_STORE_DIR": f"{directory}/store",
        "NIX_STATE_DIR": f"{directory}/var",
        "NIX_LOG_DIR": f"{directory}/log",
        "NIX_CONF_DIR": f"{directory}/etc",
        "NIX_REMOTE": "",
    }


def peers(stack: contextlib.ExitStack, directory: str, source: Source, ours: Row, without: set[str]) -> Iterator[Row]:
    """Those that are installed, each with the share of its time that ours may take."""
    directory = f"{directory}/peers"
    os.mkdir(directory)

    def renew() -> None:
        truncate_big_files(directory)
        source.renew()

    beside: list[tuple[str, str, Callable[[], object]]] = []
    if shutil.which("ctr") and shutil.which("containerd") and "ctr" not in without:
        address = stack.enter_context(containerd(f"{directory}/containerd"))
        number = iter(range(1_000_000))
        beside.append(
            (
                version_of("ctr", "--version"),
                "0.20",
                lambda: command("ctr", "-a", address, "content", "ingest", f"bench-{next(number)}", stdin=source.path),
            )
        )
    if shutil.which("nix-store") and "nix-store" not in without:
        nix = nix_environment(f"{directory}/nix")
        beside.append(
            (
                version_of("nix-store", "--version"),
                "0.30",
                lambda: command("nix-store", "--add-fixed", "sha256", source.path, **nix),
            )
        )
    if shutil.which("git-annex") and "git-annex" not in without:
        repository = f"{directory}/annex"
        identity = {"GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost"}
        identity |= {"GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost"}
        command("git", "init", "-q", repository)
        command("git", "-C", repository, "annex", "init", "-q", "bench", **identity)

        def annex() -> None:
            copy = f"{repository}/model-{time.monotonic_ns()}"
            command("cp", "--reflink=auto", source.path, copy)
            command("git", "-C", repository, "annex", "add", "-q", "--backend=SHA256E", copy, **identity)

        version = version_of("git-annex", "version").removeprefix("git-annex version: ")
        beside.append((f"cp; git-annex add {version}", "0.30", annex))
    for name, target, run in beside:
        row = Row(name, run, f"modeld takes ≤ {target} of it", ours.name, is_peer=True)
        row.prepare = renew
        yield row


def served_rows(stack: contextlib.ExitStack, directory: str, source: Source) -> list[Row]:
    """The whole way of a user: the command, the socket, the queue, the job, the answer. The processor time of the
    daemon is not in these rows."""
    bench = stack.enter_context(daemon({"MODELS_HOME": f"{directory}/served"}))

    def modelctl_runs(*arguments: str) -> None:
        command(modelctl(), *arguments, **bench.environ)

    def new_content() -> None:
        for name in os.listdir(f"{directory}/served/manifests"):
            modelctl_runs("rm", name.removesuffix(".json"), "--now")
        source.renew()

    def known_content() -> None:
        new_content()
        modelctl_runs("add", source.path, "--name", "before")
        os.utime(source.path)  # the record of its signature is of no use any more

    def add() -> None:
        modelctl_runs("add", source.path, "--name", "served")

    return [
        Row("add through daemon and command", add, "≤ 0.95", prepare=new_content),
        Row("same content again, through both", add, "≤ 0.85", prepare=known_content),
    ]


def small_rows(directory: str, ours: Ours, count: int, without: set[str]) -> list[Row]:
    os.mkdir(f"{directory}/small")
    paths = [f"{directory}/small/{index}" for index in range(count)]

    def renew() -> None:
        for path in paths:
            with open(path, "wb") as file:
                file.write(os.urandom(SMALL_SIZE))
        os.sync()

    name = f"modeld, {count} files of 16 KiB"
    nix_name = f"nix-store, {count} files of 16 KiB"
    rows = [Row(name, lambda: ours.add_small(paths), "≤ 1.00 of nix-store", nix_name, prepare=renew)]
    if shutil.which("nix-store") and "nix-store" not in without:
        nix = nix_environment(f"{directory}/nix-small")
        rows.append(
            Row(
                nix_name, lambda: command("nix-store", "--add-fixed", "sha256", *paths, **nix), beside="", prepare=renew
            )
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What adding a file costs, beside its hash and other stores.")
    parser.add_argument("--size", type=parse_size, default=2 << 30, help="of the file: 2GiB, 512MiB (default 2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--small", type=int, default=1000, metavar="COUNT", help="small files; 0 for none")
    parser.add_argument("--directory", default=None, help="on the filesystem to measure (default: the temporary one)")
    parser.add_argument("--without", action="append", default=[], help="leave out ctr, nix-store or git-annex")
    options = parser.parse_args(arguments)
    without = set(options.without)

    directory = tempfile.mkdtemp(prefix="modeld-bench-", dir=options.directory)
    status = os.statvfs(directory)
    if status.f_bavail * status.f_frsize < 4 * options.size:
        os.rmdir(directory)
        print(f"four times {options.size} bytes must be free under {directory}", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        source = Source(f"{directory}/source", options.size)
        ours = Ours(f"{directory}/root", source)

        def new_content() -> None:
            ours.forget()
            source.renew()

        copy = f"{directory}/copy"

        def copy_and_hash() -> None:
            command("cp", "--reflink=never", source.path, copy)
            command("openssl", "dgst", "-sha256", copy)

        add = Row("modeld, new content", ours.add, "≤ 1.00 (CPU ≤ 1.30)", prepare=new_content)
        rows = [
            Row(REFERENCE, lambda: command("openssl", "dgst", "-sha256", source.path), ""),
            add,
            Row("modeld, same content again", ours.add_again, "≤ 0.90"),
            Row("modeld, digest given and present", ours.add_known, "≤ 20 ms"),
            Row("cp", lambda: command("cp", "--reflink=never", source.path, copy)),
            Row("cp; openssl dgst", copy_and_hash),
            *served_rows(stack, directory, source),
            *peers(stack, directory, source, add, without),
        ]
        if options.small:
            rows += small_rows(directory, ours, options.small, without)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for row in rows:
                row.measure()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{options.size / (1 << 30):g} GiB, medians of {options.rounds}, SHA-256 by {ssl.OPENSSL_VERSION}")
        print_rows(rows)
        print(f"peak memory of this process: {peak:.0f} MiB (target ≤ 80)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
