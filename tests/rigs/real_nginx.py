"""A real nginx on a free loopback port, in a directory of its own, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rigs.waiting import wait_until


@dataclass(frozen=True)
class Nginx:
    plain: str
    tls: str
    certificate: str
    files: Path
    log: Path

    def requests(self) -> list[str]:
        """`<status> <bytes sent> <range>` of each."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def nginx_path() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@contextlib.contextmanager
def nginx(directory: Path, *, extra: str = "") -> Iterator[Nginx]:
    program = nginx_path()
    assert program is not None
    plain, tls = _free_ports(2)
    files = directory / "files"
    files.mkdir(parents=True)
    key, certificate = directory / "key.pem", directory / "cert.pem"
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
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,DNS:files.test,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    scratch = "".join(
        f"{kind}_temp_path {directory}/scratch; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
        events {{ worker_connections 256; }}
        http {{
            {scratch} sendfile on; keepalive_requests 100000; default_type application/octet-stream;
            log_format counted '$status $body_bytes_sent $http_range';
            access_log {directory}/access.log counted;
            server {{ listen 127.0.0.1:{plain}; root {files}; {extra} }}
            server {{
                listen 127.0.0.1:{tls} ssl; root {files};
                ssl_certificate {certificate}; ssl_certificate_key {key};
            }}
        }}
        """
    )
    with open(directory / "output", "wb") as output:
        server = subprocess.Popen(
            [program, "-c", str(directory / "nginx.conf"), "-p", str(directory)], stdout=output, stderr=output
        )
    try:

        def answers() -> bool:
            assert server.poll() is None, (directory / "output").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tls), 1):
                return True
            return False

        wait_until(answers, what="nginx")
        yield Nginx(
            f"http://127.0.0.1:{plain}",
            f"https://localhost:{tls}",
            str(certificate),
            files,
            directory / "access.log",
        )
    finally:
        server.terminate()
        server.wait(20)
