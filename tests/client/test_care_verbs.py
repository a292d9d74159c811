"""What the verbs about names, bytes and space print, against a peer whose answers are known to the byte."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelwire import errors, requests, values
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import VIEW, Conversation, ScriptedPeer

Peer = Callable[..., ScriptedPeer]
Run = Callable[..., subprocess.CompletedProcess[str]]

BLOB = VIEW.blob
PLAN = (
    values.PlanStep(action="share", path="/srv/blob", size_bytes=10, blob=BLOB),
    values.PlanStep(action="write", path="/srv/b.json", size_bytes=371),
)
COPIED = values.Copied(name="b", source="tiny", blob=BLOB, size_bytes=10, blobs=(BLOB,), plan=PLAN, job="j1")
PLANNED = msgspec.structs.replace(COPIED, dry_run=True, job=None)
MOVED = values.Moved(name="b", source="tiny", blob=BLOB, size_bytes=10, job="j1")
REMOVED = values.Removed(name="tiny", blob=BLOB, size_bytes=10, job="j1")
GOOD = values.Verified(name="tiny", ok=True, expected=BLOB, actual=BLOB, size_bytes=10)
UNCHANGED = msgspec.structs.replace(GOOD, actual=None, by="checksums")
BAD = values.Verified(name="bad", ok=False, expected=BLOB, actual="sha256:" + "b" * 64, size_bytes=5, reason="rotten")
REPAIRED = values.RepairedBlob(
    blob=BLOB,
    models=("tiny", "b"),
    size_bytes=20_000_000,
    blocks=2,
    damaged_blocks=1,
    kept_bytes=3_000_000,
    fetched_bytes=17_000_000,
)
KEPT = values.Quarantined(path="/q/1.bin", size_bytes=5, reason="corrupt-blob", time="2026-11-20T00:00:00Z")
EVICTION = values.EvictionPlan(
    needed_bytes=5_000_000_000,
    available_bytes=10,
    frees_bytes=500,
    enough=False,
    evict=(values.Eviction(name="old", frees_bytes=500, used_at="2026-01-02T00:00:00Z", source="hf:org/old"),),
    stay=(values.NotEvicted(name="tiny", size_bytes=10, reason="it is pinned"),),
)
PLANNED_USAGE = values.Usage(plan=EVICTION)
USAGE = values.Usage(
    logical_bytes=20,
    physical_bytes=10,
    shared_bytes=10,
    free_bytes=7000,
    models=(values.ModelUsage(name="tiny", logical_bytes=10, own_bytes=0, shared_bytes=10),),
    users=(
        values.UserUsage(uid=1000, models=2, size_bytes=10, quota_bytes=2_000_000_000),
        values.UserUsage(uid=None, models=1, size_bytes=10),
    ),
)
VICTIM = values.Victim(path="/srv/old", kind="blob", size_bytes=5, reason="no model names it")
SWEPT = values.Swept(victims=(VICTIM,), removed=1, freed_bytes=5, kept=2, notes=("x is odd",), job="j1")


def answers(talk: Conversation, request: Request) -> None:
    value: values.Value
    match request:
        case requests.ModelRemove(name="nope"):
            talk.fail(request, errors.NotFound("there is no model named 'nope'"))
            return
        case requests.ModelRemove(name="leased"):
            talk.fail(request, errors.InUse("it is held by somebody"))
            return
        case requests.ModelCopy():
            value = PLANNED if request.dry_run else COPIED
        case requests.ModelMove():
            value = MOVED
        case requests.ModelRemove():
            value = msgspec.structs.replace(REMOVED, name=request.name)
        case requests.ModelVerify(quick=True):
            value = values.Verification(models=(UNCHANGED,), checked=1, quick=True)
        case requests.ModelVerify(all=True):
            value = values.Verification(models=(BAD, GOOD), ok=False, checked=2, failed=1)
        case requests.ModelVerify():
            value = values.Verification(models=(GOOD,), checked=1)
        case requests.ModelRepair(names=("good",)):
            value = values.Repaired(checked=1)
        case requests.ModelRepair(names=("lost",)):
            talk.fail(request, errors.Corrupt("'lost' cannot be repaired", hint="Name a file."))
            return
        case requests.ModelRepair():
            value = values.Repaired(repaired=(REPAIRED,), checked=2)
        case requests.StoreQuarantine():
            value = values.QuarantineList(items=(KEPT,), size_bytes=5)
        case requests.StoreUsage(plan_bytes=5_000_000_000):
            value = PLANNED_USAGE
        case requests.StoreUsage():
            value = USAGE
        case requests.StoreSweep():
            value = SWEPT
        case _:
            value = values.ModelList(models=(VIEW,))
    talk.result(request, value)


@pytest.fixture
def run(peer: Peer, ctl: Ctl) -> Run:
    made = peer(answers)

    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return ctl(*arguments, environ={"MODELD_SOCKET": made.path}, **options)

    return call


TEXT = {
    "cp tiny b": "b  10 B  as tiny\n",
    "cp tiny b -q": "b\n",
    "cp tiny b --dry-run": "STEP    SIZE  PATH\nshare   10 B  /srv/blob\nwrite  371 B  /srv/b.json\n",
    "mv tiny b": "b  10 B  was tiny\n",
    "mv tiny b -q": "b\n",
    "rm tiny": "tiny  10 B  removed\n",
    "rm tiny other -q": "tiny\nother\n",
    "verify tiny": "NAME  SIZE  FILES  RESULT\ntiny  10 B      1  good\n",
    "verify tiny -q": "",
    "verify tiny --quick": "NAME  SIZE  FILES  RESULT\ntiny  10 B      1  unchanged\n",
    "repair tiny": "MODEL       SIZE  BLOCKS  DAMAGED     KEPT  COPIED  FETCHED\n"
    "tiny, b  20.0 MB       2        1  3.00 MB     0 B  17.0 MB\n",
    "repair --all -q": "tiny\nb\n",
    "repair good": "",
    "quarantine": "TIME                  SIZE  REASON        PATH\n"
    "2026-11-20T00:00:00Z   5 B  corrupt-blob  /q/1.bin\n",
    "quarantine -q": "/q/1.bin\n",
    "usage": "NAME  SIZE  OWN  SHARED\ntiny  10 B  0 B    10 B\n\n"
    "all models         20 B\non the disk        10 B\nshared by several  10 B\nfree               7.00 kB\n",
    "usage -q": "10\n",
    "usage --by user": "UID        MODELS  SIZE    QUOTA\n"
    "1000            2  10 B  2.00 GB\nnot known       1  10 B     none\n",
    "usage --by user -q": "1000\nnot known\n",
    "usage --plan 5GB": "NAME  FREES  LAST USED             SOURCE\nold   500 B  2026-01-02T00:00:00Z  hf:org/old\n\n"
    "STAYS  SIZE  BECAUSE\ntiny   10 B  it is pinned\n",
    "usage --plan 5GB -q": "old\n",
    "sweep": "KIND  SIZE  REASON             PATH\nblob   5 B  no model names it  /srv/old\n",
    "gc --dry-run -q": "/srv/old\n",
}


@pytest.mark.parametrize("line", TEXT)
def test_text(run: Run, line: str) -> None:
    done = run(*line.split())
    assert (done.returncode, done.stdout) == (0, TEXT[line])


JSON: dict[str, Any] = {
    "cp tiny b": COPIED,
    "cp tiny b --dry-run": PLANNED,
    "mv tiny b": MOVED,
    "rm tiny": REMOVED,
    "rm tiny b": [REMOVED, msgspec.structs.replace(REMOVED, name="b")],
    "verify tiny": [GOOD],
    "verify --quick": [UNCHANGED],
    "repair tiny": values.Repaired(repaired=(REPAIRED,), checked=2),
    "quarantine": [KEPT],
    "usage": USAGE,
    "usage --plan 5GB": PLANNED_USAGE,
    "sweep": SWEPT,
}


@pytest.mark.parametrize("line", JSON)
def test_json_is_one_document_of_the_typed_value(run: Run, line: str) -> None:
    done = run("--json", *line.split())
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(msgspec.json.encode(JSON[line]))


@pytest.mark.parametrize("line", ["cp tiny b", "mv tiny b", "rm tiny", "verify tiny", "sweep"])
def test_the_last_record_of_the_stream_is_the_result(run: Run, line: str) -> None:
    last = json.loads(run(*line.split(), "--events").stdout.splitlines()[-1])
    assert last["type"] == "result"


def test_a_corrupt_model_is_reported_and_ends_with_6(run: Run) -> None:
    for arguments in ([], ["--all"]):
        done = run("verify", *arguments)
        assert done.returncode == 6
        assert done.stdout.splitlines()[1].split() == ["bad", "5", "B", "1", "BAD"]
        assert done.stderr.splitlines()[0] == "modelctl: bad: rotten"
    assert [each["ok"] for each in json.loads(run("verify", "--json").stdout)] == [False, True]
    assert run("verify", "-q").stdout == "bad\n"


def test_a_quick_verification_says_what_it_does_not_prove(run: Run) -> None:
    assert "only `modelctl verify` without --quick proves" in run("verify", "tiny", "--quick").stderr
    assert "--quick" not in run("verify", "tiny").stderr


def test_a_repair_that_has_nothing_to_do_says_so_and_one_that_fails_what_to_do(run: Run) -> None:
    assert "nothing to repair: 1 model looked at" in run("repair", "good").stderr
    lost = run("repair", "lost")
    assert (lost.returncode, lost.stdout) == (6, "")
    assert lost.stderr.splitlines() == ["modelctl: 'lost' cannot be repaired", "hint: Name a file."]


@pytest.mark.parametrize("arguments", [[], ["tiny", "--all"]])
def test_a_repair_is_of_names_or_of_all(run: Run, arguments: list[str]) -> None:
    assert run("repair", *arguments).returncode == 2


def test_names_and_all_exclude_each_other(run: Run) -> None:
    done = run("verify", "tiny", "--all")
    assert (done.returncode, done.stdout) == (2, "")


def test_each_name_is_removed_for_itself_and_the_first_failure_is_the_code(run: Run) -> None:
    done = run("rm", "nope", "tiny", "leased")
    assert (done.returncode, done.stdout) == (3, "tiny  10 B  removed\n")
    assert [line for line in done.stderr.splitlines() if line.startswith("modelctl:")] == [
        "modelctl: there is no model named 'nope'",
        "modelctl: it is held by somebody",
    ]
    printed = json.loads(run("rm", "leased", "tiny", "--json").stdout)
    assert [printed[0]["error"]["code"], printed[1]["name"]] == ["in_use", "tiny"]
    assert run("rm", "leased").returncode == 5


def test_one_that_cannot_be_removed_is_an_error_document(run: Run) -> None:
    done = run("rm", "nope", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "not_found")


def test_what_a_sweep_could_not_read_is_reported_beside(run: Run) -> None:
    lines = run("sweep").stderr.splitlines()
    assert lines == ["modelctl: x is odd", "modelctl: 5 B freed, 2 blobs kept"]


@pytest.mark.parametrize(
    ("waiting", "note"),
    [
        (1, "1 blob (5 B) that no model names stays up to 50 min more: `modelctl sweep --grace 0` takes it now"),
        (3, "3 blobs (5 B) that no model names stay up to 50 min more: `modelctl sweep --grace 0` takes them now"),
    ],
)
def test_what_a_sweep_does_not_take_yet_is_reported_with_the_way_to_it(
    peer: Peer, ctl: Ctl, waiting: int, note: str
) -> None:
    swept = values.Swept(kept=3, waiting=waiting, waiting_bytes=5, waiting_s=3000.0)
    made = peer(lambda talk, request: talk.result(request, swept))
    done = ctl("sweep", "--socket", made.path)
    assert done.stderr.splitlines() == ["modelctl: 0 B freed, 3 blobs kept", f"modelctl: {note}"]


def test_emptying_the_quarantine_reports_no_blobs_which_it_does_not_look_at(run: Run) -> None:
    assert run("quarantine", "rm").stderr.splitlines() == ["modelctl: x is odd", "modelctl: 5 B freed"]


@pytest.mark.parametrize("grace", ["-1", "soon", "nan", "inf"])
def test_a_grace_period_is_a_number_of_seconds(ctl: Ctl, grace: str) -> None:
    done = ctl("sweep", f"--grace={grace}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--grace" in done.stderr


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("list --filter size>1GB --sort -size", requests.ModelList(id="1", filter="size>1GB", sort="-size")),
        ("list --filter a=b --filter c=d --sort=name", requests.ModelList(id="1", filter="a=b,c=d", sort="name")),
        ("cp a b", requests.ModelCopy(id="1", source="a", destination="b")),
        ("mv a b", requests.ModelMove(id="1", source="a", destination="b")),
        ("rm a --force", requests.ModelRemove(id="1", name="a", force=True)),
        ("verify a b", requests.ModelVerify(id="1", names=("a", "b"))),
        ("verify --quick", requests.ModelVerify(id="1", all=True, quick=True)),
        ("repair a --from /x", requests.ModelRepair(id="1", names=("a",), from_="/x")),
        ("repair --all", requests.ModelRepair(id="1", all=True)),
        ("sweep --dry-run", requests.StoreSweep(id="1", dry_run=True)),
        ("sweep --grace 0", requests.StoreSweep(id="1", grace_s=0.0)),
        ("sweep --grace 1h30m", requests.StoreSweep(id="1", grace_s=5400.0)),
        ("sweep --grace 1e3", requests.StoreSweep(id="1", grace_s=1000.0)),
    ],
)
def test_arguments_become_requests(peer: Peer, ctl: Ctl, line: str, request_: Request) -> None:
    made = peer(answers)
    assert ctl(*line.split(), "--socket", made.path).returncode == 0
    assert made.requests == [request_]
