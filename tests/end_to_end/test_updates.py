"""Update commands on a real daemon that is killed while an engine has not answered yet."""

from __future__ import annotations

from end_to_end.test_names_killed import all_ended
from rigs.command import run
from rigs.pull_rig import job_state
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import held_name
from rigs.update_commands import ALWAYS, command, content, digits
from rigs.waiting import wait_until


def test_an_engine_that_was_asked_has_to_answer_also_after_a_kill(stopped: RealDaemon) -> None:
    stopped.configure('[node]\nload_within = "60s"\n')
    stopped.start()
    path = stopped.file("m.gguf", content("1.0"))
    given = command("1.0", download_url=f"file:{path}")
    with stopped.connect() as watching, stopped.connect() as asking:
        number = watching.request("events.subscribe", events=["model.load_requested"])
        asking.request("model.update", command=given)
        event = watching.until(number, "event")
        assert (event["model"], event["command"]) == ("m-3b-1_0-q4_k_m", given["command_id"])
        stopped.kill()
    stopped.configure('[node]\nload_within = "1s"\n')
    stopped.start()
    wait_until(lambda: all_ended(stopped), what="the end of the job")
    answer = stopped.ask("model.update", command=given)
    assert (answer["code"], answer["details"]["outcome"]) == ("timeout", "failed"), answer
    assert stopped.ask("model.resolve", name="m-3b")["code"] == "not_found"
    assert stopped.ask("model.resolve", name="m-3b-1_0-q4_k_m")["type"] == "result", "the version stays"


def test_an_engine_that_comes_back_after_a_kill_is_asked_again(stopped: RealDaemon) -> None:
    stopped.start()
    path = stopped.file("m.gguf", content("1.0"))
    given = command("1.0", download_url=f"file:{path}")
    with stopped.connect() as watching, stopped.connect() as asking:
        number = watching.request("events.subscribe", events=["model.load_requested"])
        asking.request("model.update", command=given)
        watching.until(number, "event")
        stopped.kill()
    stopped.start()
    with stopped.connect() as watching, stopped.connect() as other:
        number = watching.request("events.subscribe", events=["model.load_requested"])
        event = watching.until(number, "event")
        assert other.ask("lease.acquire", name=event["model"])["type"] == "result"
        wait_until(lambda: all_ended(stopped), what="the end of the job")
    answer = stopped.ask("model.update", command=given)["value"]
    assert (answer["outcome"], answer["loaded"], answer["repeated"]) == ("applied", True, True)
    assert stopped.ask("model.resolve", name="m-3b")["value"]["blob"] == f"sha256:{digits('1.0')}"


def test_a_job_says_how_the_command_ended(daemon: RealDaemon) -> None:
    daemon.ask("model.add", path=daemon.file("m.gguf", content("1.0")), name="m-0b")
    missing = f"file:{daemon.file('m.gguf', content('1.0'))}.missing"
    made = daemon.ask("model.update", command=command("2.0", {"rollback_model_id": "m-0b"}, download_url=missing))
    job = made["value"]["job"]
    attached = run("attach", job, environ=daemon.environ)
    assert attached.returncode == 1
    assert run("job", job, environ=daemon.environ).stdout == attached.stdout
    rows = dict(line.split(None, 1) for line in attached.stdout.splitlines() if line)
    assert (rows["outcome"], rows["error"].split(":")[0]) == ("rolled back", "source_not_found")


def test_a_failure_says_what_it_leaves(daemon: RealDaemon) -> None:
    address = f"file:{daemon.root}.missing"
    for end in ("with another id.", "That was the outcome at"):
        failed = daemon.ask("model.update", command=command("2.0", ALWAYS, download_url=address))
        assert (failed["code"], failed["retryable"]) == ("source_not_found", False)
        assert "'m-3b' was not moved. To try again, send a command with another id." in failed["hint"]
        assert end in failed["hint"]


def test_a_rollback_model_that_is_known_by_an_id_is_held_after_a_kill_too(daemon: RealDaemon) -> None:
    older = daemon.file("older.gguf", content("0.0"))
    added = daemon.ask("model.add", path=older, name="older", known_as="acme/the older one")
    assert added["type"] == "result", added
    address = f"file:{daemon.file('m.gguf', content('1.0'))}"
    given = command("1.0", {"rollback_model_id": "acme/the older one"}, download_url=address)
    with held_name(daemon, "m-3b"), daemon.connect() as wire:
        job = wire.until(wire.request("model.update", command=given), "accepted")["job"]
        assert daemon.ask("job.pause", job=job)["type"] == "result"
        wait_until(lambda: daemon.ask("job.show", job=job)["value"]["state"] == "paused", 20, "it is paused")
        assert daemon.ask("model.remove", name="older")["code"] == "in_use"
        daemon.kill()
        daemon.start()
        refused = daemon.ask("model.remove", name="older")
        assert refused["code"] == "in_use"
        assert job in refused["message"] + (refused["hint"] or "")
    daemon.ask("job.resume", job=job)
    assert job_state(daemon, job, "failed", "done")["state"] == "done"
    assert daemon.ask("model.remove", name="older")["type"] == "result"
