"""What a user sees who uses a verb for the first time, a little wrongly: messages to act on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable

import msgspec
import pytest

from modelwire import errors, requests, values
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import ADDED, JOB, STATUS, Conversation, ScriptedPeer


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


Peer = Callable[..., ScriptedPeer]
Run = Callable[..., subprocess.CompletedProcess[str]]

PAUSED = msgspec.structs.replace(JOB, id="j3", state="paused")


def answers(talk: Conversation, request: Request) -> None:
    match request:
        case requests.JobShow(job="j3"):
            talk.result(request, PAUSED)
        case requests.JobShow(job="nope") | requests.JobAttach(job="nope"):
            talk.fail(request, errors.NotFound("there is no job 'nope'"))
        case requests.JobAttach():
            talk.accepted(request, 1 if request.job == "j2" else 0, joined=True)
            talk.result(request, JOB)
        case requests.JobList():
            talk.result(request, values.JobList())
        case requests.ModelList():
            talk.fail(request, errors.InvalidRequest("$.filter: 'x' cannot be used", hint="for example: size>1GB"))
        case requests.ModelAdd():
            talk.fail(request, errors.InvalidRequest("/dev/null is a character device, not a regular file"))
        case _:
            talk.result(request, JOB)


@pytest.fixture
def made(peer: Peer) -> ScriptedPeer:
    return peer(answers)


@pytest.fixture
def run(made: ScriptedPeer, ctl: Ctl) -> Run:
    return lambda *arguments: ctl(*arguments, environ={"MODELD_SOCKET": made.path})


def test_an_attachment_shares_nothing(run: Run) -> None:
    """The daemon says `joined` of every attachment; of a job that has ended nothing runs any more."""
    assert run("attach", "j1").stderr == ""
    assert run("attach", "j2").stderr == "modelctl: job j1 waits, 1 job before it\n"


def test_an_attachment_to_a_job_that_rests_says_what_it_waits_for(run: Run) -> None:
    assert run("attach", "j3").stderr == "modelctl: job j3 is paused; it goes on after: modelctl resume j3\n"
    assert run("attach", "j3", "-q").stderr == ""


def test_watching_a_job_that_is_not_there_ends(run: Run, made: ScriptedPeer) -> None:
    done = run("watch", "--job", "nope")
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, "modelctl: there is no job 'nope'")


def test_an_empty_path_is_not_the_working_directory(run: Run, made: ScriptedPeer) -> None:
    done = run("add", "")
    assert (done.returncode, done.stderr) == (
        2,
        "modelctl: the path is empty\nhint: Name a file or a directory; . is the current one.\n",
    )
    assert made.requests == []


def test_fields_of_the_wire_are_shown_as_words(run: Run) -> None:
    assert run("list", "--filter", "x").stderr == "modelctl: filter: 'x' cannot be used\nhint: for example: size>1GB\n"


def test_a_hint_names_the_verb(run: Run) -> None:
    assert run("add", "/dev/null").stderr.splitlines()[1] == "hint: See `modelctl add --help`."


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("jobs -n 0", "argument -n: '0' is not a number from 1 to 1000"),
        ("jobs -n -1", "argument -n: '-1' is not a number from 1 to 1000"),
        ("jobs -n 1001", "argument -n: '1001' is not a number from 1 to 1000"),
        ("log -n x", "argument -n: 'x' is not a number of 0 or more"),
        ("log -n -1", "argument -n: '-1' is not a number of 0 or more"),
        (
            "sweep --grace x",
            "argument --grace: 'x' is not a number of seconds or a duration such as 1h, from 0 to 3153600000",
        ),
        ("log --since -1", "argument --since: '-1' is not a number of 0 or more"),
        ("log --since 5 -n 2", "argument -n: not allowed with argument --since"),
        ("path a b", "unrecognized arguments: b"),
    ],
)
def test_what_a_verb_cannot_take(run: Run, made: ScriptedPeer, line: str, says: str) -> None:
    done = run(*line.split())
    assert (done.returncode, done.stderr) == (2, f"modelctl: {says}\nhint: See `modelctl {line.split()[0]} --help`.\n")
    assert made.requests == []


@pytest.mark.parametrize(
    ("setting", "least"), [("running_fetches", 1), ("running_bytes", 1), ("waiting_total", 0), ("waiting_per_peer", 0)]
)
def test_too_few_jobs(run: Run, made: ScriptedPeer, setting: str, least: int) -> None:
    done = run("set", f"{setting}={least - 1}")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        f"modelctl: {setting}: '{least - 1}' is not a number of jobs" + (" from 1 to 64" if least else ""),
    )
    assert made.requests == []


def test_no_jobs_of_a_state_are_not_no_jobs(run: Run) -> None:
    assert run("jobs").stderr == "modelctl: there are no jobs\n"
    assert run("jobs", "--state", "running").stderr == "modelctl: no job is running\n"


@pytest.mark.parametrize(
    "line",
    [
        "add f --name n --sha256 " + "a" * 64 + " --license mit --replace --move",
        "add f --link --priority 1",
        "pull hf:a/b --name n --max-rate 20000000 --include *.gguf --replace",
        "pull hf:a/b --offline --priority 5",
    ],
)
def test_to_go_on_after_ctrl_c_is_the_same_command(peer: Peer, ctl: Ctl, line: str) -> None:
    """A hint without the digest would skip the check, one without --replace would be refused."""

    def held(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            talk.fail(talk.wire.open[request.target], errors.Cancelled("as asked"))
            talk.result(request, values.Done(target=request.target))
        elif isinstance(request, requests.JobShow):
            talk.result(request, msgspec.structs.replace(JOB, state="cancelled"))
        else:
            talk.accepted(request)

    made = peer(held)
    with ctl.open(*line.split(), "--socket", made.path) as process:
        made.saw(requests.ModelAdd if line.startswith("add") else requests.ModelPull)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    again = err.rpartition("run `")[2].removesuffix("` again.\n").replace("'", "").split()
    assert again[0] == "modelctl"
    assert sorted(again[1:]) == sorted(line.split())


@pytest.mark.parametrize(("free", "shown"), [(5_000_000, "2 models, 5.00 MB free"), (None, "it cannot be read now")])
def test_a_store_that_is_away_is_not_shown_as_if_it_were_there(
    peer: Peer, ctl: Ctl, free: int | None, shown: str
) -> None:
    """The daemon goes on answering with the number of models that it last saw."""
    status = msgspec.structs.replace(STATUS, free_bytes=free)
    made = peer(lambda talk, request: talk.result(request, status))
    (store,) = [line for line in ctl("status", "--socket", made.path).stdout.splitlines() if line.startswith("store")]
    assert store.split(maxsplit=1)[1] == f"/srv/models: {shown}"


@pytest.mark.parametrize("line", ["add /dev/null", "attach nope", "list", "rm nope"])
def test_the_raw_stream_ends_with_the_error(peer: Peer, ctl: Ctl, line: str) -> None:
    """As it ends with the result otherwise: who reads only the stream would wait for its last record."""

    def refuse(talk: Conversation, request: Request) -> None:
        talk.fail(request, errors.NotFound("it is not there", hint="look elsewhere"))

    made = peer(refuse)
    done = ctl(*line.split(), "--events", "--socket", made.path)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last.pop("retryable")) == (3, False)
    assert last == {"type": "error", "code": "not_found", "message": "it is not there", "hint": "look elsewhere"}
    assert done.stderr == "modelctl: it is not there\nhint: look elsewhere\n"


@pytest.mark.parametrize("deadline", ["-1", "soon", "nan", "3601"])
def test_a_deadline_is_a_number_of_seconds(run: Run, made: ScriptedPeer, deadline: str) -> None:
    done = run("stop", f"--deadline={deadline}")
    assert (done.returncode, done.stderr) == (
        2,
        f"modelctl: argument --deadline: '{deadline}' is not a number of seconds or a duration such as 1h,"
        " from 0 to 3600\n"
        "hint: See `modelctl stop --help`.\n",
    )
    assert made.requests == []


def test_one_file_is_not_files(peer: Peer, ctl: Ctl) -> None:
    one = msgspec.structs.replace(
        ADDED, files=(values.ModelFile(path="a/b", blob=ADDED.blob, size_bytes=1, role="weights"),)
    )
    made = peer(lambda talk, request: talk.result(request, one))
    assert ctl("add", "f", "--socket", made.path).stdout.startswith("tiny  10 B  gguf, 1 file\n")


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("remove", "rm"),
        ("delete", "rm"),
        ("rename", "mv"),
        ("copy", "cp"),
        ("download", "pull"),
        ("import", "add"),
        ("install", "pull"),
        ("prune", "sweep"),
        ("info", "show"),
        ("check", "verify"),
        ("du", "usage"),
        ("kill", "cancel"),
        ("shutdown", "stop"),
        ("Remove", "rm"),
        ("lsit", "list"),
        ("shwo", "show"),
        ("statsu", "status"),
        ("inspct", "show"),
    ],
)
def test_the_verb_that_is_meant_is_suggested(run: Run, word: str, verb: str) -> None:
    """Not the one that is spelled most like it: `remove` is like `resolve`."""
    done = run(word, "m")
    assert (done.returncode, done.stderr.splitlines()[1]) == (
        2,
        f"hint: Did you mean {verb}? See `modelctl --help` for all verbs.",
    )


@pytest.mark.parametrize("word", ["xyzzy", "foo", "cat", "rue", "edit", "push", "help"])
def test_a_word_like_no_verb_suggests_none(run: Run, word: str) -> None:
    """`rue` is not `prune`, and `edit` is not `exit`: a wrong suggestion does more harm than none."""
    assert run(word).stderr.splitlines()[1] == "hint: See `modelctl --help` for all verbs."


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("path -- -x", requests.ModelResolve(id="1", name="-x")),
        ("show -q -- -x", requests.ModelShow(id="1", name="-x")),
        ("rm -- -x", requests.ModelRemove(id="1", name="-x")),
        ("verify -- -x", requests.ModelVerify(id="1", names=("-x",))),
        ("cp -- -x -y", requests.ModelCopy(id="1", source="-x", destination="-y")),
        ("pull hf:a/b --name=-x", requests.ModelPull(id="1", ref="hf:a/b", name="-x")),
    ],
)
def test_a_name_may_begin_with_a_dash(peer: Peer, ctl: Ctl, line: str, request_: Request) -> None:
    made = peer(lambda talk, request: talk.fail(request, errors.NotFound("no")))
    assert ctl(*line.split(), environ={"MODELD_SOCKET": made.path}).returncode == 3
    sent = made.requests[0]
    assert type(sent) is type(request_)
    for field in ("name", "names", "source", "destination"):
        assert getattr(sent, field, None) == getattr(request_, field, None)


@pytest.mark.parametrize("line", ["path -x", "rm -x", "show -x", "cp -x y", "add f --name -x"])
def test_a_name_that_is_taken_for_an_option_leads_to_the_way_to_write_it(
    run: Run, made: ScriptedPeer, line: str
) -> None:
    done = run(*line.split())
    assert (done.returncode, made.requests) == (2, [])
    assert "If -x is a name, write `--` before it, or `=` between an option and it." in done.stderr.splitlines()[1]


@pytest.mark.parametrize(
    ("line", "again"),
    [
        ("add ./-f --name=-n --replace", "add ./-f --name=-n --replace"),
        ("add --move -- -f", "add --move -- -f"),
        ("rm --force -- -x", "rm --force -- -x"),
        ("cp -- -x y", "cp -- -x y"),
        ("mv x y", "mv x y"),
        ("verify -- -x y", "verify -- -x y"),
        ("sweep --dry-run --grace 90", "sweep --dry-run --grace 90"),
    ],
)
def test_the_same_command_again_is_the_same_command(peer: Peer, ctl: Ctl, line: str, again: str) -> None:
    """Without its --dry-run a sweep would remove what it was to list."""

    def held(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            talk.fail(talk.wire.open[request.target], errors.Cancelled("as asked"))
        elif isinstance(request, requests.JobShow):
            talk.result(request, msgspec.structs.replace(JOB, state="cancelled"))
        else:
            talk.accepted(request)

    made = peer(held)
    with ctl.open(*line.split(), environ={"MODELD_SOCKET": made.path}) as process:
        made.saw(requests.Write)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert err.splitlines()[-1] == f"hint: To go on, run `modelctl {again}` again."


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("pull m.gguf", "`modelctl pull ./m.gguf`"),
        ("pull m.gguf --name x", "`modelctl pull ./m.gguf`"),
        ("path m.gguf", "`modelctl add ./m.gguf`"),
        ("show -q m.gguf", "`modelctl add ./m.gguf`"),
    ],
)
def test_a_bare_name_of_a_file_that_is_here_leads_to_the_file(peer: Peer, ctl: Ctl, line: str, hint: str) -> None:
    ctl.file("m.gguf", b"GGUF")
    details = {"name": "m.gguf"}

    def refuse(talk: Conversation, request: Request) -> None:
        talk.fail(request, errors.NotFound("there is no model named 'm.gguf'", hint="modelctl list", details=details))

    made = peer(refuse)
    done = ctl(*line.split(), "--socket", made.path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[1] == f"hint: For the file of that name here, write {hint}."
    (ctl.room / "m.gguf").unlink()
    assert ctl(*line.split(), "--socket", made.path).stderr.splitlines()[1] == "hint: modelctl list"
