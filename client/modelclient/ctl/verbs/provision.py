"""`provision FILE`: brings in the models that a file lists, and hands them over to an engine."""

from __future__ import annotations

import argparse
from functools import partial

from modelclient.ctl import submit
from modelclient.ctl.follow import follow, supervise
from modelclient.ctl.output import command, option, short_digest
from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.errors import Cancelled
from modelwire.values import Provisioned

HEADINGS = ("NAME", "OUTCOME", "SHA-256", "HANDOFF")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="a YAML document for each model")
    parser.add_argument("--handoff", metavar="FILE", help="write the id and the path of the model to this file")
    parser.add_argument(
        "--base", metavar="DIR", help="write them below this directory, as .runtime/engines/llamacpp.json (default: .)"
    )
    parser.add_argument("--offline", action="store_true", help="open no connection; use only what this machine has")


def run(session: Session, args: argparse.Namespace) -> None:
    from modelclient.provisioning import config, handoff

    models = config.read(args.config)
    targets = handoff.targets(len(models), base=args.base, handoff=args.handoff)
    handoff.check_all(targets)
    client, made = session.client(), list[Provisioned]()
    for model in models:
        start = partial(
            client.provision,
            submit.sendable(model.model_ref, "reference"),
            digest=model.expected_digest,
            strict=model.strict_verification,
            offline=args.offline,
        )
        supervise(
            session,
            start,
            lambda work: made.append(follow(session, work)),
            lambda work, _: submit.interruption(session, work, lambda words: _stopped(words, args)),
        )
        if made[-1].warning is not None and not session.raw:
            session.note(f"warning: {made[-1].warning}")
    handoff.write_all([(target, each.id, each.local_path) for target, each in zip(targets, made, strict=True)])
    session.show_list(
        made,
        quiet=[each.name for each in made],
        text=columns(HEADINGS, map(_row, made, targets)),
        none="",
    )


def _row(made: Provisioned, target: str) -> tuple[str, ...]:
    return (made.name, made.outcome, short_digest(made.digest), target)


def _stopped(what: str, args: argparse.Namespace) -> Cancelled:
    words = [each for name in ("handoff", "base") if (value := getattr(args, name)) for each in option(name, value)]
    words += ["--offline"] if args.offline else []
    return Cancelled(
        f"interrupted: {what}; no handoff was written, and what has arrived is kept",
        hint=f"To go on from there, run `{command('provision', [args.config], words)}` again.",
    )
