"""`modelctl show --provenance`: each outcome as a link, and no claim about bytes that nobody read."""

from __future__ import annotations

import json

from modelclient.ctl.provenance import SHOWN, chain, chain_text
from modelwire.values import ModelView, Provenanced
from rigs.command import Ctl
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement
from rigs.tiny_gguf import write_tiny_llama

BLOB = "sha256:" + "a" * 64
KEYS = {
    *("time", "outcome", "blob", "source", "revision", "validator", "expected", "actual"),
    *("asker", "tool", "job", "served", "details"),
}


def view(*history: Provenanced) -> ModelView:
    return ModelView(name="m", format="gguf", blob=BLOB, size_bytes=1, state="ready", history=history)


def test_what_is_not_known_is_null() -> None:
    (link,) = chain(view(Provenanced(time="t", blob=BLOB, outcome="checked", expected=BLOB)))
    assert set(link) == KEYS
    assert {key for key, value in link.items() if value is not None} == {"time", "blob", "outcome", "expected"}
    assert "not read" in chain_text([link])


def test_the_version_is_that_of_the_outcome() -> None:
    details: dict[str, str | bool] = {"revision": "abc", "validator": '"e"', "signer": "f"}
    (link,) = chain(view(Provenanced(time="t", blob=BLOB, outcome="added", actual=BLOB, peer=7, details=details)))
    assert (link["revision"], link["validator"], link["asker"]) == ("abc", '"e"', 7)
    assert link["details"] == {"signer": "f"}
    assert "signed by f" in chain_text([link])


def test_the_chain_of_a_model_that_was_added_verified_and_signed(ctl: Ctl) -> None:
    (path,) = write_tiny_llama(ctl.room / "m.gguf")
    ctl.json("add", str(path))
    ctl.json("verify", "m")
    ctl.json("verify", "--quick", "m")
    key = new_key()
    signed = signed_with_key(key, statement(resources_of({"m.gguf": path.read_bytes()})))
    signature = ctl.file("m.sig", json.dumps(signed).encode())
    ctl.json("verify", "--signature", signature, "--key", ctl.file("m.pub", public_pem(key)), "m")
    ctl.json("cp", "m", "n")
    links = ctl.json("show", "m", "--provenance")
    digest = ctl.json("show", "m")["blob"]
    assert [(link["outcome"], link["actual"]) for link in links] == [
        ("added", digest),
        ("verified", digest),
        ("checked", None),
        ("signed", None),
    ]
    assert links[0]["source"] == str(path)
    assert [link["time"] for link in links] == sorted(link["time"] for link in links)
    assert [link["outcome"] for link in ctl.json("show", "n", "--provenance")] == ["added", "verified", "checked"]
    assert len(links) < SHOWN
    done = ctl("show", "m", "--provenance")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["OUTCOME", *(link["outcome"] for link in links)]


def test_bytes_that_are_here_make_no_claim(ctl: Ctl) -> None:
    (path,) = write_tiny_llama(ctl.room / "m.gguf")
    ctl.json("add", str(path))
    before = ctl.json("show", "m", "--provenance")
    ctl.json("pull", "m")
    assert ctl.json("show", "m", "--provenance") == before


def test_the_header_is_shown_alone(ctl: Ctl) -> None:
    done = ctl("show", "m", "--provenance", "--tensors", "--no-start")
    assert done.returncode == 2
    assert "--provenance shows nothing of the header" in done.stderr
