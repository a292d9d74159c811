"""A hub with one repository and one file, as locations of an nginx: for the hub's own client and for ours."""

from __future__ import annotations

import json
import os
import sys

REPO = "bench/model"
FILE = "model.gguf"
COMMIT = "c0ffee" + "0" * 34


def locations(path: str, size: int, digest: str) -> str:
    told = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": FILE}]}
    lfs = {"oid": digest, "size": size, "pointerSize": 134}
    tree = [{"type": "file", "path": FILE, "size": size, "oid": COMMIT, "lfs": lfs}]
    json_reply = "default_type application/json; return 200"
    return f"""
        location = /api/models/{REPO}/revision/main {{ {json_reply} '{json.dumps(told)}'; }}
        location = /api/models/{REPO}/tree/{COMMIT} {{ {json_reply} '{json.dumps(tree)}'; }}
        location ~ ^/{REPO}/resolve/(main|{COMMIT})/{FILE}$ {{
            add_header X-Repo-Commit {COMMIT};
            add_header X-Linked-Etag '"{digest}"';
            add_header X-Linked-Size {size};
            default_type application/octet-stream;
            alias {path};
        }}"""


def client(endpoint: str, directory: str) -> tuple[str, ...] | None:
    """The hub's own command, which does not hash what it fetches; None when it is not installed here."""
    command = os.path.join(os.path.dirname(sys.executable), "hf")
    if not os.path.exists(command):
        return None
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": f"{directory}/hf",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    assigned = [f"{name}={value}" for name, value in settings.items()]
    return ("env", *assigned, command, "download", REPO, FILE, "--force-download", "--local-dir", directory)
