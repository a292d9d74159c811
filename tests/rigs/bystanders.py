"""Users who only want their work done while others attack, each as a part of `user_process`."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import random

import modelclient
import modelwire
from rigs.pull_rig import MIB, gguf
from rigs.user_process import Part

for package in (modelclient, modelwire):  # whatever the client may load, before the process changes its user
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "__main__" not in found.name:
            importlib.import_module(found.name)

SIZE = 3 * MIB


def look(part: Part) -> None:
    """Asks for the status and for a model, over one connection and with a new one for each."""
    with part.connect() as standing:
        while not part.over(0.005):
            with part.waiting("status"):
                part.expect("status", standing.ask("daemon.status"), "result")
            with part.waiting("resolve"):
                part.expect("resolve", standing.ask("model.resolve", name=part.given["model"]), "result")
            with part.waiting("status anew"), part.connect() as wire:
                part.expect("status anew", wire.ask("daemon.status"), "result")


def work(part: Part) -> None:
    """Adds and pulls files of some MiB, reads them, and removes them."""
    number = 0
    while not part.over(0.05):
        number += 1
        seed = random.randrange(1 << 40)
        name, source = f"work{part.uid}-{number}", os.path.join(part.given["home"], "source.gguf")
        content = gguf(SIZE, seed)
        with open(source, "wb") as file:
            file.write(content)
        os.chmod(source, 0o600)
        with modelclient.Client(part.path) as client:
            with part.waiting("add"), client.add(source, name=f"{name}-added") as adding:
                added = adding.result()
            _check(part, "add", added.path, content)
            part.report.jobs.append(str(adding.job))
            with part.waiting("remove"):
                client.remove(f"{name}-added", now=True).result()
            seed += 1
            with (
                part.waiting("pull"),
                client.pull(f"{part.given['url']}/{seed}.gguf", name=f"{name}-pulled") as pulling,
            ):
                pulled = pulling.result()
            _check(part, "pull", pulled.path, gguf(SIZE, seed))
            part.report.jobs.append(str(pulling.job))
            client.remove(f"{name}-pulled", now=True).result()


def _check(part: Part, what: str, path: str, content: bytes) -> None:
    with open(path, "rb") as file:
        if hashlib.sha256(file.read()).digest() != hashlib.sha256(content).digest():
            part.report.wrongs.append(f"{what}: {path} has other bytes")
    part.report.counts[what] += 1


def keep(part: Part) -> None:
    """Adds a model that is to be there in the end as it was, and pulls one that goes again."""
    source = os.path.join(part.given["home"], "kept.gguf")
    with open(source, "wb") as file:
        file.write(gguf(SIZE, part.uid))
    with modelclient.Client(part.path) as client:
        client.add(source, name=f"kept{part.uid}").result()
        client.pull(f"{part.given['url']}/{part.uid}.gguf", name=f"warm{part.uid}").result()
        client.remove(f"warm{part.uid}", now=True).result()
