"""The handoff: a small JSON file that tells an engine which model to load, and where it is.

    {"model": {"id": "hf:org/repo/model.gguf", "path": "/srv/models/blobs/sha256/ab/…/data"}}

One file names one model, so several models have a file each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Final

from modelclient.provisioning import replacing
from modelwire.errors import InvalidRequest, NotFound

DEFAULT: Final = os.path.join(".runtime", "engines", "llamacpp.json")
"""Below the base."""


def targets(count: int, *, base: str | None = None, handoff: str | None = None) -> tuple[str, ...]:
    """The absolute paths of the handoffs of so many models, in the order of their documents: the named file for the
    first, and the same with `-2`, `-3`, … before its extension for those that follow.

    `handoff` names the file, from the working directory; without it the file is the default one below `base`, whose
    default is the working directory.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        raise NotFound(
            f"the working directory is not there: {error.strerror}", hint="Change to a directory that exists."
        ) from None
    first = os.path.join(here, base or "", DEFAULT) if handoff is None else os.path.join(here, handoff)
    stem, extension = os.path.splitext(first)
    return tuple(first if number == 1 else f"{stem}-{number}{extension}" for number in range(1, count + 1))


def check_all(targets: Sequence[str]) -> None:
    """Raises a WireError when handoffs cannot be written to these targets, before hours of downloads. Leaves nothing.
    Blocks."""
    replacing.check_all([_checked("target", target) for target in targets])


def write_all(handoffs: Sequence[tuple[str, str, str]]) -> None:
    """Writes handoffs, each given by its target, the model's id and the model's path: all of them, or none. Blocks.

    On return they are on stable storage. After an error each target is as it was; what a kill or a power cut can leave
    stands in `modelclient.provisioning.replacing`. Raises a WireError.
    """
    replacing.replace_all([(_checked("target", target), _content(model, path)) for target, model, path in handoffs])


def _content(model: str, path: str) -> bytes:
    if not model:
        raise InvalidRequest("a handoff needs the id of its model", hint="Give the model's id.")
    content = {"model": {"id": model, "path": _checked("model's path", path)}}
    try:
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the model {model!r} at {path!r} cannot be handed over: JSON holds Unicode only",
            hint="Move the store to a path in UTF-8.",
            details={"path": path},
        ) from None


def _checked(what: str, path: str) -> str:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        bad = True
    else:
        bad = "\0" in path
    if bad or not os.path.isabs(path):
        why = "is not a path" if bad else "is not absolute"
        raise InvalidRequest(
            f"the {what} {path!r} of a handoff {why}", hint="Give an absolute path.", details={"path": path}
        )
    return path
