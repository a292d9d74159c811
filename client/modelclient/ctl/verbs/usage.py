"""`usage`: the space that the models take."""

from __future__ import annotations

import argparse

from modelclient.ctl.arguments import size
from modelclient.ctl.output import count
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns, pairs
from modelwire.units import rounded_size
from modelwire.values import DiskUsage, EvictionPlan, ModelUsage, Usage, UserUsage

HEADINGS = ("NAME", "SIZE", "OWN", "SHARED")


USER_HEADINGS = ("UID", "MODELS", "SIZE", "QUOTA")
PLAN_HEADINGS = ("NAME", "FREES", "LAST USED", "SOURCE")
STAY_HEADINGS = ("STAYS", "SIZE", "BECAUSE")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan",
        metavar="SIZE",
        type=size,
        help="show what would have to go to make room for so many bytes, such as 20GB; nothing is removed",
    )
    parser.add_argument("--by", choices=("model", "user"), default="model", help="whose bytes to show (default: model)")


def run(session: Session, args: argparse.Namespace) -> None:
    usage = session.client().usage(plan_bytes=args.plan)
    if usage.plan is not None:
        _show_plan(session, usage, usage.plan)
        return
    if args.by == "user":
        rows = [_user(user) for user in usage.users]
        text = columns(USER_HEADINGS, rows, right=USER_HEADINGS[1:]) if rows else ""
        session.show(usage, quiet=[uid for uid, *_ in rows], text=text)
        return
    table = columns(HEADINGS, map(_row, usage.models), right=HEADINGS[1:]) + "\n" if usage.models else ""
    session.show(usage, quiet=[str(usage.on_disk_bytes or usage.physical_bytes)], text=table + pairs(_totals(usage)))


def _show_plan(session: Session, usage: Usage, plan: EvictionPlan) -> None:
    tables = []
    if plan.evict:
        rows = ((each.name, rounded_size(each.frees_bytes), each.used_at, each.source) for each in plan.evict)
        tables.append(columns(PLAN_HEADINGS, rows, right=("FREES",)))
    if plan.stay:
        kept = ((each.name, rounded_size(each.size_bytes), each.reason) for each in plan.stay)
        tables.append(columns(STAY_HEADINGS, kept, right=("SIZE",)))
    session.show(usage, quiet=[each.name for each in plan.evict], text="\n".join(tables))
    if not session.json:
        session.note(_sentence(plan))
        for note in plan.notes:
            session.note(note)


def _sentence(plan: EvictionPlan) -> str:
    needed, available = rounded_size(plan.needed_bytes), rounded_size(plan.available_bytes)
    if not plan.evict:
        return f"{needed} {'fit' if plan.enough else 'do not fit'}: {available} are free for the store"
    models = f"{count(len(plan.evict), 'model')} would free {rounded_size(plan.frees_bytes)}"
    return f"{needed} need more than the {available} that are free: {models}{'' if plan.enough else ', too little'}"


def _user(user: UserUsage) -> tuple[str, ...]:
    uid = "not known" if user.uid is None else str(user.uid)
    quota = "none" if user.quota_bytes is None else rounded_size(user.quota_bytes)
    return uid, str(user.models), rounded_size(user.size_bytes), quota


def _row(model: ModelUsage) -> tuple[str, ...]:
    return (
        model.name,
        rounded_size(model.logical_bytes),
        rounded_size(model.own_bytes),
        rounded_size(model.shared_bytes),
    )


def _totals(usage: Usage) -> list[tuple[str, str | None]]:
    """A total of zero is left out, except for the first two."""
    disk = usage.disk or DiskUsage()
    rest = [
        ("shared by several", usage.shared_bytes),
        ("of no model", usage.unnamed_bytes),
        ("in quarantine", usage.quarantine_bytes),
        ("partial downloads", usage.partial_bytes),
        ("other unfinished", usage.staging_bytes - usage.partial_bytes),
        ("trees", disk.trees),
        ("catalogue", disk.catalogue),
        ("everything else", disk.other),
    ]
    return [
        ("all models", rounded_size(usage.logical_bytes)),
        ("on the disk", rounded_size(usage.on_disk_bytes or usage.physical_bytes)),
        *((word, rounded_size(count) if count else None) for word, count in rest),
        ("free", None if usage.free_bytes is None else rounded_size(usage.free_bytes)),
    ]
