"""What each verb prints, against a peer whose answers are known to the byte. Real daemons come in test_real.py."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelclient.ctl.command_line import VERBS
from modelwire import errors, requests, values
from modelwire.encoding import encode
from modelwire.replies import ProtocolRange
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import ADDED, JOB, RESOLVED, STATUS, VIEW, Conversation, ScriptedPeer, hello_of

Peer = Callable[..., ScriptedPeer]
Run = Callable[..., subprocess.CompletedProcess[str]]

FAILED = values.JobView(
    id="j2",
    kind="model.add",
    state="failed",
    priority=3,
    created_at="t",
    error=values.Failure(code="digest_mismatch", message="other bytes", hint="look"),
)
MANY = msgspec.structs.replace(
    VIEW,
    name="other:8b",
    size_bytes=4_080_263_936,
    state="failed",
    reason="no blob",
    model={"model_id": "other:8b", "params_billions": 8.030261248, "quantization": "Q4_K_M"},
)


def answers(talk: Conversation, request: Request) -> None:
    match request:
        case requests.DaemonStatus():
            talk.result(request, STATUS)
        case requests.ModelList():
            talk.result(request, values.ModelList(models=(VIEW, MANY), damaged=("x.json: not JSON",)))
        case requests.ModelShow():
            talk.result(request, msgspec.structs.replace(VIEW, path="/srv/tiny", license="mit"))
        case requests.ModelResolve():
            talk.result(request, RESOLVED)
        case requests.JobList():
            talk.result(request, values.JobList(jobs=(JOB, FAILED)))
        case requests.JobAttach(job="j2"):
            talk.result(request, FAILED)
        case requests.ModelAdd():
            talk.accepted(request, 1)
            talk.progress(request, bytes_done=10, bytes_total=10)
            talk.result(request, ADDED)
        case requests.EventsSubscribe():
            talk.event(request, 5, "model.published", model="tiny", outcome="done")
            talk.event(request, 6, "daemon.stopped")
            talk.result(request, values.EventsEnd(last_seq=6, delivered=2))
        case requests.StoreSweep():
            gone = values.Victim(path="/srv/old", kind="blob", size_bytes=5, reason="no model names it")
            talk.result(request, values.Swept(victims=(gone,), removed=1, freed_bytes=5))
        case _:
            talk.result(request, JOB)


@pytest.fixture
def run(peer: Peer, ctl: Ctl) -> Run:
    made = peer(answers)

    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return ctl(*arguments, environ={"MODELD_SOCKET": made.path}, **options)

    return call


TEXT = {
    "list": "NAME         SIZE  PARAMS  QUANT   FORMAT  STATE   SHA-256\n"
    "tiny         10 B                  gguf    ready   aaaaaaaaaaaa\n"
    "other:8b  4.08 GB   8.03B  Q4_K_M  gguf    failed  aaaaaaaaaaaa\n",
    "list -q": "tiny\nother:8b\n",
    "path tiny": "/srv/models/tiny\n",
    "path tiny -q": "/srv/models/tiny\n",
    "jobs -q": "j1\nj2\n",
    "job j1 -q": "j1\n",
    "cancel j1": "j1  done\n",
    "pause j1": "j1  done\n",
    "resume j1": "j1  done\n",
    "status -q": "ready\n",
    "start -q": "/run/x.sock\n",
    "add f -q": "tiny\n",
    "add f": "tiny  10 B  gguf\n/srv/models/tiny\n",
    "log -q": "5 model.published\n6 daemon.stopped\n",
    "log": "2026-11-20T00:00:00Z       5  model.published  tiny  done\n2026-11-20T00:00:00Z       6  daemon.stopped\n",
    "version": "modelctl 0.1.0\nmodeld 9.9.9\n",
    "version -q": "0.1.0\n",
}


@pytest.mark.parametrize("line", TEXT)
def test_text(run: Run, line: str) -> None:
    done = run(*line.split())
    assert (done.returncode, done.stdout) == (0, TEXT[line])


JSON: dict[str, Any] = {
    "list": [VIEW, MANY],
    "path tiny": RESOLVED,
    "jobs": [JOB, FAILED],
    "job j1": JOB,
    "attach j1": JOB,
    "cancel j1": JOB,
    "status": STATUS,
    "add f": ADDED,
    "start": {"socket": STATUS.socket, "pid": STATUS.pid, "started": False, "store": STATUS.store},
    "version": {"client": "modelctl/0.1.0", "server": "modeld/9.9.9", "protocol": {"min": 1, "max": 1}},
}


@pytest.mark.parametrize("line", JSON)
@pytest.mark.parametrize("before", [True, False])
def test_json_is_one_document_of_the_typed_value(run: Run, line: str, before: bool) -> None:
    done = run(*(["--json", *line.split()] if before else [*line.split(), "--json"]))
    assert (done.returncode, done.stderr.startswith("modelctl: a manifest") or done.stderr == "") == (0, True)
    assert json.loads(done.stdout) == json.loads(msgspec.json.encode(JSON[line]))


@pytest.mark.parametrize(("short", "verb"), [(short, name) for name, short, _ in VERBS if short])
def test_short_forms(run: Run, short: str, verb: str) -> None:
    rest = ["tiny"] if verb in ("show", "path") else []
    assert run(short, *rest).stdout == run(verb, *rest).stdout != ""


@pytest.mark.parametrize("verb", [name for name, _, _ in VERBS])
def test_every_verb_explains_itself(ctl: Ctl, verb: str) -> None:
    done = ctl(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: modelctl {verb}" in done.stdout
    assert "--socket" in done.stdout


def test_versions_that_do_not_fit_are_reported(peer: Peer, ctl: Ctl) -> None:
    made = peer(answers, hello=encode(hello_of(protocol=ProtocolRange(min=7, max=8))))
    done = ctl("version", "--socket", made.path)
    assert (done.returncode, done.stdout) == (1, "modelctl 0.1.0\n")
    assert done.stderr.startswith("modelctl: modeld/9.9.9 speaks protocol 7 to 8, this client 1 to 1\nhint: ")


def test_no_verb_is_a_usage_error_with_the_help(ctl: Ctl) -> None:
    done = ctl()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: modelctl")
    assert done.stderr.endswith(
        "modelctl: no verb was given\n"
        "hint: See what is there with `modelctl list`, or all verbs with `modelctl --help`.\n"
    )


def test_what_cannot_be_read_is_reported_beside_the_list(run: Run) -> None:
    assert run("list").stderr == "modelctl: a manifest cannot be read: x.json: not JSON\n"


def test_show_is_for_people(run: Run) -> None:
    lines = run("show", "tiny").stdout.splitlines()
    assert lines[:3] == ["name     tiny", "state    ready", "path     /srv/tiny"]
    assert "size     10 B (10 bytes)" in lines


def test_the_raw_stream_of_an_add(run: Run) -> None:
    done = run("add", "f", "--events")
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert (kinds, done.stderr) == (["accepted", "progress", "result"], "")


PUBLISHED = {
    "seq": 5,
    "time": "2026-11-20T00:00:00Z",
    "event": "model.published",
    "model": "tiny",
    "outcome": "done",
}


def test_the_log_as_lines_of_json(run: Run) -> None:
    assert json.loads(run("log", "--events").stdout.splitlines()[0]) == PUBLISHED


@pytest.mark.parametrize("line", ["log", "log -f", "watch"])
def test_what_comes_one_by_one_is_one_document(run: Run, line: str) -> None:
    """And each of its elements is a line, which a reader has at once."""
    out = run(*line.split(), "--json").stdout
    first, second = json.loads(out)
    assert (first, second["seq"]) == (PUBLISHED, 6)
    opening, *elements, closing = out.splitlines()
    assert (opening, closing) == ("[", "]")
    assert [json.loads(text.strip(",")) for text in elements] == [first, second]


@pytest.mark.parametrize("line", ["log", "watch"])
def test_nothing_at_all_is_a_document_too(peer: Peer, ctl: Ctl, line: str) -> None:
    made = peer(lambda talk, request: talk.result(request, values.EventsEnd(last_seq=0, delivered=0)))
    assert ctl(line, "--json", "--socket", made.path).stdout == "[]\n"


@pytest.mark.parametrize(("events", "document"), [(0, {"error"}), (1, {"seq", "error"})])
def test_a_document_that_is_cut_short_ends_with_the_error(
    peer: Peer, ctl: Ctl, events: int, document: set[str]
) -> None:
    def cut(talk: Conversation, request: Request) -> None:
        if events:
            talk.event(request, 5)
        talk.fail(request, errors.Corrupt("the log is damaged"))

    done = ctl("log", "--json", "--socket", peer(cut).path)
    found = json.loads(done.stdout)
    assert done.returncode == 6
    assert {key for each in (found if events else [found]) for key in each if key in ("seq", "error")} == document
    assert done.stderr.startswith("modelctl: the log is damaged\nhint: ")


def test_ctrl_c_closes_the_document(peer: Peer, ctl: Ctl) -> None:
    made = peer(lambda talk, request: talk.event(request, 5))
    with ctl.open("watch", "--json", "--socket", made.path) as process:
        assert process.stdout is not None
        seen = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [event["seq"] for event in json.loads(seen + rest)] == [5]


@pytest.mark.parametrize(
    "line", ["--json --events log", "--json log --events", "list --events --json", "add f --json --events"]
)
def test_one_document_and_the_raw_stream_exclude_each_other(run: Run, line: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    assert done.stderr.startswith("modelctl: --json and --events exclude each other\nhint: ")
    assert json.loads(done.stdout)["error"]["code"] == "invalid_request"


def test_the_figures_of_an_event_are_json_where_words_would_not_do(peer: Peer, ctl: Ctl) -> None:
    fields = {"reused": True, "seconds": 0.5, "none": None, "by": {"a": 1}, "said": 'no "such" file', "word": "plain"}
    fields |= {"empty": "", "hostile": "a\x1b[2Jb"}
    line = json.dumps({"type": "event", "id": "1", "seq": 5, "time": "T", "event": "job.done", **fields})

    def tells(talk: Conversation, request: Request) -> None:
        talk.raw(line.encode() + b"\n")
        talk.result(request, values.EventsEnd(last_seq=5, delivered=1))

    printed = ctl("log", "--socket", peer(tells).path).stdout
    assert printed.partition("job.done  ")[2].split("  ") == [
        "reused=true",
        "seconds=0.5",
        "none=null",
        'by={"a":1}',
        'said="no \\"such\\" file"',
        "word=plain",
        'empty=""',
        'hostile="a\\u001b[2Jb"\n',
    ]


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("log", requests.EventsSubscribe(id="1", last=20, follow=False)),
        ("log -n 3", requests.EventsSubscribe(id="1", last=3, follow=False)),
        ("log --since 9", requests.EventsSubscribe(id="1", since=9, follow=False)),
        ("log -f --since 9", requests.EventsSubscribe(id="1", since=9)),
        ("log -f -n 3", requests.EventsSubscribe(id="1", last=3)),
        ("watch --model m", requests.EventsSubscribe(id="1", progress=True, model="m")),
        ("jobs --state failed -n 3", requests.JobList(id="1", state="failed", limit=3)),
        ("cancel j9", requests.JobCancel(id="1", job="j9")),
        ("pause j9", requests.JobPause(id="1", job="j9")),
        ("resume j9", requests.JobResume(id="1", job="j9")),
    ],
)
def test_arguments_become_requests(peer: Peer, ctl: Ctl, line: str, request_: Request) -> None:
    made = peer(answers)
    assert ctl(*line.split(), "--socket", made.path).returncode == 0
    assert made.requests == [request_]


def test_an_attachment_ends_as_its_job_did(run: Run) -> None:
    assert run("attach", "j1").returncode == 0
    done = run("attach", "j2")
    assert (done.returncode, done.stderr) == (6, "modelctl: other bytes\nhint: look\n")


def test_a_bar_is_drawn_on_a_screen_only(peer: Peer, ctl: Ctl) -> None:
    made = peer(answers)
    screen, theirs = pty.openpty()
    with ctl.open("add", "f", "--socket", made.path, stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(30) == 0
    drawn = os.read(screen, 65536).decode()
    os.close(screen)
    assert "\r" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert ctl("add", "f", "--socket", made.path).stderr == "modelctl: job j1 waits, 1 job before it\n"


def test_colours_are_for_screens_and_for_who_asks(run: Run) -> None:
    assert "\x1b[32mdone" in run("log", "--color", "always").stdout
    assert "\x1b" not in run("log").stdout


def test_a_reader_that_has_enough_is_no_error(peer: Peer, ctl: Ctl) -> None:
    many = tuple(msgspec.structs.replace(VIEW, name=f"model-{number}") for number in range(5000))
    made = peer(lambda talk, request: talk.result(request, values.ModelList(models=many)))
    with ctl.open("list", "--socket", made.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() != ""
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_full_output_is_an_error(run: Run, peer: Peer, ctl: Ctl) -> None:
    with open("/dev/full", "w") as full, ctl.open("version", stdout=full) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.splitlines() == [
        "modelctl: the output cannot be written: No space left on device",
        "hint: Make room, or send it elsewhere.",
    ]


def test_a_path_that_is_not_text_is_refused(peer: Peer, ctl: Ctl) -> None:
    made = peer(answers)
    done = ctl("add", b"f\xff".decode("utf-8", "surrogateescape"), "--socket", made.path)
    assert done.returncode == 2
    assert "f\\udcff is not UTF-8" in done.stderr
