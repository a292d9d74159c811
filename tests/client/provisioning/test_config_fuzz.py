"""Provision files of any bytes: each is read or refused with a typed error, and what a program writes is read."""

from __future__ import annotations

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelclient.provisioning.config import parse
from modelwire.errors import InvalidDigest, InvalidRequest

HEX = "0123456789abcdef" * 4

PARTS = st.sampled_from(
    [
        *(
            "model_ref",
            "expected_digest",
            "strict_verification",
            "algo",
            "value",
            "sha256",
            HEX,
            "true",
            "yes",
            "1",
            "x",
        ),
        *(
            ": ",
            ":",
            "\n",
            "\n  ",
            "  ",
            "---",
            "\n---\n",
            "\n...\n",
            "- ",
            "? ",
            ", ",
            "[",
            "]",
            "{",
            "}",
            "\t",
            "\r\n",
        ),
        *(
            '"',
            "'",
            "\\",
            "\\x0",
            "\\u12",
            "\\UFFFFFFFF",
            "|",
            ">",
            "|2-\n",
            "%YAML 1.1\n",
            "%TAG ! !x\n",
            "%",
            "@",
            "`",
        ),
        *(
            "&a ",
            "*a",
            "!",
            "!!",
            "!<",
            "!a!b",
            "#",
            " #",
            "<<",
            "=",
            "~",
            "0b1",
            "12:30",
            "2026-01-31",
            "\ufeff",
            "\x85",
        ),
        *(
            "\u2028",
            "\ud7ff",
            "\x7f",
            "\0",
            "é",
            "😀",
            "%ZZ",
            "!%41",
            "model_ref: x\n",
            "expected_digest: {algo: sha256, ",
        ),
    ]
)
NEAR_YAML = st.lists(PARTS, max_size=30).map("".join).map(str.encode)


@settings(max_examples=1500, deadline=None)
@example(b"!%ff x")
@example(b"! !<%> x")
@given(
    st.one_of(
        NEAR_YAML, st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
    )
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """And what is read is what a plain loader reads."""
    try:
        models = parse(data, "models.yaml")
    except (InvalidRequest, InvalidDigest):
        return
    assert [
        {
            "model_ref": model.model_ref,
            "expected_digest": model.expected_digest and {"algo": "sha256", "value": model.expected_digest[7:]},
            "strict_verification": model.strict_verification,
        }
        for model in models
    ] == [
        {"expected_digest": None, "strict_verification": True, **document}
        for document in yaml.safe_load_all(data.decode("utf-8-sig"))
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"model_ref": st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)},
            optional={
                "expected_digest": st.fixed_dictionaries(
                    {"algo": st.just("sha256"), "value": st.text("0123456789abcdef", min_size=64, max_size=64)}
                ),
                "strict_verification": st.booleans(),
            },
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_what_a_program_writes_is_read(documents: list[dict[str, object]], plain: bool) -> None:
    data = yaml.safe_dump_all(documents, allow_unicode=plain, default_flow_style=plain).encode()
    assert [model.model_ref for model in parse(data, "models.yaml")] == [each["model_ref"] for each in documents]
