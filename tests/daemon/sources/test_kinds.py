"""What each registered kind says of itself, and that docs/sources.md says it too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modeld.config.settings import MIRRORED
from modeld.sources.kind import Kind, NetworkKind
from modeld.sources.kinds import KINDS

PAGE = Path(__file__).parents[3] / "docs" / "sources.md"


def sections() -> dict[str, str]:
    """By the word in backticks that their titles begin with."""
    parts = re.split(r"^## `([a-z0-9-]+)`", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_no_two_kinds_are_mistaken_for_each_other() -> None:
    for told in ([kind.name for kind in KINDS], [kind.reference for kind in KINDS]):
        assert len(set(told)) == len(KINDS)
    sites = [site for kind in KINDS for site in kind.sites]
    assert len(set(sites)) == len(sites)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_comes_over_a_network_has_a_source(kind: Kind) -> None:
    assert kind.reference.network == isinstance(kind, NetworkKind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_configuration_takes_mirrors_of_exactly_the_kinds_that_have_them(kind: Kind) -> None:
    forms = [form for forms in kind.forms for form in forms.split(", ")]
    assert [form for form in forms if form.startswith(MIRRORED) is not isinstance(kind, NetworkKind)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_has_its_section_in_the_documentation(kind: Kind) -> None:
    section = sections()[kind.name]
    for forms in kind.forms:
        for form in forms.split(", "):
            assert f"`{form}`" in section
    if isinstance(kind, NetworkKind):
        assert "\nCredentials: " in section
        assert "\nMirrors: " in section


def test_the_documentation_has_no_kind_that_is_not_registered() -> None:
    assert set(sections()) == {kind.name for kind in KINDS}
