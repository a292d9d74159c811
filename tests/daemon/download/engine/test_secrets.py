"""A secret, wherever it comes from, is in no error, no description and no request to another host."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.observe.redact import redact
from modeld.sources.parse import parse
from modeld.sources.sources import Sources
from modelwire.errors import WireError
from rigs.described_bytes import OWN_USER
from rigs.registries import packed, with_docker_config
from rigs.scripted_server import Asked, Reply, Server, serving

SECRET = "s3cr3tS3cr3tS3cr3tS3cr3t"
SPELLINGS = (SECRET, packed("me", SECRET), base64.b64encode(SECRET.encode()).decode())


def shown(fault: BaseException) -> str:
    """Everything that a log, a reply or a traceback could hold of it."""
    text = io.StringIO()
    traceback.print_exception(fault, file=text)
    told = [text.getvalue(), repr(fault), str(fault.args)]
    if isinstance(fault, WireError):
        told += [fault.message, str(fault.hint), repr(fault.details)]
    return "\n".join(told)


ANSWERS: dict[str, Callable[[Asked], Reply]] = {
    "unauthorized": lambda asked: Reply(401, {"WWW-Authenticate": f'Basic realm="{SECRET}"'}),
    "forbidden": lambda asked: Reply(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"no {SECRET}"}),
    "not found": lambda asked: Reply(404, {}, SECRET.encode()),
    "too many": lambda asked: Reply(429, {"Retry-After": "1"}),
    "broken": lambda asked: Reply(500, {}, SECRET.encode()),
    "page": lambda asked: Reply(200, {"Content-Type": "text/html"}, f"<html>{SECRET}".encode()),
    "json": lambda asked: Reply(200, {"Content-Type": "application/json"}, f'{{"sha":"{SECRET}"}}'.encode()),
    "circle": lambda asked: Reply(302, {"Location": asked.target}),
    "away": lambda asked: Reply(302, {"Location": f"https://user:{SECRET}@192.0.2.1:port/?token={SECRET}"}),
    "scheme": lambda asked: Reply(302, {"Location": f"ftp://user:{SECRET}@192.0.2.1/?token={SECRET}"}),
    "encoded": lambda asked: Reply(200, {"Content-Encoding": "br", "Content-Length": "5"}, b"abcde"),
    "realm": lambda asked: Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{SECRET}@192.0.2.1/?t={SECRET}"'}),
}


def cases(server: Server, room: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """References and environments that hold the secret in each place where one can be."""
    host = server.url[7:]
    none = {"HOME": str(room / "none")}
    yield f"http://me:{SECRET}@{host}/m.gguf", none
    yield f"{server.url}/m.gguf?token={SECRET}&X-Amz-Signature={SECRET}", none
    (room / "netrc").write_text(f"machine {server.url[7:]} login me password {SECRET}\n")
    yield f"{server.url}/m.gguf", {**none, "NETRC": str(room / "netrc")}
    yield "hf:org/repo/m.gguf", {**none, "HF_ENDPOINT": server.url, "HF_TOKEN": SECRET}
    yield f"https://{SECRET}@huggingface.co/org/repo", {**none, "HF_ENDPOINT": server.url}
    yield f"oci://{host}/team/model", with_docker_config(room / "d", {"auths": {host: {"auth": packed("me", SECRET)}}})
    yield f"oci://me:{SECRET}@{host}/team/model", none
    keys = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET}
    yield "s3://bucket/m.gguf", {**none, **keys}
    yield "s3://bucket/prefix/", {**none, **keys, "AWS_SESSION_TOKEN": SECRET}
    yield f"s3://AKIA:{SECRET}@bucket/m.gguf", {**none, "AWS_ENDPOINT_URL": server.url}


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_makes_a_secret_part_of_an_error(
    answer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    http = HttpClient(environ={})
    faults: list[WireError] = []
    with serving(ANSWERS[answer]) as server:
        for text, environ in cases(server, tmp_path):
            reference = parse(text)
            told = [repr(reference), reference.text, reference.key]
            source = Sources(http, environ).source(reference, OWN_USER)
            told += [source.name, repr(source), str(source.origin(reference))]
            try:
                found = source.describe(reference)
            except WireError as fault:
                faults.append(fault)
                told.append(shown(fault))
            else:
                told.append(repr(found))
                for file in found.files:
                    with contextlib.suppress(WireError):
                        source.open(file, 0, None, None).close()
            assert not [each for each in told for secret in SPELLINGS if secret in each]
    http.close()
    assert len(faults) >= 3
    # Redaction, through which everything goes to the log, finds nothing to do.
    assert [redact(fault.message) for fault in faults] == [fault.message for fault in faults]
    out, err = capfd.readouterr()
    assert SECRET not in out + err + caplog.text


def test_no_secret_goes_to_where_a_redirect_leads(tmp_path: Path) -> None:
    http = HttpClient(environ={})
    with serving(lambda asked: Reply(200, {"Content-Type": "application/json"}, b"{}")) as away:
        elsewhere = away.url.replace("127.0.0.1", "localhost")
        with serving(lambda asked: Reply(307, {"Location": f"{elsewhere}/away"})) as server:
            for text, environ in cases(server, tmp_path):
                reference = parse(text)
                with contextlib.suppress(WireError):
                    Sources(http, environ).source(reference, OWN_USER).describe(reference)
            assert server.asked
        assert away.asked
        for secret in SPELLINGS:
            assert away.sent_with(secret) == []
        assert away.sent_with("Authorization") == []
    http.close()


def test_helpers_get_the_host_on_standard_input_and_nothing_in_the_process_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    popen = subprocess.Popen

    def record(command: list[str], **given: object) -> object:
        started.append(command)
        return popen(["false"], **given)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", record)
    http = HttpClient(environ={})
    with serving(lambda asked: Reply(401, {"WWW-Authenticate": "Basic"})) as server:
        environ = with_docker_config(tmp_path, {"credHelpers": {server.url[7:]: "vault"}})
        reference = parse(f"oci://{server.url[7:]}/team/model")
        with pytest.raises(WireError, match="docker-credential-vault"):
            Sources(http, environ).source(reference, OWN_USER).describe(reference)
    http.close()
    assert started == [["docker-credential-vault", "get"]]
