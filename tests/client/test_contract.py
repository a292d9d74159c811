"""What a program may rely on, whichever client it uses: every test here runs against both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import modelclient
from modelwire import errors, operations, replies, requests, values
from modelwire.encoding import encode
from modelwire.requests import Request
from rigs.scripted_peer import (
    ADDED,
    JOB,
    LEASED,
    RESOLVED,
    STATUS,
    VALUES,
    VIEW,
    Conversation,
    ScriptedPeer,
    good,
)

Peer = Callable[..., ScriptedPeer]
Open = Callable[..., Any]

CALLS: list[tuple[type[Request], Callable[[Any], object], object]] = [
    (requests.DaemonStatus, lambda c: c.status(), STATUS),
    (requests.DaemonDescribe, lambda c: c.describe(), VALUES[requests.DaemonDescribe]),
    (requests.DaemonDrain, lambda c: c.drain(3.0), VALUES[requests.DaemonDrain]),
    (requests.DaemonConfigure, lambda c: c.configure(max_rate=1000), VALUES[requests.DaemonConfigure]),
    (requests.JobConfigure, lambda c: c.configure_job("j1", max_rate=0), VALUES[requests.JobConfigure]),
    (requests.ModelAdd, lambda c: c.add("/x", name="tiny").result(), ADDED),
    (requests.ModelPull, lambda c: c.pull("hf:org/repo", name="tiny").result(), VALUES[requests.ModelPull]),
    (requests.ModelProvision, lambda c: c.ensure_present("hf:org/repo"), VALUES[requests.ModelProvision]),
    (requests.ModelRegister, lambda c: c.register({"model_id": "tiny"}), VALUES[requests.ModelRegister]),
    (requests.ModelUpdate, lambda c: c.update({"command_id": "x"}).result(), VALUES[requests.ModelUpdate]),
    (requests.ModelUpdates, lambda c: c.updates(), VALUES[requests.ModelUpdates]),
    (requests.RefuseLoad, lambda c: c.refuse_load("x", "too big"), VALUES[requests.RefuseLoad]),
    (requests.ModelList, lambda c: c.list_models(), VALUES[requests.ModelList]),
    (requests.ModelShow, lambda c: c.show("tiny"), VIEW),
    (requests.ModelFit, lambda c: c.fit("tiny", vram_mb=8192), VALUES[requests.ModelFit]),
    (requests.ModelResolve, lambda c: c.resolve("tiny"), RESOLVED),
    (requests.LeaseAcquire, lambda c: c.acquire("tiny", ttl_s=60), LEASED),
    (requests.LeaseRelease, lambda c: c.release(LEASED.lease), VALUES[requests.LeaseRelease]),
    (requests.ModelCopy, lambda c: c.copy("tiny", "b").result(), VALUES[requests.ModelCopy]),
    (requests.ModelMove, lambda c: c.move("tiny", "b").result(), VALUES[requests.ModelMove]),
    (requests.ModelRemove, lambda c: c.remove("tiny").result(), VALUES[requests.ModelRemove]),
    (requests.ModelPin, lambda c: c.pin("tiny").result(), VALUES[requests.ModelPin]),
    (requests.ModelUnpin, lambda c: c.unpin("tiny").result(), VALUES[requests.ModelUnpin]),
    (requests.ModelVerify, lambda c: c.verify().result(), VALUES[requests.ModelVerify]),
    (
        requests.ModelVerifySignature,
        lambda c: c.verify_signature("tiny", "{}", key="PEM").result(),
        VALUES[requests.ModelVerifySignature],
    ),
    (requests.ModelRepair, lambda c: c.repair().result(), VALUES[requests.ModelRepair]),
    (requests.StoreUsage, lambda c: c.usage(), VALUES[requests.StoreUsage]),
    (requests.StoreQuarantine, lambda c: c.quarantine(), VALUES[requests.StoreQuarantine]),
    (requests.StoreSweep, lambda c: c.sweep().result(), VALUES[requests.StoreSweep]),
    (requests.StoreScrub, lambda c: c.scrub().result(), VALUES[requests.StoreScrub]),
    (requests.StoreMove, lambda c: c.move_store("/mnt/models").result(), VALUES[requests.StoreMove]),
    (requests.JobList, lambda c: c.jobs(state="done", limit=5), (JOB,)),
    (requests.JobShow, lambda c: c.job("j1"), JOB),
    (requests.JobAttach, lambda c: c.attach("j1").result(), JOB),
    (requests.JobCancel, lambda c: c.cancel_job("j1"), JOB),
    (requests.JobPause, lambda c: c.pause("j1"), JOB),
    (requests.JobResume, lambda c: c.resume("j1"), JOB),
    (requests.JobPrioritize, lambda c: c.prioritize("j1", 2), JOB),
    (requests.EventsSubscribe, lambda c: c.subscribe(since=3, follow=False).result(), VALUES[requests.EventsSubscribe]),
]


def test_every_operation_of_the_wire_has_a_method() -> None:
    wanted = {row.request for row in operations.OPERATIONS.values() if row.kind != "connection"}
    assert wanted == {kind for kind, _, _ in CALLS}


@pytest.mark.parametrize(("kind", "call", "value"), CALLS, ids=[str(k.__struct_config__.tag) for k, _, _ in CALLS])
def test_an_operation_sends_its_request_and_gives_its_typed_value(
    peer: Peer, open_client: Open, kind: type[Request], call: Callable[[Any], object], value: object
) -> None:
    made = peer(good)
    with open_client(made.path) as client:
        assert call(client) == value
    assert [type(request) for request in made.requests] == [kind]


def test_arguments_reach_the_daemon(peer: Peer, open_client: Open) -> None:
    made = peer(good)
    with open_client(made.path) as client:
        client.add(
            "/x/y.gguf",
            name="n",
            sha256="b" * 64,
            replace=True,
            license="mit",
            signature="{}",
            priority=1,
            on_disconnect="continue",
            token="t",
        ).result()
        client.subscribe(since=1, last=2, follow=False, progress=True, events=("a",), model="m", job="j").result()
    assert made.requests == [
        requests.ModelAdd(
            id="1",
            path="/x/y.gguf",
            name="n",
            sha256="b" * 64,
            replace=True,
            license="mit",
            signature="{}",
            priority=1,
            on_disconnect="continue",
            token="t",
        ),
        requests.EventsSubscribe(
            id="2", since=1, last=2, follow=False, progress=True, events=("a",), model="m", job="j"
        ),
    ]


def test_arguments_of_the_other_verbs_reach_the_daemon(peer: Peer, open_client: Open) -> None:
    made = peer(good)
    write: dict[str, Any] = {"priority": 1, "on_disconnect": "continue", "token": "t"}
    with open_client(made.path) as client:
        client.list_models(filter="size>1GB", sort="-size", fits=True)
        client.copy("a", "b", dry_run=True, **write).result()
        client.move("a", "b", **write).result()
        client.remove("a", force=True, **write).result()
        client.verify("a", "b", **write).result()
        client.verify().result()
        client.repair("a", from_path="/x", **write).result()
        client.sweep(dry_run=True, **write).result()
        client.scrub(full=True, due=True, **write).result()
        client.move_store("/mnt/models", drop_old=True, **write).result()
        client.configure(max_rate=0, running_bytes=1, running_fetches=2, waiting_per_peer=3, waiting_total=4)
        client.configure_job("j", priority=5, max_rate=1000)
        client.fit("a", vram_mb=8192, ram_mb=0)
        client.provision("a", digest="d", strict=False, directory="/x", offline=True, **write).result()
        client.verify_signature("a", "{}", key="PEM", **write).result()
        client.verify_signature("a", "{}", roots="PEM").result()
        client.show("a", provenance=True)
        client.register({"model_id": "a"}, name="b")
        client.update({"command_id": "x"}, max_rate=1000, token="t").result()
        client.updates(limit=3)
        client.refuse_load("x", "too big")
        client.register_file("a/b", "/x", sha256="d", name="b", **write).result()
    assert made.requests == [
        requests.ModelList(id="1", filter="size>1GB", sort="-size", fits=True),
        requests.ModelCopy(id="2", source="a", destination="b", dry_run=True, **write),
        requests.ModelMove(id="3", source="a", destination="b", **write),
        requests.ModelRemove(id="4", name="a", force=True, **write),
        requests.ModelVerify(id="5", names=("a", "b"), **write),
        requests.ModelVerify(id="6", all=True),
        requests.ModelRepair(id="7", names=("a",), from_="/x", **write),
        requests.StoreSweep(id="8", dry_run=True, **write),
        requests.StoreScrub(id="9", full=True, due=True, **write),
        requests.StoreMove(id="10", path="/mnt/models", drop_old=True, **write),
        requests.DaemonConfigure(
            id="11", max_rate=0, running_bytes=1, running_fetches=2, waiting_per_peer=3, waiting_total=4
        ),
        requests.JobConfigure(id="12", job="j", priority=5, max_rate=1000),
        requests.ModelFit(id="13", name="a", vram_mb=8192, ram_mb=0),
        requests.ModelProvision(id="14", ref="a", sha256="d", strict=False, directory="/x", offline=True, **write),
        requests.ModelVerifySignature(id="15", name="a", signature="{}", key="PEM", **write),
        requests.ModelVerifySignature(id="16", name="a", signature="{}", roots="PEM"),
        requests.ModelShow(id="17", name="a", provenance=True),
        requests.ModelRegister(id="18", manifest={"model_id": "a"}, name="b"),
        requests.ModelUpdate(id="19", command={"command_id": "x"}, max_rate=1000, token="t"),
        requests.ModelUpdates(id="20", limit=3),
        requests.RefuseLoad(id="21", command_id="x", reason="too big"),
        requests.ModelAdd(id="22", path="/x", known_as="a/b", sha256="d", name="b", link=True, **write),
    ]


def test_the_hello_is_there_at_once(peer: Peer, open_client: Open) -> None:
    with open_client(peer(good).path) as client:
        assert client.hello.server == "modeld/9.9.9"
        assert client.hello.peer.role == "admin"


def test_lists_are_read_to_the_last_page(peer: Peer, open_client: Open) -> None:
    def paged(talk: Conversation, request: Request) -> None:
        assert isinstance(request, requests.ModelList)
        number = int(request.after or 0)
        more = str(number + 1) if number < 2 else None
        talk.result(request, values.ModelList(models=(VIEW,), next=more, damaged=(f"d{number}",)))

    with open_client(peer(paged).path) as client:
        listed = client.list_models()
    assert (len(listed.models), listed.damaged, listed.next) == (3, ("d0", "d1", "d2"), None)


def test_work_tells_how_far_it_is(peer: Peer, open_client: Open) -> None:
    def work(talk: Conversation, request: Request) -> None:
        talk.accepted(request, 2)
        talk.accepted(request, 0)
        talk.progress(request, bytes_done=10, bytes_total=10)
        talk.result(request, ADDED)

    with open_client(peer(work).path) as client, client.add("/x") as adding:
        seen = list(adding)
        assert adding.result() == ADDED
        assert adding.job == "j1"
    assert [type(item) for item in seen] == [replies.Accepted, replies.Accepted, replies.Progress]
    assert [item.position for item in seen if isinstance(item, replies.Accepted)] == [2, 0]


def test_the_outcome_can_be_asked_for_twice(peer: Peer, open_client: Open) -> None:
    def refuse(talk: Conversation, request: Request) -> None:
        talk.fail(request, errors.NoSpace("too little", details={"needed": 3}))

    with open_client(peer(refuse).path) as client:
        adding = client.add("/x")
        for _ in range(2):
            with pytest.raises(errors.NoSpace) as caught:
                adding.result()
            assert caught.value.details == {"needed": 3}


def test_an_error_is_raised_where_the_work_is_iterated(peer: Peer, open_client: Open) -> None:
    def refuse(talk: Conversation, request: Request) -> None:
        talk.accepted(request)
        talk.fail(request, errors.Corrupt("bad bytes"))

    with open_client(peer(refuse).path) as client:
        adding = client.add("/x")
        with pytest.raises(errors.Corrupt):
            list(adding)


def test_requests_are_multiplexed(peer: Peer, open_client: Open) -> None:
    waiting: list[Request] = []

    def late(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            waiting.append(request)
            talk.accepted(request)
        else:
            talk.progress(waiting[0], bytes_done=3, bytes_total=10)
            talk.result(request, STATUS)
            talk.progress(waiting[0], bytes_done=4, bytes_total=10)
            talk.result(waiting[0], ADDED)

    with open_client(peer(late).path) as client:
        adding = client.add("/x")
        assert client.status() == STATUS  # answered while the first one is open, whose replies wait for it
        assert adding.accepted() is not None
        assert adding.result() == ADDED


def test_leaving_early_cancels(peer: Peer, open_client: Open) -> None:
    def slow(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            talk.accepted(request)
        elif not isinstance(request, requests.Cancel):
            good(talk, request)

    made = peer(slow)
    with open_client(made.path) as client:
        with client.add("/x") as adding:
            assert adding.accepted().job == "j1"
        assert client.status() == STATUS
    cancel = made.saw(requests.Cancel)
    assert isinstance(cancel, requests.Cancel)
    assert cancel.target == made.requests[0].id


def test_detaching_does_not_cancel(peer: Peer, open_client: Open) -> None:
    def slow(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            talk.accepted(request)
            talk.progress(request)
        else:
            good(talk, request)

    made = peer(slow)
    with open_client(made.path) as client:
        with client.add("/x") as adding:
            adding.accepted()
            adding.detach()
        assert client.status() == STATUS
    assert not any(isinstance(request, requests.Cancel) for request in made.requests)


def kept(made: ScriptedPeer) -> list[requests.JobConfigure]:
    return [request for request in made.requests if isinstance(request, requests.JobConfigure)]


@pytest.mark.parametrize("accepted", [True, False])
def test_work_that_is_detached_goes_on_when_the_client_ends(peer: Peer, open_client: Open, accepted: bool) -> None:
    """Otherwise the daemon ends it with the connection, as it does with what a person has left."""

    def slow(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            talk.accepted(request, 1)
        else:
            good(talk, request)

    made = peer(slow)
    with open_client(made.path) as client:
        adding = client.add("/x")
        if accepted:
            adding.accepted()
        adding.detach()
    assert [(keep.job, keep.on_disconnect) for keep in kept(made)] == [("j1", "continue")]
    assert not any(isinstance(request, requests.Cancel) for request in made.requests)


def test_what_needs_no_keeping_is_detached_without_a_word(peer: Peer, open_client: Open) -> None:
    def slow(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelPull):
            talk.fail(request, errors.QueueFull("try later"))
        elif isinstance(request, requests.ModelAdd | requests.JobAttach):
            talk.accepted(request)
        else:
            good(talk, request)

    made = peer(slow)
    with open_client(made.path) as client:
        for work in (client.add("/x", on_disconnect="continue"), client.attach("j1"), client.pull("hf:a/b")):
            work.detach()
        client.status()
    assert kept(made) == []


def test_work_that_ends_as_it_is_detached_is_no_fault(peer: Peer, open_client: Open) -> None:
    def quick(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.ModelAdd):
            talk.accepted(request)
        elif isinstance(request, requests.JobConfigure):
            talk.fail(request, errors.InvalidRequest("job j1 is done: it cannot be changed any more"))
        else:
            good(talk, request)

    with open_client(peer(quick).path) as client:
        client.add("/x").detach()
        assert client.status() == STATUS


def test_finished_work_is_not_cancelled(peer: Peer, open_client: Open) -> None:
    made = peer(good)
    with open_client(made.path) as client:
        with client.add("/x") as adding:
            adding.result()
        client.status()
    assert [type(request) for request in made.requests] == [requests.ModelAdd, requests.DaemonStatus]


def test_a_cancel_still_gets_its_terminal_reply(peer: Peer, open_client: Open) -> None:
    opened: list[Request] = []

    def polite(talk: Conversation, request: Request) -> None:
        if isinstance(request, requests.Cancel):
            talk.result(request, values.Done(target=request.target))
            talk.fail(opened[0], errors.Cancelled("as asked"))
        else:
            opened.append(request)
            talk.accepted(request)

    with open_client(peer(polite).path) as client:
        adding = client.add("/x")
        adding.accepted()
        adding.cancel()
        with pytest.raises(errors.Cancelled):
            adding.result()


def test_events_progress_and_gaps_come_as_they_are(peer: Peer, open_client: Open) -> None:
    def events(talk: Conversation, request: Request) -> None:
        talk.raw(
            b'{"type":"event","id":"%s","seq":5,"time":"t","event":"model.new","size":3,"model":"m"}\n'
            % request.id.encode()
        )
        talk.progress(request)
        talk.send(replies.Lagged(id=request.id, dropped=4, resume_from=5))
        talk.result(request, values.EventsEnd(last_seq=9, delivered=1))

    with open_client(peer(events).path) as client:
        subscription = client.subscribe(progress=True)
        event, progress, lagged = list(subscription)
        assert subscription.result().last_seq == 9
    assert event.fields == {"seq": 5, "time": "t", "event": "model.new", "size": 3, "model": "m"}
    assert (progress.job, lagged.dropped, lagged.resume_from) == ("j1", 4, 5)


def test_unknown_replies_and_fields_of_a_newer_daemon_are_ignored(peer: Peer, open_client: Open) -> None:
    def newer(talk: Conversation, request: Request) -> None:
        talk.raw(b'{"type":"weather","id":"%s","sky":"blue"}\n' % request.id.encode())
        talk.raw(b'{"type":"weather"}\n')
        talk.raw(encode(replies.Result(id=request.id, value=STATUS)).replace(b'"state"', b'"mood":1,"state"'))

    with open_client(peer(newer).path) as client:
        assert client.status().state == "ready"


def test_one_class_for_each_code_is_at_hand() -> None:
    for cls in errors.BY_CODE.values():
        assert getattr(modelclient, cls.__name__) is cls
        assert cls.__name__ in dir(modelclient)
    with pytest.raises(AttributeError):
        modelclient.Nonsense  # noqa: B018
