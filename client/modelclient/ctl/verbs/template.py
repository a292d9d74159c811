"""`template ID`: the document of a well-known model, to be filled in. It needs no daemon."""

from __future__ import annotations

import argparse
import json
import uuid
from typing import Any

import msgspec

from modelclient.ctl.session import Session
from modelclient.ctl.table import columns
from modelwire.knowledge.document import now
from modelwire.knowledge.estimates import vram_by_formula
from modelwire.knowledge.templates import TEMPLATES, template
from modelwire.vocabulary import PRIORITY_DEFAULT


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="the template; without it all are listed")
    parser.add_argument("--quantization", metavar="Q", help="how the weights are stored, such as Q4_K_M")
    parser.add_argument("--update", action="store_true", help="print a command for `modelctl update` with the document")


def run(session: Session, args: argparse.Namespace) -> None:
    if args.id is None:
        made = [template(each, args.quantization) for each in TEMPLATES]
        rows = ((each.model_id, each.model_type, each.format, each.quantization, each.name) for each in made)
        text = columns(("ID", "TYPE", "FORMAT", "QUANTIZATION", "NAME"), rows)
        session.show_list(made, quiet=list(TEMPLATES), text=text, none="")
        return
    document = template(args.id, args.quantization)
    content = msgspec.to_builtins(document)
    if args.update:
        content = _command(content)
    session.show(content, quiet=[document.model_id], text=json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if not session.raw:
        params = document.params_billions or None
        megabytes = vram_by_formula(params, document.quantization, document.requirements.recommended_vram_mb)
        session.note(f"its file is called {document.file_name}")
        session.note(f"it takes {megabytes} MB of video memory, by {_rule(params)}")


def _command(document: dict[str, Any]) -> dict[str, Any]:
    """With an id of its own; `sha256` and `download_url` are left to be filled in."""
    return {
        "command_id": str(uuid.uuid4()),
        "manifest": {**document, "download_url": ""},
        "target_nodes": [],
        "priority": PRIORITY_DEFAULT,
        "auto_load": True,
        "timestamp": now(),
    }


def _rule(params: float | None) -> str:
    return "its own recommendation" if params is None else "the rule of thumb for its parameters and quantization"
