"""A rate, of all downloads or of one job, and a priority: changed while downloads run, and told to everybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.chaos_server import unused_port
from rigs.error_codes import assert_speaks
from rigs.held_daemon import HeldDaemon
from rigs.pull_rig import MIB, begun, ctl, gguf, job_state, pull, put
from rigs.real_daemon import RealDaemon, Wire
from rigs.real_jobs import show
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.waiting import wait_until

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

CRAWL = 1000
"""At this rate none of the files below would be here within the hour."""

CONTENT = gguf(8 * MIB + 1, 51)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


def started(wire: Wire, address: str, name: str, **fields: Any) -> tuple[str, str]:
    number = wire.request("model.pull", ref=address, name=name, **fields)
    return number, wire.until(number, "accepted")["job"]


def settings(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    found: dict[str, Any] = reply["value"]["settings"]
    return found


def events(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    return [event for event in daemon.activity() if event["event"] == name]


@needs_nginx
def test_the_limit_over_all_is_lifted_and_what_crawls_runs(stopped: RealDaemon, web: Nginx) -> None:
    stopped.configure(f"[transfer]\nmax_rate = {CRAWL}\n[limits]\nrunning_fetches = 3\n")
    stopped.start()
    addresses = [put(web, f"{number}.gguf", gguf(8 * MIB, number)) for number in range(3)]
    with stopped.connect() as wire, stopped.connect() as watcher:
        watching = watcher.request("events.subscribe", events=["daemon.configured"])
        jobs = [started(wire, address, f"m{number}") for number, address in enumerate(addresses)]
        for _, job in jobs:
            job_state(stopped, job, "running")
        told = stopped.ask("daemon.status")["value"]["transfer"]
        assert (told["max_rate"], told["max_rate_at_start"]) == (CRAWL, CRAWL)
        done = stopped.ask("daemon.configure", max_rate=0)
        assert done["value"] == {
            "settings": {"max_rate": {"old": CRAWL, "new": None, "at_start": CRAWL}},
            "lasts_until": "stop",
            "job": None,
        }
        for _, job in jobs:
            job_state(stopped, job, "done")
        told = watcher.until(watching, "event")
    assert (told["key"], told["old"], told["new"], told["event"]) == ("max_rate", CRAWL, "none", "daemon.configured")
    assert isinstance(told["peer"], int)
    assert "max_rate" not in stopped.ask("daemon.status")["value"]["transfer"]
    stopped.terminate()
    stopped.start()
    assert stopped.ask("daemon.status")["value"]["transfer"]["max_rate"] == CRAWL, "the configuration counts again"


@needs_nginx
def test_a_limit_that_is_set_slows_down_what_runs(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", gguf(64 * MIB, 5))
    assert "transfer" not in daemon.ask("daemon.status")["value"]
    with daemon.connect() as wire:
        # Its own limit lets it run into the other one in its middle, on a machine of any speed.
        number, job = started(wire, address, "a", max_rate=40_000_000)
        begun(wire, number, MIB)
        assert settings(daemon.ask("daemon.configure", max_rate=CRAWL)) == {
            "max_rate": {"old": None, "new": CRAWL, "at_start": None}
        }
        assert settings(daemon.ask("job.configure", job=job, max_rate=0))["max_rate"]["old"] == 40_000_000
        seen = show(daemon, job)
        assert seen["state"] == "running"
        assert seen["progress"]["bytes_done"] < 64 * MIB
        assert "max_rate" not in seen
        daemon.ask("daemon.configure", max_rate=0)
        assert wire.terminal(number)["type"] == "result"


@needs_nginx
def test_a_jobs_own_limit_survives_its_pause_and_the_daemons_death(daemon: RealDaemon, web: Nginx) -> None:
    address = put(web, "a.gguf", CONTENT)
    with daemon.connect() as wire:
        _, job = started(wire, address, "a", max_rate=5_000_000, on_disconnect="continue")
        changed = settings(daemon.ask("job.configure", job=job, max_rate=CRAWL, priority=5))
        assert changed["max_rate"] == {"old": 5_000_000, "new": CRAWL, "at_start": None}
        assert (changed["priority"]["old"], changed["priority"]["new"]) == (3, 5)
    daemon.ask("job.pause", job=job)
    assert daemon.ask("job.resume", job=job)["value"]["max_rate"] == CRAWL
    daemon.kill()
    daemon.start()
    seen = job_state(daemon, job, "running")
    assert (seen["max_rate"], seen["priority"]) == (CRAWL, 5)
    lifted = ctl(daemon, "set", "max_rate=none", "--job", job)
    assert (lifted.returncode, lifted.stdout) == (0, "max_rate  no limit (was 1.00 kB/s)\n"), lifted.stderr
    job_state(daemon, job, "done")
    keys = [(event["key"], event["old"], event["new"]) for event in events(daemon, "job.configured")]
    assert keys == [("priority", 3, 5), ("max_rate", 5_000_000, CRAWL), ("max_rate", CRAWL, "none")]
    assert {event["job"] for event in events(daemon, "job.configured")} == {job}
    assert_speaks(daemon.ask("job.configure", job=job, max_rate=0), "invalid_request", job, "done")


@needs_nginx
def test_a_job_that_is_moved_up_while_it_starves_gets_bytes(stopped: RealDaemon, web: Nginx) -> None:
    """Whoever comes after more important ones has hardly a byte by which it could notice that it is important now. At
    a tenth of the rate, what is left over, it would not end before the other one."""
    stopped.configure("[transfer]\nmax_rate = '1MB'\n[limits]\nrunning_fetches = 2\n")
    stopped.start()
    long, short = put(web, "long.gguf", gguf(12 * MIB, 6)), put(web, "short.gguf", gguf(2 * MIB, 7))
    with stopped.connect() as one, stopped.connect() as two:
        first, rival = started(one, long, "long", priority=1)
        begun(one, first, MIB // 8)
        second, starved = started(two, short, "short", priority=5)
        job_state(stopped, starved, "running")
        assert stopped.ask("job.prioritize", job=starved, priority=1)["value"]["priority"] == 1
        assert settings(stopped.ask("job.configure", job=rival, priority=5))["priority"]["new"] == 5
        assert two.terminal(second)["type"] == "result"
        assert show(stopped, rival)["state"] == "running"


def test_what_cannot_be_configured_is_named(daemon: RealDaemon) -> None:
    path = daemon.file("a.gguf", CONTENT)
    job = daemon.ask("model.add", path=path, name="a")["value"]["job"]
    with daemon.connect() as wire:
        reply = wire.ask("daemon.configure", max_rat=5)
        assert_speaks(reply, "invalid_request", "$.max_rat")
        assert reply["hint"] == "Did you mean max_rate?"
        assert_speaks(wire.ask("daemon.configure", max_rate="20MB"), "invalid_request", "$.max_rate", "int")
        assert_speaks(wire.ask("daemon.configure", max_rate=-1), "invalid_request", "$.max_rate", ">= 0")
        assert_speaks(wire.ask("daemon.configure", max_rate=999), "invalid_request", "$.max_rate", "999", "1000")
        reply = wire.ask("daemon.configure")
        assert_speaks(reply, "invalid_request", "nothing")
        assert "max_rate" in reply["hint"]
        assert_speaks(wire.ask("job.configure", job="none", max_rate=0), "not_found", "none")
        assert_speaks(wire.ask("job.configure", job=job, priority=1), "invalid_request", job, "done")
    assert events(daemon, "daemon.configured") == []


def test_only_a_pull_has_a_rate(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        number = wire.request("model.add", path=held.file("a.gguf", CONTENT), name="a")
        job = wire.until(number, "accepted")["job"]
        assert_speaks(held.ask("job.configure", job=job, max_rate=5000), "invalid_request", "$.max_rate", "model.add")
        assert settings(held.ask("job.configure", job=job, priority=2))["priority"]["new"] == 2
        held.release()
        assert wire.terminal(number)["type"] == "result"


def test_the_command_tells_what_was_and_what_will_be(daemon: RealDaemon) -> None:
    done = ctl(daemon, "set", "max_rate=20MB/s")
    assert (done.returncode, done.stdout) == (0, "max_rate  20.0 MB/s (was no limit)\n")
    assert "until the daemon stops" in done.stderr
    assert "rate limit  20.0 MB/s until the daemon stops (none as configured)" in ctl(daemon, "status").stdout
    assert json.loads(ctl(daemon, "set", "max_rate=0", "--json").stdout)["settings"]["max_rate"]["old"] == 20_000_000
    assert "rate limit" not in ctl(daemon, "status").stdout
    assert ctl(daemon, "log", "-n", "1").stdout.rstrip().endswith("key=max_rate  old=20000000  new=none")
    assert ctl(daemon, "set", "max_rate=5").returncode == 2


@needs_nginx
def test_the_status_tells_which_hosts_are_asked_and_which_are_left_alone(stopped: RealDaemon, web: Nginx) -> None:
    stopped.configure("[limits]\nrunning_fetches = 2\n")
    daemon = stopped.start()
    address = put(web, "a.gguf", CONTENT)
    with daemon.connect() as wire, unused_port() as port:
        dead = f"http://127.0.0.1:{port}"
        number, job = started(wire, address, "a", max_rate=CRAWL)
        wait_until(lambda: [host["host"] for host in hosts(daemon)] == [web.plain], what="a connection in the status")
        assert hosts(daemon)[0]["connections"] >= 1
        assert pull(daemon, f"{dead}/b.gguf")["code"] == "source_unavailable"
        while not any("breaker" in host for host in hosts(daemon)):
            assert pull(daemon, f"{dead}/b.gguf")["code"] == "source_unavailable"
        left_alone = next(host for host in hosts(daemon) if "breaker" in host)
        assert (left_alone["host"], left_alone["breaker"]) == (dead, "open")
        assert 0 < left_alone["next_probe_s"] <= 30
        assert left_alone["since"].endswith("Z")
        shown = ctl(daemon, "status").stdout
        assert f"{dead}: left alone since {left_alone['since']}, asked again in " in shown
        assert f"{web.plain}: " in shown
        daemon.ask("job.configure", job=job, max_rate=0)
        assert wire.terminal(number)["type"] == "result"
    wait_until(lambda: [host["host"] for host in hosts(daemon)] == [dead], what="no connection in the status")


@needs_nginx
def test_more_and_fewer_may_run_from_now_on(stopped: RealDaemon, web: Nginx) -> None:
    stopped.configure("[limits]\nrunning_fetches = 1\nwaiting_total = 1\n")
    stopped.start()
    addresses = [put(web, f"{number}.gguf", gguf(8 * MIB, number)) for number in range(3)]
    with stopped.connect() as wire:
        _, first = started(wire, addresses[0], "a", max_rate=CRAWL)
        second = wire.request("model.pull", ref=addresses[1], name="b")
        assert wire.until(second, "accepted")["position"] == 1
        assert wire.ask("model.pull", ref=addresses[2], name="c")["code"] == "queue_full"
        changed = settings(wire.ask("daemon.configure", waiting_total=2, running_bytes=1))
        assert changed["waiting_total"] == {"old": 1, "new": 2, "at_start": 1}
        third = wire.request("model.pull", ref=addresses[2], name="c")
        assert wire.until(third, "accepted")["position"] == 2
        assert settings(wire.ask("daemon.configure", running_fetches=2))["running_fetches"]["old"] == 1
        wait_until(
            lambda: len(stopped.ask("model.list", filter="state=ready")["value"]["models"]) == 2,
            what="the others run beside it",
        )
        assert show(stopped, first)["state"] == "running"
        assert_speaks(wire.ask("daemon.configure", running_fetches=0), "invalid_request", "$.running_fetches", ">= 1")


@needs_nginx
def test_what_is_on_this_machine_waits_for_no_download(stopped: RealDaemon, web: Nginx) -> None:
    """With one slot of each kind, and one download that would keep its own for hours."""
    stopped.configure("[limits]\nrunning_bytes = 1\nrunning_fetches = 1\n")
    stopped.start()
    slow, path = put(web, "slow.gguf", CONTENT), stopped.file("local.gguf", gguf(MIB, 3))
    with stopped.connect() as wire, stopped.connect() as other:
        _, job = started(wire, slow, "slow", max_rate=CRAWL)
        job_state(stopped, job, "running")
        assert other.ask("model.add", path=path, name="added")["type"] == "result"
        assert other.ask("model.pull", ref=path, name="pulled")["type"] == "result"
        assert other.ask("model.pull", ref="added")["value"]["current"] is True
        assert other.ask("model.verify", names=["added"])["type"] == "result"
        waiting = other.request("model.pull", ref=put(web, "b.gguf", CONTENT), name="b")
        assert other.until(waiting, "accepted")["position"] == 1, "but the next download does"
        assert stopped.ask("daemon.status")["value"]["queue"]["running_by_kind"] == {"model.pull": 1}
        assert show(stopped, job)["state"] == "running"


def hosts(daemon: RealDaemon) -> list[dict[str, Any]]:
    view: dict[str, Any] = daemon.ask("daemon.status")["value"].get("transfer", {})
    return list(view.get("hosts", ()))
