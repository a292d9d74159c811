"""A server that speaks S3, in a process of its own: moto."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rigs.registries import await_port, free_port

KEY, SECRET = "AKIATESTTESTTESTTEST", "sEcReT/key+of/the=bucket"

_SIGNED = {
    "Content-Type": "application/octet-stream",
    "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=unchecked",
}
"""Moto checks no signature, but tells by it which service is meant."""


class Buckets:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @property
    def environ(self) -> dict[str, str]:
        """Without keys."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1", "HOME": "/nonexistent"}

    @property
    def signed(self) -> dict[str, str]:
        return self.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def put(self, target: str, body: bytes = b"") -> None:
        request = urllib.request.Request(f"{self.url}/{target}", data=body, method="PUT", headers=_SIGNED)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30):
            pass


@contextlib.contextmanager
def buckets(room: Path) -> Iterator[Buckets]:
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with open(room / "moto.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env=environ,
        )
    try:
        await_port(port, process)
        yield Buckets(port)
    finally:
        process.terminate()
        process.wait(20)
