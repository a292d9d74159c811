"""Which conditions and orders there are, what they let through, and how a wrong one is named."""

from __future__ import annotations

import pytest

from modeld.store.manifests.query import Query, Row
from modelwire.errors import InvalidRequest
from modelwire.values import ModelView

NOW = 1_000_000_000.0
DAY = 86_400.0


def row(name: str = "llama:8b", size: int = 10, form: str = "gguf", state: str = "ready", used: float = NOW) -> Row:
    view = ModelView(name=name, format=form, blob="sha256:" + "a" * 64, size_bytes=size, state=state)  # type: ignore[arg-type]
    return Row(view, used, NOW)


ROWS = [
    row("llama:8b", 5_000_000_000),
    row("Llama2", 999_999_999, used=NOW - 31 * DAY),
    row("phi", 1_000_000_000, "safetensors", "failed", NOW - 1),
    row("x.y-z", 0, "onnx", "suspect", NOW - 400 * DAY),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ["llama:8b", "Llama2", "phi", "x.y-z"]),
        ("", ["llama:8b", "Llama2", "phi", "x.y-z"]),
        (" , ", ["llama:8b", "Llama2", "phi", "x.y-z"]),
        ("size>1GB", ["llama:8b"]),
        ("size>=1GB", ["llama:8b", "phi"]),
        ("size<1GB", ["Llama2", "x.y-z"]),
        ("size<=0", ["x.y-z"]),
        ("size=0", ["x.y-z"]),
        ("size!=0", ["llama:8b", "Llama2", "phi"]),
        ("format=gguf", ["llama:8b", "Llama2"]),
        ("format=GGUF", ["llama:8b", "Llama2"]),
        ("format!=gguf", ["phi", "x.y-z"]),
        ("format~safe|onnx", ["phi", "x.y-z"]),
        ("name~^llama", ["llama:8b", "Llama2"]),
        ("name~^llama$", []),
        ("name~l.*b$", ["llama:8b"]),
        ("name!~a", ["phi", "x.y-z"]),
        ("name=LLAMA2", ["Llama2"]),
        (r"name~x\.y", ["x.y-z"]),
        ("name~[x-z][.]", ["x.y-z"]),
        ("state=failed", ["phi"]),
        ("state!=ready", ["phi", "x.y-z"]),
        ("state~^[fs]", ["phi", "x.y-z"]),
        ("used>30d", ["Llama2", "x.y-z"]),
        ("used<1h", ["llama:8b", "phi"]),
        ("size>1kB,used>30d", ["Llama2"]),
        ("size>1kB used>30d", ["Llama2"]),
        ("  size > 1kB ,, used>30d ", ["Llama2"]),
        ('name="phi"', ["phi"]),
        ('name~"a{1,2}m"', ["llama:8b", "Llama2"]),
    ],
)
def test_conditions(text: str | None, names: list[str]) -> None:
    query = Query.parse(text, None)
    assert [each.view.name for each in ROWS if query.accepts(each)] == names


@pytest.mark.parametrize(
    ("text", "named", "why"),
    [
        ("foo=1", "'foo=1'", "there is no key 'foo'; the keys are name, format, state, pinned, size, used"),
        ("size", "'size'", "KEY OPERATOR VALUE"),
        ("format=gguf, >3", "'>3'", "KEY OPERATOR VALUE"),
        ("size>", "'size>'", "KEY OPERATOR VALUE"),
        ("size>many", "'size>many'", "expected a size"),
        ("size~5", "'size~5'", "size is compared with = != < <= > >="),
        ("used>soon", "'used>soon'", "expected a duration"),
        ("name<b", "'name<b'", "name is compared with = != ~ !~"),
        ("state=fine", "'state=fine'", "there is no state 'fine'; the states are available"),
        ("name~[a", "'name~[a'", "it is no pattern"),
        ("name~(a+)+", "'name~(a+)+'", "no groups"),
        (r"name~(?P<x>a)", "(?P<x>a)", "no groups"),
        (r"name~\d", r"'name~\\d'", "a backslash stands only before"),
        ("name~a**", "'name~a**'", "follows another repetition"),
        ("name~" + "a" * 101, "name~aaa", "at most 100 characters"),
        ('name="a"b', "follows it", "without a comma or a space"),
        ('name="a', "name=", "KEY OPERATOR VALUE"),
        ("x" * 1001, "1001 characters", "1000 are allowed"),
    ],
)
def test_a_wrong_condition_is_named(text: str, named: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Query.parse(text, None)
    assert caught.value.message.startswith("$.filter: ")
    assert named in caught.value.message
    assert why in caught.value.message
    assert "size>1GB" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (None, ["Llama2", "llama:8b", "phi", "x.y-z"]),
        ("-name", ["x.y-z", "phi", "llama:8b", "Llama2"]),
        ("size", ["x.y-z", "Llama2", "phi", "llama:8b"]),
        ("-size", ["llama:8b", "phi", "Llama2", "x.y-z"]),
        ("format", ["Llama2", "llama:8b", "x.y-z", "phi"]),
        ("-format", ["phi", "x.y-z", "Llama2", "llama:8b"]),
        ("state", ["phi", "Llama2", "llama:8b", "x.y-z"]),
        ("used", ["x.y-z", "Llama2", "phi", "llama:8b"]),
    ],
)
def test_orders_and_equal_ones_by_name(sort: str | None, names: list[str]) -> None:
    assert [each.view.name for each in Query.parse(None, sort).sorted(ROWS)] == names


@pytest.mark.parametrize("sort", ["", "weight", "--size", "Size"])
def test_a_wrong_order_is_named(sort: str) -> None:
    if sort == "":
        assert Query.parse(None, sort).sorted(ROWS) == Query.parse(None, "name").sorted(ROWS)
        return
    with pytest.raises(InvalidRequest, match=r"^\$\.sort: there is no order by"):
        Query.parse(None, sort)
