"""[trust] of a real daemon: no model that needs a signature gets a name without one, by whatever request."""

from __future__ import annotations

import json
import os
import posixpath
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from modeld.store import Digest
from modeld.store.disk.layout import Layout
from modelwire import limits
from modelwire.knowledge.document import built
from modelwire.knowledge.requirements import SMALL_LLM
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, ctl, failed, gguf, hex_of, job_state, pulled
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, incidents, needs_root
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement
from rigs.update_commands import command
from rigs.waiting import wait_until

WEIGHTS, OTHER = gguf(2 * MIB, 301), gguf(2 * MIB, 302)
FILES = {"config.json": b'{"model_type": "tiny"}', "m.gguf": WEIGHTS}
IN_GIT = {".gitattributes": b"*.gguf filter=lfs"}


@pytest.fixture(scope="module")
def key() -> EllipticCurvePrivateKey:
    return new_key()


def signature(key: EllipticCurvePrivateKey, files: dict[str, bytes] | None = None) -> str:
    return json.dumps(signed_with_key(key, statement(resources_of(FILES if files is None else files))))


def repo(files: dict[str, bytes], **more: Any) -> Repo:
    return Repo({**files, **IN_GIT}, lfs=frozenset({"m.gguf"} & files.keys()), **more)


@pytest.fixture
def hub(key: EllipticCurvePrivateKey) -> Iterator[Hub]:
    signed = signature(key).encode()
    repos = {
        "org/signed": repo({**FILES, "model.sig": signed}),
        "org/unsigned": repo(FILES),
        "org/tampered": repo({**FILES, "m.gguf": OTHER, "model.sig": signed}),
        "org/added": repo({**FILES, "tokenizer.json": b"{}", "model.sig": signed}),
        "org/lacking": repo({"m.gguf": WEIGHTS, "model.sig": signed}),
        "other/free": repo(FILES),
    }
    with Hub(repos) as made:
        yield made


@pytest.fixture
def trusting(stopped: RealDaemon, hub: Hub, key: EllipticCurvePrivateKey) -> Iterator[RealDaemon]:
    pem = stopped.file("key.pem", public_pem(key))
    stopped.configure(f'[[trust.require]]\nreferences = ["hf:org/*", "local:{stopped.room}/in/*"]\nkeys = ["{pem}"]\n')
    stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_STORE_SWEEP": "off"}
    os.mkdir(f"{stopped.room}/in")
    yield stopped
    assert not incidents(stopped)


def names(daemon: RealDaemon) -> set[str]:
    return {model["name"] for model in daemon.ask("model.list")["value"]["models"]}


def refused(daemon: RealDaemon, ref: str, rule: str, **fields: Any) -> dict[str, Any]:
    reply = failed(daemon, ref, "untrusted", **fields)
    assert reply["retryable"] is False
    assert reply["details"]["rule"] == rule, reply
    assert reply["details"]["required_by"] == 1
    assert "rule 1 of [[trust.require]]" in reply["message"]
    assert names(daemon) == set()
    return reply


def proofs(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    history = daemon.ask("model.show", name=name, provenance=True)["value"]["history"]
    return [each for each in history if each["outcome"] == "signed"]


def test_a_signed_repository(trusting: RealDaemon) -> None:
    value = pulled(trusting.start(), "hf:org/signed")
    (proof,) = proofs(trusting, value["name"])
    assert proof["details"]["by"] == "key"
    assert proof["job"] == value["job"]
    shown = ctl(trusting, "show", "--provenance", value["name"])
    assert f"signed by {proof['details']['signer']}" in shown.stdout


def test_some_files_of_a_signed_repository(trusting: RealDaemon) -> None:
    """The signature is fetched with them, and is no file of the model."""
    value = pulled(trusting.start(), "hf:org/signed/m.gguf")
    assert value["files"] == []
    assert len(proofs(trusting, value["name"])) == 1
    value = pulled(trusting, "hf:org/signed", name="some", include=("config.json", "m.gguf"))
    assert [file["path"] for file in value["files"]] == ["config.json", "m.gguf"]


@pytest.mark.parametrize(
    ("ref", "rule"),
    [
        *(("hf:org/unsigned", "missing"), ("hf:org/unsigned/m.gguf", "missing"), ("hf:ORG/unsigned@main", "missing")),
        *(("hf:org/tampered", "changed"), ("hf:org/tampered/m.gguf", "changed"), ("hf:org/added", "unsigned")),
        *(("hf:org/lacking", "missing"), ("hf:org/tampered/.gitattributes", "unsigned")),
    ],
)
def test_what_is_not_signed(trusting: RealDaemon, hub: Hub, ref: str, rule: str) -> None:
    hub.repos["ORG/unsigned"] = hub.repos["org/unsigned"]
    refused(trusting.start(), ref, rule)
    refused(trusting, ref, rule, replace=True)


def test_a_page_of_the_hub_is_the_repository(trusting: RealDaemon, hub: Hub) -> None:
    trusting.start()
    for ref in (f"{hub.url}/org/unsigned", f"{hub.url}/org/unsigned/resolve/main/m.gguf?download=true"):
        refused(trusting, ref, "missing")


def test_without_a_signature_no_byte_of_the_model_is_fetched(trusting: RealDaemon, hub: Hub) -> None:
    refused(trusting.start(), "hf:org/unsigned", "missing")
    assert hub.cdn.asked == []


def test_a_second_try_with_a_signature_fetches_nothing_again(
    trusting: RealDaemon, hub: Hub, key: EllipticCurvePrivateKey
) -> None:
    refused(trusting.start(), "hf:org/tampered/m.gguf", "changed")
    asked = len(hub.cdn.asked)
    assert asked
    right = signature(key, {**FILES, "m.gguf": OTHER})
    refused(trusting, "hf:org/tampered/m.gguf", "key", signature=signature(new_key()))
    value = pulled(trusting, "hf:org/tampered/m.gguf", signature=right)
    assert value["reused"] is True
    assert len(hub.cdn.asked) == asked


def test_no_spelling_of_a_path_passes_by(trusting: RealDaemon) -> None:
    path = trusting.start().file("in/m.gguf", WEIGHTS)
    os.symlink(path, f"{trusting.room}/link.gguf")
    for ref in (
        *(path, f"local:{path}", f"file:{path}", f"file://localhost{path}", f"file://{trusting.room}/in/%6D.gguf"),
        *("in/m.gguf", "./in/m.gguf", "in/../in//m.gguf", "./link.gguf", "file:link.gguf", "./in"),
    ):
        reply = trusting.ask("model.pull", ref=ref, directory=trusting.room, name="x")
        assert reply.get("code") == "untrusted", (ref, reply)
    assert names(trusting) == set()


def test_what_is_remembered_or_here_does_not_pass_by(trusting: RealDaemon, hub: Hub) -> None:
    """Pulled before there was a rule: the reference, its commit and the bytes are known."""
    commit = hub.repos["org/unsigned"].commit
    with_rule = Path(trusting.config_path).read_text()
    Path(trusting.config_path).write_text("")
    pulled(trusting.start(), "hf:org/unsigned", name="old")
    pulled(trusting, f"hf:org/unsigned@{commit}", name="old-commit")
    trusting.terminate()
    Path(trusting.config_path).write_text(with_rule)
    trusting.start()
    assert trusting.ask("model.resolve", name="old")["type"] == "result", "what has a name keeps it"
    digest = hex_of(WEIGHTS)
    for fields in (
        {"ref": "hf:org/unsigned"},
        {"ref": "hf:org/unsigned", "offline": True},
        {"ref": "hf:org/unsigned", "name": "old"},
        {"ref": "hf:org/unsigned", "name": "old", "replace": True},
        {"ref": f"hf:org/unsigned@{commit}"},
        {"ref": f"hf:org/unsigned@{commit}", "offline": True},
        {"ref": "hf:org/unsigned/m.gguf", "sha256": digest},
        {"ref": "hf:org/unsigned/m.gguf", "sha256": digest, "offline": True},
    ):
        reply = trusting.ask("model.pull", **{"name": "new", **fields})
        assert reply.get("code") == "untrusted", (fields, reply)
    assert trusting.ask("model.copy", source="old", destination="copy")["type"] == "result"
    assert names(trusting) == {"old", "old-commit", "copy"}


def test_a_remembered_model_with_its_signature_needs_no_network(trusting: RealDaemon, hub: Hub) -> None:
    pulled(trusting.start(), "hf:org/signed")
    asked = len(hub.server.asked)
    assert pulled(trusting, "hf:org/signed", name="again", offline=True)["reused"] is True
    assert len(hub.server.asked) == asked
    assert len(proofs(trusting, "again")) == 1


def described(**fields: str) -> dict[str, Any]:
    known = built("mine", "Mine", "llm", version="1", requirements=SMALL_LLM, features=(), license="mit")
    return dict(json.loads(msgspec.json.encode(known))) | fields


def test_a_registered_model_does_not_pass_by(trusting: RealDaemon) -> None:
    trusting.start()
    document = described(download_url="hf:org/unsigned/m.gguf", sha256=hex_of(WEIGHTS))
    registered = trusting.ask("model.register", manifest=document)
    assert registered["type"] == "result", registered
    assert trusting.ask("model.pull", ref="mine")["code"] == "untrusted"
    path = trusting.file("in/m.gguf", WEIGHTS)
    assert trusting.ask("model.add", path=path, name="mine")["code"] == "untrusted"
    assert trusting.ask("model.resolve", name="mine")["type"] == "error"


def register_by_digest(daemon: RealDaemon, digest: str) -> None:
    registered = daemon.ask("model.register", manifest=described(sha256=digest))
    assert registered["type"] == "result", registered


def asked_by_digest(daemon: RealDaemon, digest: str) -> list[dict[str, Any]]:
    """The answers to all that names bytes by their digest alone, `mine` being registered for it."""
    return [
        daemon.ask("model.pull", ref="mine"),
        daemon.ask("model.pull", ref="mine", offline=True),
        daemon.ask("model.provision", ref="mine"),
        daemon.ask("model.pull", ref="https://nowhere.invalid/m.gguf", name="elsewhere", sha256=digest),
        daemon.ask("model.update", command=command("1.0", {"auto_load": False}, sha256=digest)),
    ]


def test_refused_bytes_get_no_name_by_their_digest(trusting: RealDaemon, key: EllipticCurvePrivateKey) -> None:
    refused(trusting.start(), "hf:org/tampered/m.gguf", "changed")
    digest = hex_of(OTHER)
    assert Path(Layout(trusting.root).blob(Digest(digest))).exists()
    # Whatever a writer can have a manifest say of other bytes is no name of these.
    path = trusting.file("free.gguf", gguf(2 * MIB, 303))
    assert trusting.ask("model.add", path=path, name="free", license=digest)["type"] == "result"
    register_by_digest(trusting, digest)
    for reply in asked_by_digest(trusting, digest):
        assert (reply.get("code"), reply.get("retryable")) == ("untrusted", False), reply
        assert reply["details"]["rule"] == "unnamed"
        assert digest in reply["message"]
        assert "modelctl add PATH --name" in reply["hint"]
    for name in ("mine", "elsewhere", "m-3b", "m-3b-1_0-q4_k_m"):
        assert trusting.ask("model.resolve", name=name)["type"] == "error"
    right = signature(key, {**FILES, "m.gguf": OTHER})
    pulled(trusting, "hf:org/tampered/m.gguf", name="signed", signature=right)
    for reply in asked_by_digest(trusting, digest):
        assert reply["type"] == "result", reply
    assert {"signed", "mine", "m-3b", "m-3b-1_0-q4_k_m"} <= names(trusting)


def test_without_rules_a_digest_is_enough(stopped: RealDaemon, hub: Hub) -> None:
    stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_STORE_SWEEP": "off"}
    value = pulled(stopped.start(), "hf:org/unsigned/m.gguf")
    assert stopped.ask("model.remove", name=value["name"])["type"] == "result"
    register_by_digest(stopped, hex_of(WEIGHTS))
    for reply in asked_by_digest(stopped, hex_of(WEIGHTS)):
        assert reply["type"] == "result", reply


def test_provisioning_does_not_pass_by(trusting: RealDaemon) -> None:
    trusting.start()
    for ref in ("hf:org/unsigned/m.gguf", trusting.file("in/m.gguf", WEIGHTS)):
        assert trusting.ask("model.provision", ref=ref)["code"] == "untrusted"
    assert names(trusting) == set()
    assert trusting.ask("model.provision", ref="hf:org/signed/m.gguf")["type"] == "result"


def test_a_mirror_is_judged_by_the_reference(trusting: RealDaemon, hub: Hub, key: EllipticCurvePrivateKey) -> None:
    evil = {**FILES, "m.gguf": OTHER, "model.sig": signature(new_key(), {**FILES, "m.gguf": OTHER}).encode()}
    with Hub({"org/signed": repo(evil), "org/unsigned": repo(FILES)}) as mirror:
        rule = Path(trusting.config_path).read_text()
        trusting.configure(f'{rule}[[mirror]]\nmatch = "hf:org/"\nurl = "{mirror.url}"\n')
        refused(trusting.start(), "hf:org/signed", "key")
        refused(trusting, "hf:org/unsigned", "missing")
        good = repo({**FILES, "model.sig": signature(key).encode()})
        mirror.repos["org/signed"] = good
        pulled(trusting, "hf:org/signed", name="good")


def test_addresses_with_a_signature_beside_the_file(stopped: RealDaemon, key: EllipticCurvePrivateKey) -> None:
    there = {"/a/m.gguf": WEIGHTS, "/a/m.gguf.sig": signature(key, {".": WEIGHTS}).encode(), "/b/m.gguf": OTHER}

    def route(asked: Asked) -> Reply:
        if asked.path == "/moved/m.gguf":
            return Reply(302, {"Location": "/b/m.gguf"})
        if asked.path.startswith("/pages/") and asked.path.endswith(".sig"):
            return Reply(200, {"Content-Type": "text/html"}, b"<!doctype html><html>no such file</html>")
        content = there.get(posixpath.normpath(unquote(asked.path.replace("/pages/", "/b/"))))
        return Reply(404) if content is None else file_reply(asked, content)

    with Server(route) as server:
        pem = stopped.file("key.pem", public_pem(key))
        stopped.configure(f'[[trust.require]]\nreferences = ["{server.url}/*"]\nkeys = ["{pem}"]\n')
        stopped.start()
        for path in ("b/m.gguf", "a/../b/m.gguf", "%62/m.gguf", "moved/m.gguf", "pages/m.gguf", "b/m.gguf?token=s"):
            refused(stopped, f"{server.url}/{path}", "missing")
        value = pulled(stopped, f"{server.url}/a/m.gguf")
        assert value["blob"] == f"sha256:{hex_of(WEIGHTS)}"
        assert len(proofs(stopped, value["name"])) == 1


def test_a_server_that_does_not_answer_is_no_missing_signature(
    stopped: RealDaemon, key: EllipticCurvePrivateKey
) -> None:
    def route(asked: Asked) -> Reply:
        return Reply(503) if asked.path.endswith(".sig") else file_reply(asked, WEIGHTS)

    with Server(route) as server:
        pem = stopped.file("key.pem", public_pem(key))
        stopped.configure(f'[[trust.require]]\nreferences = ["{server.url}/*"]\nkeys = ["{pem}"]\n')
        assert failed(stopped.start(), f"{server.url}/m.gguf", "source_unavailable")["retryable"] is True
        assert names(stopped) == set()


def test_the_command_gives_a_signature(trusting: RealDaemon, key: EllipticCurvePrivateKey) -> None:
    path = trusting.start().file("in/m.gguf", WEIGHTS)
    done = ctl(trusting, "add", path)
    assert (done.returncode, done.stdout) == (6, "")
    assert "requires a signature, and there is none" in done.stderr
    assert "--signature" in done.stderr
    file = trusting.file("by-ada.sig", signature(key).encode())
    for words in (["add", path], ["pull", path, "--name", "p"], ["pull", "hf:org/unsigned", "--name", "q"]):
        done = ctl(trusting, *words, "--signature", file)
        assert done.returncode == 0, done.stderr
    assert names(trusting) == {"m", "p", "q"}
    done = ctl(trusting, "add", path, "--signature", f"{trusting.room}/nowhere")
    assert done.returncode == 3
    assert "there is no file of the signature" in done.stderr


def test_a_signature_outlives_the_daemon_with_its_job_and_ends_with_it(
    trusting: RealDaemon, hub: Hub, key: EllipticCurvePrivateKey
) -> None:
    given = signature(key)
    route, hub.cdn.route = hub.cdn.route, lambda _asked: Reply(503, {"Retry-After": "300"})
    with trusting.start().connect() as wire:
        number = wire.request("model.pull", ref="hf:org/unsigned", signature=given, on_disconnect="continue")
        job = wire.until(number, "accepted")["job"]
    wait_until(lambda: bool(hub.cdn.asked), 20, "the pull asks for the weights")
    trusting.kill()
    hub.cdn.route = route
    trusting.start()
    view = job_state(trusting, job, "failed", "done")
    assert view["state"] == "done", view
    (proof,) = proofs(trusting, "unsigned")
    assert (proof["job"], proof["details"]["by"]) == (job, "key")
    trusting.terminate()
    with closing(sqlite3.connect(f"{trusting.root}/.modeld/catalog.sqlite")) as catalog:
        (row,) = catalog.execute("SELECT request FROM jobs WHERE id = ?", (job,))
    assert json.loads(row[0]).get("signature") is None


def test_a_kill_right_after_the_name_was_given_loses_no_proof(
    trusting: RealDaemon, key: EllipticCurvePrivateKey
) -> None:
    trusting.start()
    for number in range(4):
        content = gguf(3000, 310 + number)
        path, name = trusting.file(f"in/{number}.gguf", content), f"m{number}"
        given = signature(key, {f"{number}.gguf": content})
        manifest = Path(trusting.root, "manifests", f"{name}.json")
        with trusting.connect() as wire:
            asked = wire.request("model.add", path=path, name=name, signature=given, on_disconnect="continue")
            job = wire.until(asked, "accepted")["job"]
            while not manifest.exists():
                time.sleep(0)
            trusting.kill()
        trusting.start()
        assert job_state(trusting, job, "failed", "done")["state"] == "done"
        history = trusting.ask("model.show", name=name, provenance=True)["value"]["history"]
        assert {"added", "signed"} <= {each["outcome"] for each in history}


@pytest.mark.parametrize("text", ["", "x" * (limits.SIGNATURE + 1)])
def test_a_signature_of_a_wrong_length_is_refused_at_once(trusting: RealDaemon, text: str) -> None:
    path = trusting.start().file("in/m.gguf", WEIGHTS)
    reply = trusting.ask("model.add", path=path, signature=text)
    assert reply["code"] == "invalid_request"
    assert "signature" in reply["message"]


def test_a_key_that_cannot_be_read_is_a_warning_and_lets_nothing_in(
    trusting: RealDaemon, key: EllipticCurvePrivateKey
) -> None:
    os.unlink(f"{trusting.room}/key.pem")
    trusting.start()
    warnings = trusting.ask("daemon.status")["value"]["warnings"]
    assert any(f"{trusting.room}/key.pem verifies no signature" in warning for warning in warnings)
    refused(trusting, "hf:org/signed", "signer")
    trusting.file("key.pem", public_pem(key))
    pulled(trusting, "hf:org/signed")


@needs_root
def test_files_that_another_user_hands_over(shared: RealDaemon, key: EllipticCurvePrivateKey) -> None:
    pem = shared.file("key.pem", public_pem(key))
    shared.configure(
        f'{ALLOW_ROOT}[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n'
        f'[[trust.require]]\nreferences = ["local:{shared.room}/*"]\nkeys = ["{pem}"]\n'
    )
    path = shared.start().file("m.gguf", WEIGHTS)
    shared.file("m.gguf.sig", signature(key, {".": WEIGHTS}).encode())
    for fields, code in (({}, "untrusted"), ({"signature": signature(key, {".": WEIGHTS})}, None)):
        with connect_as(shared.socket, FOREIGN_UID) as wire:
            wire.read()
            reply = wire.ask("model.add", **wire.hand_over(path), name="m", **fields)
            assert reply.get("code") == code, reply
