"""`status`: how the daemon is. Never starts one."""

from __future__ import annotations

import argparse

from modelclient.ctl.output import count
from modelclient.ctl.session import Session
from modelclient.ctl.table import pairs
from modelwire.units import rounded_duration, rounded_rate, rounded_size
from modelwire.values import HostView, MoveView, RecoveryView, ScrubView, Status, SweepView, TransferView


def run(session: Session, _: argparse.Namespace) -> None:
    status = session.client(start=False, any_store=True).status()
    session.show(status, quiet=[status.state], text=pairs(_rows(status)))


def _rows(status: Status) -> list[tuple[str, str | None]]:
    queue = status.queue
    reserved = f", {rounded_size(status.reserved_bytes)} reserved" if status.reserved_bytes else ""
    started = "started by a client" if status.auto_started else "started"
    lost = f", {count(status.log.lost, 'line')} lost" if status.log.lost else ""
    return [
        ("state", status.state),
        ("daemon", f"{status.server}, pid {status.pid}, {started} {rounded_duration(status.uptime_s)} ago"),
        ("endpoint", status.socket),
        ("store", f"{status.store}: {_room(status)}{reserved}"),
        ("jobs", f"{queue.running} running, {queue.waiting} waiting (room for {queue.capacity})"),
        ("sweep", _sweep(status.sweep)),
        ("scrub", _scrub(status.scrub)),
        ("move", _move(status.move)),
        ("moved", _former(status.move)),
        ("rate limit", _rate_limit(status.transfer)),
        *[("host", _host(host)) for host in (status.transfer.hosts if status.transfer else ())],
        ("clients", f"{status.connections} connected, {status.watchers} watching"),
        ("log", f"{status.log.path}, line {status.log.last_seq}{lost}"),
        ("log error", status.log.last_error),
        ("recovery", _recovery(status.recovery)),
        *[("warning", warning) for warning in status.warnings],
    ]


def _room(status: Status) -> str:
    """The contents of the store. While it cannot be read, the daemon reports the models that it saw last."""
    if status.free_bytes is None:
        return "it cannot be read now"
    return f"{count(status.models, 'model')}, {rounded_size(status.free_bytes)} free"


def _rate_limit(now: TransferView | None) -> str | None:
    """Over all downloads; and the one after a restart, when that differs."""
    if now is None or (now.max_rate is None and now.max_rate_at_start is None):
        return None
    shown, at_start = (rounded_rate(rate) or "none" for rate in (now.max_rate, now.max_rate_at_start))
    return shown if shown == at_start else f"{shown} until the daemon stops ({at_start} as configured)"


def _sweep(own: SweepView | None) -> str | None:
    """When the daemon gives space back by itself. With nothing to come and nothing done there is nothing to show."""
    if own is None or own.mode == "off":
        return None if own is None else "only on request ([store] sweep is off)"
    said = []
    if own.error is not None:
        said.append(f"the last one failed: {own.error}")
    if own.running:
        said.append("running now")
    elif own.next_at is not None:
        said.append(f"next at {own.next_at}, a look at {count(own.waiting, 'blob')} that lost a name")
    if own.last_at is not None:
        said.append(f"last at {own.last_at}, {rounded_size(own.last_freed_bytes)} freed")
    return "; ".join(said) or None


def _scrub(own: ScrubView | None) -> str | None:
    """How far the daemon is with reading all bytes again, or when it begins."""
    if own is None:
        return None
    said = []
    if own.job is not None:
        read = f"{rounded_size(own.bytes_done)} of {rounded_size(own.bytes_total or own.bytes_done)} read"
        said.append(f"{read} (job {own.job}){_held_up(own)}")
    elif own.mode == "off":
        said.append("only on request ([scrub] every is none)")
    elif own.next_at is not None:
        said.append(f"next at {own.next_at}")
    if own.last_at is not None:
        bad = f", {count(own.last_failed, 'bad blob')} found" if own.last_failed else ""
        said.append(f"last at {own.last_at}, {count(own.last_checked, 'blob')} read{bad}")
    return "; ".join(said) or None


def _move(own: MoveView | None) -> str | None:
    if own is None or own.job is None:
        return None
    copied = f"{rounded_size(own.bytes_done)} of {rounded_size(own.bytes_total or own.bytes_done)}"
    paused = f", paused: modelctl resume {own.job}" if own.paused else ""
    return f"to {own.path}, {copied} copied (job {own.job}){paused}"


def _former(own: MoveView | None) -> str | None:
    if own is None or not own.former:
        return None
    return f"the store was in {', '.join(own.former)}; to remove that: modelctl store move --drop-old"


def _held_up(own: ScrubView) -> str:
    if own.paused:
        return f", paused: modelctl resume {own.job}"
    return ", waiting for other work" if own.waits else ""


def _host(host: HostView) -> str:
    said = [count(host.connections, "connection")] if host.connections else []
    if host.breaker == "open":
        said.append(f"left alone since {host.since}, asked again in {rounded_duration(host.next_probe_s or 0)}")
    elif host.breaker is not None:
        who = "being asked once by one" if host.probing else "to be asked once by the next who needs it"
        said.append(f"left alone since {host.since}, now {who}")
    return f"{host.host}: {', '.join(said)}"


def _recovery(found: RecoveryView) -> str | None:
    """What the daemon found and mended when it started, when there was anything."""
    said = []
    if found.staging_removed:
        left = count(found.staging_removed, "left-over")
        said.append(f"{left} removed ({rounded_size(found.staging_bytes)})")
    if found.jobs_resumed:
        said.append(f"{count(found.jobs_resumed, 'job')} resumed")
    if found.models_failed:
        said.append(f"failed: {', '.join(found.models_failed)}")
    if found.catalog_set_aside:
        said.append(f"a damaged catalogue was set aside as {found.catalog_set_aside}")
    said += found.notes
    return "; ".join(said) or None
