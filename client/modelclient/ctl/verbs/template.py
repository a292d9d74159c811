"""`template ID`: the document of a well-known model, to be filled in. It needs no daemon."""

from __future__ import annotations

import argparse
import json

import msgspec

from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.knowledge.estimates import vram_by_formula
from modelwire.knowledge.templates import TEMPLATES, template


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="the template; without it all are listed")
    parser.add_argument("--quantization", metavar="Q", help="how the weights are stored, such as Q4_K_M")


def run(session: Session, args: argparse.Namespace) -> None:
    if args.id is None:
        made = [template(each, args.quantization) for each in TEMPLATES]
        rows = ((each.model_id, each.model_type, each.format, each.quantization, each.name) for each in made)
        text = columns(("ID", "TYPE", "FORMAT", "QUANTIZATION", "NAME"), rows)
        session.show_list(made, quiet=list(TEMPLATES), text=text, none="")
        return
    document = template(args.id, args.quantization)
    content = msgspec.to_builtins(document)
    session.show(content, quiet=[document.model_id], text=json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if not session.raw:
        params = document.params_billions or None
        megabytes = vram_by_formula(params, document.quantization, document.requirements.recommended_vram_mb)
        session.note(f"its file is called {document.file_name}")
        session.note(f"it takes {megabytes} MB of video memory, by {_rule(params)}")


def _rule(params: float | None) -> str:
    return "its own recommendation" if params is None else "the rule of thumb for its parameters and quantization"
