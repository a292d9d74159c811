"""What a download costs, beside `curl -o f && openssl dgst -sha256 f` of the same file in the same round.

    python -m bench.downloads [--size 2GiB] [--rounds 5] [--directory DIR] [--without aria2c]

A local nginx serves the file plain, over TLS and as a hub does, a shaping server with a limit for each connection. Ours
ends with the blob named and durable; those of curl, `hf download` and aria2 with bytes in the page cache and a hash of
them. Both sides run in turn (A B A B …), each of ours in a process of its own, so that its memory can be told. Files
are truncated, not deleted, between runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import hub_site
from bench.table import header, median, row
from modeld.download.engine.downloads import Transfer
from modeld.download.http.client import HttpClient
from modeld.download.routes.router import Described, Route
from modeld.download.source import Body, Description, FileInfo
from modeld.sources.huggingface.reference import HubReference
from modeld.sources.huggingface.source import HuggingFaceSource
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space, free_bytes_under
from modeld.store.ingest.commit import Batch
from modelwire.units import parse_size

LIMITED = 100
"""MB/s for each connection of the limited server."""

HUB = "hub+"
"""Before the address of a hub, where the others have that of a file."""


@dataclass
class Runs:
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


class Address:
    """The smallest source: a described file at an address."""

    name = "https"

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def origin(self, reference: FileInfo) -> str | None:
        return reference.origin

    def describe(self, reference: FileInfo) -> Description:
        return Description(source=self.name, files=(reference,), registry="bench")

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        return self._client.open_range(file.locator, file, start, end, validator)


def fetch(root: str, url: str, size: int, digest: str) -> None:
    """In a process of its own: `python -m bench.downloads --fetch ROOT URL SIZE DIGEST`."""
    layout = Layout(root)
    os.makedirs(layout.blobs_dir, exist_ok=True)
    client = HttpClient()
    transfer = Transfer(layout, Space(lambda: free_bytes_under(root)))
    origin = client.parse(url.removeprefix(HUB)).origin
    file = FileInfo(path="model", locator=url, size=size, digest=Digest(digest), origin=origin)
    began, cpu = time.perf_counter(), time.process_time()
    described: Described[Any]
    if url.startswith(HUB):
        reference = HubReference(repo=hub_site.REPO, path=hub_site.FILE, revision="main")
        hub = HuggingFaceSource(client, url.removeprefix(HUB), environ={"HF_HUB_DISABLE_XET": "1"})
        described = transfer.router.describe(Route(reference, [hub]))
        file = described.description.files[0]
    else:
        described = transfer.router.describe(Route(file, [Address(client)]))
    batch = Batch(layout)
    batch.take(transfer.fetch_file(described, file))
    batch.settle({})
    ((blob, *_),) = batch.commit().values()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    client.close()
    os.truncate(blob.path, 0) if os.geteuid() == 0 else os.unlink(blob.path)
    os.rename(blob.path, f"{root}/used-{time.time_ns()}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([wall, cpu, peak]))


def ours(directory: str, url: str, size: int, digest: str, certificate: str) -> Callable[[Runs], None]:
    def run(runs: Runs) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bench.downloads", "--fetch", f"{directory}/root", url, str(size), digest],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "SSL_CERT_FILE": certificate},
        )
        wall, cpu, peak = json.loads(done.stdout)
        runs.walls.append(wall)
        runs.cpus.append(cpu)
        runs.peaks.append(peak)

    return run


def theirs(path: str, *commands: Sequence[str]) -> Callable[[Runs], None]:
    def run(runs: Runs) -> None:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        for command in commands:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs.walls.append(time.perf_counter() - began)
        runs.cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        os.truncate(path, 0)

    return run


@contextlib.contextmanager
def limited_server(path: str) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.limited_server", path, str(LIMITED * 1_000_000)], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/model"
    finally:
        server.terminate()
        server.communicate(timeout=20)


@contextlib.contextmanager
def served(directory: str, size: int, digest: str) -> Iterator[tuple[str, str, str]]:
    """Addresses of the file by the plain server, which is a hub too, and by the encrypted one, and the certificate."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert program is not None
    with contextlib.ExitStack() as stack:
        ports = []
        for sock in [stack.enter_context(socket.socket()) for _ in range(2)]:
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
    certificate = f"{directory}/cert.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-keyout", f"{directory}/key.pem", "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    scratch = "".join(
        f"{kind}_temp_path {directory}/scratch; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    with open(f"{directory}/nginx.conf", "w", encoding="ascii") as file:
        file.write(
            f"""daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 2;
            events {{ worker_connections 256; }}
            http {{ {scratch} access_log off; sendfile on; keepalive_requests 1000000; root {directory}/files;
              server {{ listen 127.0.0.1:{ports[0]}; {hub_site.locations(f"{directory}/files/model", size, digest)} }}
              server {{ listen 127.0.0.1:{ports[1]} ssl;
                        ssl_certificate {certificate}; ssl_certificate_key {directory}/key.pem; }} }}"""
        )
    server = subprocess.Popen(
        [program, "-c", f"{directory}/nginx.conf", "-p", directory],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nginx does not start here")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{ports[0]}/model", f"https://localhost:{ports[1]}/model", certificate
    finally:
        server.terminate()
        server.wait(20)


def make_file(path: str, size: int) -> str:
    piece = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    done = subprocess.run(["openssl", "dgst", "-sha256", "-r", path], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def compare(what: str, mine: Runs, other: Runs, name: str, target: float | None) -> None:
    ratio = median(mine.walls) / median(other.walls)
    row(
        what,
        f"{median(mine.walls):.2f} s",
        f"{name} {median(other.walls):.2f} s",
        ratio,
        "" if target is None else f"≤ {target}",
        met=None if target is None else ratio <= target,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a download costs, beside curl, hf download and aria2.")
    parser.add_argument("--size", type=parse_size, default=2 << 30, help="of the file: 2GiB, 512MiB (default 2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--directory", default=None, help="on the filesystem to measure (default: the temporary one)")
    parser.add_argument("--without", action="append", default=[], help="leave out aria2c")
    parser.add_argument("--fetch", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.fetch:
        root, url, size, digest = options.fetch
        fetch(root, url, int(size), digest)
        return 0
    with contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="modeld-bench-", dir=options.directory)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        os.chmod(directory, 0o755)  # nginx, started by root, reads as nobody
        os.makedirs(f"{directory}/files")
        if free_bytes_under(directory) < 4 * options.size:
            print(f"four times {options.size} bytes must be free under {directory}", file=sys.stderr)
            return 1
        digest = make_file(f"{directory}/files/model", options.size)
        plain, tls, certificate = stack.enter_context(served(directory, options.size, digest))
        target = f"{directory}/target"
        dgst = ("openssl", "dgst", "-sha256", target)

        def mine(url: str) -> Callable[[Runs], None]:
            return ours(directory, url, options.size, digest, certificate)

        contenders: dict[str, Callable[[Runs], None]] = {
            "plain": mine(plain),
            "curl plain": theirs(target, ("curl", "-s", "-o", target, plain), dgst),
            "tls": mine(tls),
            "curl tls": theirs(target, ("curl", "-s", "--cacert", certificate, "-o", target, tls), dgst),
        }
        hub = plain.removesuffix("/model")
        contenders["hub"] = mine(HUB + hub)
        if hf := hub_site.client(hub, directory):
            got = f"{directory}/{hub_site.FILE}"
            contenders["hf download"] = theirs(got, hf, ("openssl", "dgst", "-sha256", got))
        if shutil.which("aria2c") and "aria2c" not in options.without:
            limited = stack.enter_context(limited_server(f"{directory}/files/model"))
            aria = ("aria2c", "-q", "-x8", "-s8", "--allow-overwrite=true", "-d", directory, "-o", "target", limited)
            contenders |= {"limited": mine(limited), "aria2c": theirs(target, aria, dgst)}
        runs = {name: Runs() for name in contenders}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for name, contender in contenders.items():
                contender(runs[name])
        gib = options.size / (1 << 30)
        print(f"{gib:g} GiB from a local nginx, medians of {options.rounds}; ours verified, durable and named")
        header()
        compare("plain", runs["plain"], runs["curl plain"], "curl; openssl", 0.55)
        compare("TLS", runs["tls"], runs["curl tls"], "curl; openssl", 0.75)
        if "hf download" in runs:
            compare("from a hub", runs["hub"], runs["hf download"], "hf download; openssl", None)
        if "aria2c" in runs:
            compare(f"{LIMITED} MB/s a connection", runs["limited"], runs["aria2c"], "aria2c -x8; openssl", 0.60)
        peak = max(peak for each in runs.values() for peak in each.peaks)
        row("peak memory of the process", f"{peak:.0f} MiB", "", None, "< 100 MiB", met=peak < 100)
        for name, each in runs.items():
            row(f"processor seconds for 1 GiB, {name}", f"{median(each.cpus) / gib:.2f} s", "", None, "", met=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
