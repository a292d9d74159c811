"""A secret, wherever it comes from, stays out of all that the daemon says, writes and starts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import ctl, everything_kept, gguf
from rigs.real_daemon import RealDaemon, Wire
from rigs.registries import packed
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT = gguf(200_000, 121)
SECRET = "qX9-s3cr3t-Tok3n_zZ7w"
TOKEN = "hf_" + SECRET.replace("-", "")
SPELLINGS = (
    *(SECRET, TOKEN, quote(SECRET), packed("me", SECRET)),
    *(base64.b64encode(text.encode()).decode().rstrip("=") for text in (SECRET, TOKEN)),
)


def _route(asked: Asked) -> Reply:
    match asked.path:
        case "/moved.gguf":
            return Reply(302, {"Location": f"/m.gguf?X-Amz-Signature={SECRET}&token={SECRET}"})
        case "/away.gguf":
            return Reply(302, {"Location": f"http://me:{SECRET}@elsewhere.example/m.gguf?sig={SECRET}"})
        case "/broken.gguf":
            headers = {"X-Error-Message": f"no {SECRET}", "WWW-Authenticate": f'Basic realm="{SECRET}"'}
            return Reply(500, headers, SECRET.encode())
        case "/locked.gguf":
            return Reply(401, {"WWW-Authenticate": f'Bearer realm="https://a.example/?k={SECRET}"'}, SECRET.encode())
        case "/page.gguf":
            return Reply(200, {"Content-Type": "text/html"}, f"<html>{SECRET}</html>".encode())
        case "/m.gguf":
            named = {"Content-Disposition": 'attachment; filename="m.gguf"'}
            return file_reply(asked, CONTENT, {**named, "Set-Cookie": f"session={SECRET}"})
    return Reply(404, {}, SECRET.encode())


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(_route) as made:
        yield made


def process_list() -> str:
    """What `ps` shows of every process to everybody."""
    shown = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as file:
                shown.append(file.read().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(shown)


def read_all(wire: Wire, told: list[str]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            told.append(json.dumps(wire.read()))


def test_it_appears_nowhere(stopped: RealDaemon, web: Server) -> None:
    repo = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}), private=True, tokens=frozenset({TOKEN}))
    host = web.url.partition("://")[2]
    place = Path(stopped.room, ".docker")
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed("me", SECRET)}}}))
    credentials = (place / "config.json").read_bytes()
    references = [
        *(f"http://me:{quote(SECRET)}@{host}/{path}.gguf" for path in ("m", "none", "moved", "locked")),
        *(f"{web.url}/{path}.gguf?token={SECRET}&v=1" for path in ("m", "broken", "away", "page")),
        f"http://me:{SECRET}/more@{host}/m.gguf",
        f"oci://{host}/team/model",
        f"oci://me:{SECRET}@{host}/team/model",
        f"https://me:{SECRET}@models.invalid/m.gguf",
        "hf:org/private/m.gguf",
        f"s3://AKIA:{SECRET}@bucket/m.gguf",
    ]
    with Hub({"org/private": repo}, valid=frozenset({TOKEN})) as hub:
        stopped.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "AWS_ENDPOINT_URL": web.url}
        stopped.environ |= {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "AKIA", "MODELD_LOG_LEVEL": "debug"}
        stopped.start()
        told: list[str] = []
        watcher = stopped.connect()
        watcher.request("events.subscribe", progress=True)
        watching = threading.Thread(target=read_all, args=(watcher, told))
        watching.start()
        for number, ref in enumerate(references):
            with stopped.connect() as wire:
                wire.request("model.pull", ref=ref, name=f"n{number}")
                while (reply := wire.read())["type"] not in ("result", "error"):
                    told.append(json.dumps(reply))
                told.append(json.dumps(reply))
        outcomes = [json.loads(each)["type"] for each in told if '"result"' in each or '"error"' in each]
        assert outcomes.count("result") >= 4, outcomes
        told.append(process_list())
        models = [model["name"] for model in stopped.ask("model.list")["value"]["models"]]
        told += [json.dumps(stopped.ask("model.show", name=name)) for name in models]
        jobs = stopped.ask("job.list")
        told += [json.dumps(stopped.ask("job.show", job=job["id"])) for job in jobs["value"]["jobs"]]
        told += [json.dumps(jobs), json.dumps(stopped.ask("daemon.status"))]
        shown = [("status",), ("jobs",), ("log",), ("list",), *(("show", name) for name in models)]
        told += [done.stdout + done.stderr for done in (ctl(stopped, *each) for each in shown)]
        stopped.terminate()
        watching.join(10)
        watcher.close()
        assert not watching.is_alive()
    assert [each for each in told if '"event": "transfer.' in each or '"event": "source.' in each]
    kept = everything_kept(stopped.room).replace(credentials, b"")
    for hidden in SPELLINGS:
        assert [each for each in told if hidden in each] == []
        assert hidden.encode() not in kept
    assert web.sent_with(packed("me", SECRET)), "it was used where it belongs"
