"""What registries want before they answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modeld.sources.registries.challenge import Challenge, challenges


@given(st.text(max_size=80))
def test_any_challenge_is_read_or_passed_over(header: str) -> None:
    assert isinstance(challenges(header), list)


def test_challenges_as_registries_write_them() -> None:
    realm = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'
    assert challenges(realm) == [
        Challenge(
            "bearer",
            {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull"},
        )
    ]
    assert [each.scheme for each in challenges('Basic realm="x, y", Bearer realm=z')] == ["basic", "bearer"]
    assert challenges("Basic")[0].scheme == "basic"
    assert challenges(r'Basic realm="a\"b"')[0].parameters == {"realm": 'a"b'}
