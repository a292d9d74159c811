"""`modelctl provision`, the whole way: from a file of YAML through a real daemon to the handoff of an engine."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import anyio
import pytest

import modelclient
from modelwire.errors import DigestMismatch
from modelwire.values import Provisioned
from rigs.command import Ctl
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, gguf

CONTENT, OTHER = gguf(MIB, 31), gguf(MIB, 32)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
WRONG = "0" * 64
DEFAULT = Path(".runtime", "engines", "llamacpp.json")


@pytest.fixture
def model(ctl: Ctl) -> Path:
    path = ctl.room / "m.gguf"
    path.write_bytes(CONTENT)
    return path


def expecting(ref: str, digest: str | None = None, *, strict: bool = True) -> str:
    text = f"model_ref: {ref}\nstrict_verification: {'true' if strict else 'false'}\n"
    return text if digest is None else text + f'expected_digest: {{algo: sha256, value: "{digest}"}}\n'


def config(ctl: Ctl, *documents: str) -> str:
    path = ctl.room / "models.yaml"
    path.write_text("---\n".join(documents))
    return str(path)


def base(ctl: Ctl) -> Path:
    path = ctl.room / "base"
    path.mkdir(exist_ok=True)
    return path


def provision(ctl: Ctl, *documents: str, **environ: str) -> tuple[int, str]:
    done = ctl("provision", config(ctl, *documents), "--base", str(base(ctl)), environ=environ or None)
    return done.returncode, done.stderr


def handed(ctl: Ctl, file: Path = DEFAULT) -> tuple[str, bytes]:
    model = json.loads((base(ctl) / file).read_bytes())["model"]
    assert set(model) == {"id", "path"}
    assert os.path.isabs(model["path"])
    return model["id"], Path(model["path"]).read_bytes()


@pytest.mark.parametrize("digest", [None, DIGEST])
def test_a_good_file(ctl: Ctl, model: Path, digest: str | None) -> None:
    code, said = provision(ctl, expecting(str(model), digest))
    assert (code, "warning" in said) == (0, False)
    assert handed(ctl) == (f"local:{model}", CONTENT)
    model.write_bytes(OTHER)
    assert handed(ctl)[1] == CONTENT, "the store's path stays what was verified"


def test_a_path_starts_where_the_caller_is(ctl: Ctl, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctl.json("add", str(model), "--name", "other")
    monkeypatch.chdir(ctl.room)
    for ref in ("./m.gguf", "m.gguf"):
        assert ctl("provision", config(ctl, expecting(ref, DIGEST))).returncode == 0
        content = json.loads((ctl.room / DEFAULT).read_bytes())
        assert content["model"]["id"] == f"local:{ctl.room}/m.gguf"


def test_a_wrong_digest_that_is_strict(ctl: Ctl, model: Path) -> None:
    assert provision(ctl, expecting(str(model), DIGEST))[0] == 0
    before = (base(ctl) / DEFAULT).read_bytes()
    code, said = provision(ctl, expecting(str(model), WRONG))
    assert code == 6
    assert WRONG in said
    assert (base(ctl) / DEFAULT).read_bytes() == before
    assert model.read_bytes() == CONTENT
    (refused,) = [each for each in ctl.json("show", "m")["history"] if (each.get("details") or {}).get("strict")][-1:]
    assert (refused["outcome"], refused["expected"], refused["actual"]) == (
        "mismatch",
        f"sha256:{WRONG}",
        f"sha256:{DIGEST}",
    )


def test_no_handoff_is_made_when_there_was_none(ctl: Ctl, model: Path) -> None:
    assert provision(ctl, expecting(str(model), WRONG))[0] == 6
    assert list(base(ctl).iterdir()) == []


def test_a_wrong_digest_that_is_not_strict(ctl: Ctl, model: Path) -> None:
    code, said = provision(ctl, expecting(str(model), WRONG, strict=False))
    assert code == 0
    assert "warning" in said
    assert WRONG in said
    assert DIGEST in said
    assert handed(ctl) == (f"local:{model}", CONTENT)
    view = ctl.json("show", "m")
    assert (view["state"], view["node"]["status"], view["catalogue_state"]) == ("ready", "ready", "failed")
    assert WRONG in view["reason"]


def test_a_file_that_is_missing(ctl: Ctl) -> None:
    code, said = provision(ctl, expecting(str(ctl.room / "gone.gguf")))
    assert (code, "gone.gguf" in said) == (3, True)
    assert list(base(ctl).iterdir()) == []
    assert provision(ctl, expecting("gone"))[0] == 3


def test_several_models_are_handed_over_all_or_none(ctl: Ctl, model: Path) -> None:
    other = ctl.room / "other.gguf"
    other.write_bytes(OTHER)
    good = expecting(str(model), DIGEST)
    assert provision(ctl, good, expecting(str(other), WRONG))[0] == 6
    assert list(base(ctl).iterdir()) == []
    assert provision(ctl, good, expecting(str(other)))[0] == 0
    assert handed(ctl) == (f"local:{model}", CONTENT)
    assert handed(ctl, DEFAULT.with_name("llamacpp-2.json")) == (f"local:{other}", OTHER)


def test_a_wrong_file_asks_for_nothing(ctl: Ctl, model: Path) -> None:
    code, said = provision(ctl, expecting(str(model)), "model_ref: x\nunknown: 1\n")
    assert code == 2
    assert "line 5" in said
    assert "unknown" in said
    assert not Path(ctl.socket).exists(), "no daemon was started for it"


def test_a_handoff_and_the_answer_for_programs(ctl: Ctl, model: Path) -> None:
    target = ctl.room / "deep" / "er" / "engine.json"
    (made,) = ctl.json("provision", config(ctl, expecting(str(model), DIGEST)), "--handoff", str(target))
    assert (made["id"], made["digest"], made["outcome"]) == (f"local:{model}", f"sha256:{DIGEST}", "match")
    assert json.loads(target.read_bytes()) == {"model": {"id": made["id"], "path": made["local_path"]}}


def test_a_reference_to_the_hub_and_again_offline(ctl: Ctl) -> None:
    repo = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}))
    with Hub({"org/repo": repo}) as hub:
        ctl.environ["HF_ENDPOINT"] = hub.url
        assert provision(ctl, expecting("hf:org/repo/m.gguf", DIGEST))[0] == 0
        assert handed(ctl) == ("hf:org/repo/m.gguf", CONTENT)
        asked = len(hub.server.asked) + len(hub.cdn.asked)
        words = ("provision", config(ctl, expecting("hf:org/repo/m.gguf", DIGEST)), "--base", str(base(ctl)))
        assert ctl(*words, "--offline").returncode == 0
        unknown = ("provision", config(ctl, expecting("hf:org/other/m.gguf")), "--base", str(base(ctl)))
        assert ctl(*unknown, "--offline").returncode == 10
        assert len(hub.server.asked) + len(hub.cdn.asked) == asked
        before = (base(ctl) / DEFAULT).read_bytes()
        assert provision(ctl, expecting("hf:org/repo/m.gguf", WRONG))[0] == 6
        assert (base(ctl) / DEFAULT).read_bytes() == before


def test_fetched_bytes_of_another_digest_are_kept_apart(ctl: Ctl) -> None:
    repo = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}))
    with Hub({"org/repo": repo}) as hub:
        ctl.environ["HF_ENDPOINT"] = hub.url
        assert provision(ctl, expecting("hf:org/repo/m.gguf", WRONG))[0] == 6
        assert ctl.json("list") == []


@pytest.mark.parametrize("strict", [True, False])
def test_a_digest_of_several_files_is_refused_before_they_are_fetched(ctl: Ctl, strict: bool) -> None:
    files = {"a.gguf": CONTENT, "config.json": b"{}"}
    with Hub({"org/several": Repo(files, lfs=frozenset({"a.gguf"}))}) as hub:
        ctl.environ["HF_ENDPOINT"] = hub.url
        code, said = provision(ctl, expecting("hf:org/several", DIGEST, strict=strict))
        assert (code, "a digest is of one" in said) == (2, True)
        assert hub.cdn.asked == []
        assert provision(ctl, expecting("hf:org/several"))[0] == 0
        words = ("provision", config(ctl, expecting("hf:org/several", DIGEST, strict=strict)), "--base", str(base(ctl)))
        done = ctl(*words, "--offline")
        assert (done.returncode, "a digest is of one" in done.stderr) == (2, True)


def test_a_bad_target_is_found_before_anything_is_fetched(ctl: Ctl, model: Path) -> None:
    file, directory, old = ctl.room / "file", ctl.room / "directory", ctl.room / "old.json"
    file.write_text("a file")
    old.write_text("an engine")
    directory.mkdir()
    good = config(ctl, expecting(str(model)), expecting(str(model)))
    for target, code in ((file / "below.json", 2), (directory, 2), (Path("/proc/none/below.json"), 3)):
        done = ctl("provision", good, "--handoff", str(target))
        assert done.returncode == code, done.stderr
        assert str(target.parent) in done.stderr
    (ctl.room / "old-2.json").symlink_to(old)
    done = ctl("provision", good, "--handoff", str(old))
    assert (done.returncode, "the same target" in done.stderr) == (2, True)
    assert not Path(ctl.socket).exists(), "no daemon was started for it"
    assert (file.read_text(), old.read_text(), list(directory.iterdir())) == ("a file", "an engine", [])


def test_the_library(ctl: Ctl, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctl.json("list")
    monkeypatch.chdir(ctl.room)
    with modelclient.Client(ctl.socket) as client:
        made = client.ensure_present("m.gguf", DIGEST)
        assert (made.id, made.outcome, Path(made.local_path).read_bytes()) == (f"local:{model}", "match", CONTENT)
        with pytest.raises(DigestMismatch):
            client.ensure_present("m.gguf", WRONG)
        assert client.ensure_present(made.name, WRONG, False).outcome == "mismatch"


def test_the_library_in_a_loop(ctl: Ctl, model: Path) -> None:
    ctl.json("list")

    async def ensure() -> Provisioned:
        async with modelclient.connect(ctl.socket) as client:
            return await client.ensure_present(str(model), strict=False)

    assert anyio.run(ensure).outcome == "unchecked"
