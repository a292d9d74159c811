"""What each write refuses before anything is queued, which requests share a job, and which a restart takes up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from modeld.jobs.job import Job
from modeld.operations import (
    model_add,
    model_copy,
    model_move,
    model_provision,
    model_pull,
    model_remove,
    model_repair,
    model_update,
    model_verify,
    model_verify_signature,
    store_move,
    store_scrub,
    store_sweep,
)
from modeld.operations.job_operation import JobOperation
from modeld.pulls.plan import Plan
from modeld.sources.reference import Reference
from modelwire import requests
from modelwire.errors import AlreadyExists, InvalidRequest, PermissionDenied, WireError
from modelwire.knowledge.command import command_of
from rigs.operations_rig import ANOTHER, MINE, operations_rig
from rigs.update_commands import ALWAYS, command

HEX = "a" * 64


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


LONG = "x" * 5000
COMMAND = command("1.0", ALWAYS)

KINDS: dict[type[requests.Write], type[JobOperation[Any, Any]]] = {
    kind.request: kind
    for kind in (
        model_add.Add,
        model_pull.Pull,
        model_provision.Provision,
        model_update.UpdateModel,
        model_copy.Copy,
        model_move.Move,
        model_remove.Remove,
        model_verify.Verify,
        model_verify_signature.VerifySignature,
        model_repair.Repair,
        store_sweep.Sweep,
        store_scrub.Scrub,
        store_move.MoveStore,
    )
}

REFUSED = [
    (requests.ModelAdd(path="m.gguf"), "invalid_request"),
    (requests.ModelAdd(path="/\0"), "invalid_request"),
    (requests.ModelAdd(path="/" + LONG), "invalid_request"),
    (requests.ModelAdd(path="/m", license=LONG), "invalid_request"),
    (requests.ModelAdd(path="/m", name="../m"), "invalid_name"),
    (requests.ModelAdd(path="/m", sha256="no"), "invalid_digest"),
    (requests.ModelAdd(path="/m", move=True, link=True), "invalid_request"),
    (requests.ModelAdd(path="/m", signature=""), "invalid_request"),
    (requests.ModelPull(ref=""), "invalid_request"),
    (requests.ModelPull(ref="hf:org/repo", name="../m"), "invalid_name"),
    (requests.ModelPull(ref="hf:org/repo", sha256="no"), "invalid_digest"),
    (requests.ModelPull(ref="hf:org/repo", license=LONG), "invalid_request"),
    (requests.ModelPull(ref="hf:org/repo", signature=""), "invalid_request"),
    (requests.ModelPull(ref="/m.gguf", include=("*",)), "invalid_request"),
    (requests.ModelCopy(source="../a", destination="b"), "invalid_name"),
    (requests.ModelCopy(source="a", destination="../b"), "invalid_name"),
    (requests.ModelMove(source="../a", destination="b"), "invalid_name"),
    (requests.ModelMove(source="a", destination="../b"), "invalid_name"),
    (requests.ModelRemove(name="../a"), "invalid_name"),
    (requests.ModelVerify(), "invalid_request"),
    (requests.ModelVerify(names=("a",), all=True), "invalid_request"),
    (requests.ModelVerify(names=("../a",)), "invalid_name"),
    (requests.ModelVerifySignature(name="a", signature="{}"), "invalid_request"),
    (requests.ModelVerifySignature(name="a", signature="{}", key="k", roots="r"), "invalid_request"),
    (requests.ModelVerifySignature(name="../a", signature="{}", key="k"), "invalid_name"),
    (requests.ModelRepair(), "invalid_request"),
    (requests.ModelRepair(names=("a",), all=True), "invalid_request"),
    (requests.ModelRepair(names=("../a",)), "invalid_name"),
    (requests.ModelRepair(names=("a",), from_="m.gguf"), "invalid_request"),
    (requests.ModelRepair(names=("a",), from_="/" + LONG), "invalid_request"),
    (requests.ModelProvision(ref=""), "invalid_request"),
    (requests.ModelProvision(ref="hf:org/repo", name="../m"), "invalid_name"),
    (requests.ModelProvision(ref="hf:org/repo", sha256="no"), "invalid_digest"),
    (requests.ModelUpdate(command={}), "invalid_request"),
    (requests.ModelUpdate(command=command("1.0", ALWAYS, model_id="../m")), "invalid_name"),
    (requests.ModelUpdate(command=command("1.0", ALWAYS, sha256="no")), "invalid_digest"),
    (requests.StoreSweep(quarantine=True, grace_s=0.0), "invalid_request"),
    (requests.StoreSweep(quarantine=True, partials=True), "invalid_request"),
]

SAME_WORK: list[tuple[requests.Write, dict[str, Any], str]] = [
    # a request, what may be different in another one for the same work, the key as every version writes it
    (
        requests.ModelAdd(path="/m.gguf", name="m"),
        {"priority": 1, "token": "t"},
        'model.add ["/m.gguf","m",null,false,null,1000,false,false]',
    ),
    (
        requests.ModelPull(ref="hf:org/repo", name="m"),
        {"on_disconnect": "continue"},
        'model.pull ["hf:org/repo",[],[],"m",null,false,null,false,null,1000]',
    ),
    (
        requests.ModelProvision(ref="hf:org/repo"),
        {"priority": 1},
        'model.provision ["hf:org/repo",null,true,null,false,null,1000]',
    ),
    (
        requests.ModelUpdate(command=COMMAND),
        {"max_rate": 1000, "command": dict(reversed(COMMAND.items()))},
        f'model.update ["{COMMAND["command_id"]}","{command_of(COMMAND).content}",1000]',
    ),
    (requests.ModelCopy(source="a", destination="b"), {"priority": 5}, 'model.copy ["a","b",1000]'),
    (requests.ModelMove(source="a", destination="b"), {"token": "t"}, 'model.move ["a","b",1000]'),
    (requests.ModelRemove(name="a"), {"token": "t"}, 'model.remove ["a",false,1000]'),
    (requests.ModelVerify(names=("b", "a")), {"names": ("a", "b", "a")}, 'model.verify ["a","b",1000]'),
    (
        requests.ModelVerifySignature(name="a", signature="{}", key="k"),
        {"priority": 2},
        f'model.verify_signature ["a","{digest_of("{}")}","{digest_of("k")}",null,1000]',
    ),
    (requests.ModelRepair(names=("b", "a")), {"names": ("a", "b", "a")}, 'model.repair ["a","b",null,1000]'),
    (requests.StoreSweep(), {"priority": 2}, "store.sweep [false,null,1000]"),
    (requests.StoreScrub(), {"priority": 2}, "store.scrub [1000]"),
    (requests.StoreMove(path="/mnt/m"), {"priority": 2}, 'store.move ["/mnt/m",1000]'),
]

OTHER_WORK: dict[type[requests.Write], list[dict[str, Any]]] = {
    requests.ModelAdd: [
        {"path": "/n.gguf"},
        {"name": "n"},
        {"sha256": HEX},
        {"replace": True},
        {"license": "mit"},
        {"move": True},
        {"link": True},
        {"force_format": True},
        {"strict_format": True},
        {"signature": "{}"},
        {"transfer": "one"},
        {"transfer": "two"},
        {"transfer": "one", "token": "t"},
        {"known_as": "a/b"},
    ],
    requests.ModelPull: [
        {"ref": "hf:org/other"},
        {"name": "n"},
        {"sha256": HEX},
        {"replace": True},
        {"license": "mit"},
        {"include": ("*.gguf",)},
        {"exclude": ("*.gguf",)},
        {"offline": True},
        {"max_rate": 1000},
        {"force_format": True},
        {"strict_format": True},
        {"signature": "{}"},
        {"credentials": "a-token"},
        {"hash_file": True},
        {"transfer": "one"},
        {"transfer": "two"},
    ],
    requests.ModelProvision: [
        {"ref": "hf:org/other"},
        {"sha256": HEX},
        {"strict": False},
        {"name": "n"},
        {"offline": True},
        {"max_rate": 1000},
        {"transfer": "one"},
    ],
    requests.ModelUpdate: [{"command": command("2.0", ALWAYS)}],
    requests.ModelCopy: [{"source": "c"}, {"destination": "c"}, {"link": True}],
    requests.ModelMove: [{"source": "c"}, {"destination": "c"}],
    requests.ModelRemove: [{"name": "c"}, {"force": True}, {"now": True}],
    requests.ModelVerify: [{"names": ("a",)}, {"names": (), "all": True}, {"quick": True}],
    requests.ModelVerifySignature: [{"name": "b"}, {"signature": "[]"}, {"key": "other"}, {"key": None, "roots": "k"}],
    requests.ModelRepair: [
        {"names": ("a",)},
        {"names": (), "all": True},
        {"from_": "/x"},
        {"from_": "/x", "transfer": "t"},
    ],
    requests.StoreSweep: [{"dry_run": True}, {"grace_s": 0.0}, {"partials": True}, {"quarantine": True}],
    requests.StoreScrub: [{"full": True}, {"due": True}],
    requests.StoreMove: [{"path": "/mnt/other"}, {"path": None, "drop_old": True}],
}


NO_OTHER_WORK = {"directory", "dry_run", *requests.Write.__struct_fields__}
"""Fields that make no other work: how a job is run, what is part of another field by then, and a copy's plan, which is
no job."""

CARRIED_OUT_ONCE: dict[type[requests.Write], set[str]] = {requests.ModelUpdate: {"max_rate"}}
"""The same command is never a second job."""


@pytest.mark.parametrize("kind", OTHER_WORK, ids=lambda kind: kind.__name__)
def test_each_field_of_a_write_is_known_to_make_other_work_or_none(kind: type[requests.Write]) -> None:
    """A field that the key leaves out lets two requests for different things share one job."""
    tried = {field for changed in OTHER_WORK[kind] for field in changed}
    assert tried | NO_OTHER_WORK | CARRIED_OUT_ONCE.get(kind, set()) >= set(kind.__struct_fields__)
    assert set(OTHER_WORK) == set(KINDS)


def fields_of(request: requests.Write) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


@pytest.mark.parametrize(("request_", "code"), REFUSED, ids=repr)
async def test_a_bad_request_is_refused_before_it_is_queued(
    tmp_path: Path, request_: requests.Write, code: str
) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(WireError) as refused:
            await at.ask(request_)
        assert refused.value.code == code
        assert refused.value.hint
        assert await at.services.board.recent(10, None) == []


async def test_a_job_is_asked_for_with_few_names(tmp_path: Path) -> None:
    """They are kept for a month, twice: a user could fill the disk with them."""
    async with operations_rig(tmp_path) as at:
        with pytest.raises(InvalidRequest, match="longer than"):
            await at.ask(requests.ModelVerify(names=tuple(f"model-{number}" for number in range(4000))))
        assert await at.services.board.recent(10, None) == []


@pytest.mark.parametrize(("request_", "alike", "key"), SAME_WORK, ids=lambda value: type(value).__name__)
async def test_requests_for_the_same_work_have_one_key_and_others_another(
    tmp_path: Path, request_: requests.Write, alike: dict[str, Any], key: str
) -> None:
    """Also for a job that an earlier version wrote into the ledger: its tokens still stand for it."""
    async with operations_rig(tmp_path) as at:
        operation, fields = at.of(KINDS[type(request_)]), fields_of(request_)

        def key_with(**changed: Any) -> str:
            return operation.check(MINE, type(request_)(**(fields | changed))).key

        assert key_with() == key
        assert key_with(**alike) == key
        assert operation.check(ANOTHER, request_).key != key, "rights may differ"
        others = [key_with(**changed) for changed in OTHER_WORK[type(request_)]]
        assert len({key, *others}) == 1 + len(others)


async def test_pulls_of_what_is_on_this_machine_wait_with_those_that_add(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        pull = at.of(model_pull.Pull)
        assert pull.queue(requests.ModelPull(ref="hf:org/repo")) == "model.pull"
        assert pull.queue(requests.ModelPull(ref="/m.gguf")) == at.of(model_add.Add).queue(requests.ModelAdd(path="/"))
        assert pull.queue(requests.ModelPull(ref="")) == "model.pull", "the work says what is wrong with it"


@pytest.mark.parametrize("may_replace", [True, False])
async def test_a_name_that_is_replaced_just_before_it_is_found_current_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_replace: bool
) -> None:
    async with operations_rig(tmp_path) as at:
        mine = await at.ask(requests.ModelAdd(path=at.file("m.gguf"), name="m"))
        theirs = await at.ask(
            requests.ModelAdd(path=at.file("t.gguf", b"GGUF\3\0\0\0 other bytes of a model"), name="theirs")
        )
        manifests, real = Path(at.services.store.layout.manifests_dir), Plan.publication

        def replace_afterwards(plan: Plan, *arguments: Any, **options: Any) -> Any:
            found = real(plan, *arguments, **options)
            document = (manifests / "theirs.json").read_text().replace('"theirs"', '"m"')
            if (manifests / "m.json").read_text() != document:
                (tmp_path / "new").write_text(document)
                os.replace(tmp_path / "new", manifests / "m.json")
            return found

        monkeypatch.setattr(Plan, "publication", replace_afterwards)
        digest = mine.blob.removeprefix("sha256:")
        request = requests.ModelPull(ref="hf:org/repo/m.gguf", name="m", sha256=digest, replace=may_replace)
        if may_replace:
            assert (await at.ask(request)).blob == mine.blob
        else:
            with pytest.raises(AlreadyExists):
                await at.ask(request)
        expected = mine.blob if may_replace else theirs.blob
        assert json.loads((manifests / "m.json").read_text())["blob"] == expected


async def test_the_work_of_a_job_is_done_with_its_own_request(tmp_path: Path) -> None:
    """Each value is of its type and says which job it came from."""
    async with operations_rig(tmp_path) as at:
        value = await at.ask(requests.ModelAdd(path=at.file("m.gguf"), name="m"))
        for request in (requests.ModelVerify(names=("m",)), requests.ModelVerify(all=True), requests.StoreSweep()):
            outcome = await at.ask(request)
            assert isinstance(outcome, KINDS[type(request)].value)
            assert outcome.job != value.job
        job = await at.services.board.find(value.job)
        assert (job.state, job.value) == ("done", value)


async def test_the_secret_of_a_pull_is_its_jobs_alone_and_ends_with_it(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        pull = at.of(model_pull.Pull)
        first, second = (
            pull.check(MINE, requests.ModelPull(ref=f"http://user:{word}@127.0.0.1:9/{word}.gguf", offline=True))
            for word in ("one", "two")
        )
        for submission, word in ((first, "one"), (second, "two")):
            assert isinstance(submission.secret, Reference)
            assert submission.secret.secrets.userinfo == f"user:{word}"
        assert first.key != second.key
        with pytest.raises(WireError):
            await at.ask(requests.ModelPull(ref="http://user:one@127.0.0.1:9/one.gguf", offline=True))
        (job,) = await at.services.board.recent(1, None)
        assert (job.state, job.secret) == ("failed", None)
        assert "one@" not in repr(job)


@pytest.mark.parametrize(
    ("request_", "goes_on"),
    [
        (requests.ModelAdd(path="/m.gguf"), True),
        (requests.ModelAdd(path="/m.gguf", transfer="t"), False),
        (requests.ModelPull(ref="/m.gguf", transfer="t"), False),
        (requests.ModelPull(ref="hf:org/repo"), True),
        (requests.ModelPull(ref="hf:org/repo", credentials="a-token"), False),
        (requests.ModelPull(ref="hf:org/repo", signature="{}"), True),
        (requests.ModelAdd(path="/m.gguf", signature="{}"), True),
        (requests.ModelVerify(all=True), True),
        (requests.ModelVerifySignature(name="a", signature="{}", key="k"), True),
    ],
    ids=repr,
)
async def test_work_that_needs_what_is_kept_nowhere_does_not_go_on_after_a_stop(
    tmp_path: Path, request_: requests.Write, goes_on: bool
) -> None:
    async with operations_rig(tmp_path) as at:
        operation = at.of(KINDS[type(request_)])
        wanted = operation.check(MINE, request_)
        job = Job(
            id="j",
            kind=operation,
            key=wanted.key,
            request=wanted.request,
            peer=MINE.uid,
            priority=3,
            on_disconnect="cancel",
            created_at=0.0,
        )
        assert operation.goes_on(job) is goes_on


async def test_a_job_of_another_user_opens_no_path_whoever_accepted_it(tmp_path: Path) -> None:
    """Versions before took paths of any user: their jobs go on after the daemon is replaced."""
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf")
        for request in (requests.ModelAdd(path=path, name="m"), requests.ModelPull(ref=path, name="m")):
            with pytest.raises(PermissionDenied) as refused:
                await at.ask(request, ANOTHER)
            assert refused.value.details["by"] == "descriptors"
        assert at.services.store.index.names() == []
