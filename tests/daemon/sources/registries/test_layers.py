"""From manifests to files: each packing, and what strangers write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeld.sources.registries.layers import files_of
from modeld.sources.registries.source import choose
from modelwire.errors import SourceUnavailable, Unsupported, WireError
from rigs.registries import CNCF, OCI_MANIFEST

HEX = "0" * 64


def layer(media_type: str, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{HEX}", "size": 5, **more}


def named(path: str) -> dict[str, Any]:
    return {"annotations": {"org.cncf.model.filepath": path}}


def test_dockers_models() -> None:
    ai = "application/vnd.docker.ai."
    found = files_of(
        {
            "layers": [
                layer(ai + "gguf.v3"),
                layer(ai + "gguf.v3.mmproj"),
                layer(ai + "license"),
                layer(ai + "chat.template.jinja"),
            ]
        },
        "x",
    )
    assert [(each.path, each.role) for each in found] == [
        ("model.gguf", "weights"),
        ("mmproj.gguf", "mmproj"),
        ("LICENSE", "license"),
        ("chat_template.jinja", "tokenizer"),
    ]
    shards = [layer(ai + "gguf.v3", digest=f"sha256:{number * 64}") for number in "123"]
    assert [each.path for each in files_of({"layers": shards}, "x")] == [
        f"model-0000{number}-of-00003.gguf" for number in "123"
    ]
    v2 = [layer(ai + "safetensors", **named("m.safetensors")), layer(ai + "model.file", **named("config.json"))]
    assert [(each.path, each.role) for each in files_of({"layers": v2}, "x")] == [
        ("m.safetensors", "weights"),
        ("config.json", "config"),
    ]


@pytest.mark.parametrize(
    ("layers", "kind", "said"),
    [
        ([layer(CNCF + "weight.v1.tar", **named("m"))], Unsupported, "packed into archives"),
        ([layer(CNCF + "weight.v1.tar+gzip", **named("m"))], Unsupported, "packed into archives"),
        (
            [layer("application/vnd.docker.ai.gguf.v3"), layer("application/vnd.docker.ai.vllm.config.archive.v1+tar")],
            Unsupported,
            "packed into archives",
        ),
        ([layer("application/vnd.oci.image.layer.v1.tar+gzip")], Unsupported, "has no weights.*image.layer"),
        ([], Unsupported, "has no weights"),
        ([layer(CNCF + "weight.v1.raw", **named("../../etc/passwd"))], SourceUnavailable, "no model can have"),
        ([layer(CNCF + "weight.v1.raw", **named("/abs"))], SourceUnavailable, "no model can have"),
        ([layer(CNCF + "weight.v1.raw", digest="sha256:../../x")], SourceUnavailable, "digest of an unknown form"),
        ([layer(CNCF + "weight.v1.raw", digest="sha512:00")], SourceUnavailable, "digest of an unknown form"),
        ([layer(CNCF + "weight.v1.raw", digest=5)], SourceUnavailable, "without digest and size"),
        ([layer(CNCF + "weight.v1.raw", size=-1)], SourceUnavailable, "without digest and size"),
        ([layer(CNCF + "weight.v1.raw", size="5")], SourceUnavailable, "without digest and size"),
        ("none", SourceUnavailable, "no list of layers"),
        ([5], SourceUnavailable, "no list of layers"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused_with_the_reason(
    layers: Any, kind: type[WireError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        files_of({"layers": layers}, "oci://h/r")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from([f"sha256:{HEX}", CNCF + "weight.v1.raw"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["layers", "mediaType", "digest", "size", "annotations", "name", "config"]), inner
        )
    ),
    max_leaves=12,
)


# On a machine that does much else the first draw of a recursive strategy takes seconds: no fault of what is tested.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["layers", "config"]), JSON))
def test_any_manifest_gives_files_or_an_error_of_the_wire(manifest: dict[str, Any]) -> None:
    try:
        files_of(manifest, "x")
    except WireError:
        return


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from(["digest", "mediaType", "platform", "runner", "annotations"]), JSON)))
def test_any_list_of_children_has_a_choice_or_none(children: list[dict[str, Any]]) -> None:
    chosen = choose(children)
    assert chosen is None or chosen in children


def test_models_come_before_containers_and_statements_are_none() -> None:
    def child(number: int, **more: object) -> dict[str, Any]:
        return {"mediaType": OCI_MANIFEST, "digest": f"sha256:{str(number) * 64}", **more}

    container = child(1, platform={"os": "linux", "architecture": "amd64"})
    statement = child(2, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    model = child(3, artifactType="application/vnd.cncf.model.manifest.v1+json")
    assert choose([container, statement, model]) is model
    assert choose([statement, container]) is container
    assert choose([statement]) is None
