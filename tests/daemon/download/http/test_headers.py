"""Headers of strangers: read, or passed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.download.http import headers


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('<https://h/2>; rel="next"', "https://h/2"),
        ("<https://h/2>; rel=next", "https://h/2"),
        ('<https://h/1>; rel="prev", <https://h/3>; rel="last next"; title="x, y"', "https://h/3"),
        ('<https://h/1>; rel="nextish"', None),
        ('<https://h/1>; rel="prev"', None),
        ("", None),
    ],
)
def test_the_next_page(link: str, expected: str | None) -> None:
    assert headers.next_page({"Link": link}) == expected


@given(st.dictionaries(st.sampled_from(["Link", "Digest", "Repr-Digest", "Content-Disposition", "ETag"]), st.text()))
def test_any_header_is_read_or_passed_over(told: dict[str, str]) -> None:
    headers.next_page(told)
    headers.digest_of(told)
    headers.filename_of(told)
    headers.validator_of(told)
    assert headers.number(told.get("ETag")) is None or told["ETag"].strip().isdigit()
