"""Headers of strangers: read, or passed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.download.http import headers
from modeld.download.source import strong

AT = "Sat, 21 Nov 2026 10:00:00 GMT"
LATER = "Sat, 21 Nov 2026 10:00:01 GMT"


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


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": '"a-gzip"'}, '"a-gzip"'),
        ({"ETag": '"a"', "Last-Modified": AT, "Date": AT}, '"a"'),
        ({"ETag": 'W/"a"'}, None),
        ({"ETag": 'w/"a"'}, None),
        ({"ETag": "a"}, None),
        ({"ETag": '""'}, None),
        ({"ETag": '"a", "b"'}, None),
        ({"ETag": 'W/"a"', "Last-Modified": AT, "Date": LATER}, AT),
        ({"Last-Modified": AT, "Date": LATER}, AT),
        ({"Last-Modified": AT, "Date": AT}, None),
        ({"Last-Modified": LATER, "Date": AT}, None),
        ({"Last-Modified": AT}, None),
        ({"Last-Modified": AT, "Date": "now"}, None),
        ({"Last-Modified": "long ago", "Date": LATER}, None),
        ({"Last-Modified": "Sat, 41 Nov 2026 10:00:00 GMT", "Date": LATER}, None),
        ({"Last-Modified": f"{AT}, {LATER}", "Date": LATER}, None),
        ({}, None),
    ],
)
def test_only_what_two_versions_cannot_share_proves_a_version(told: dict[str, str], expected: str | None) -> None:
    assert strong(headers.validator_of(told)) == expected


@pytest.mark.parametrize("told", [{"ETag": 'W/"a"'}, {"Last-Modified": AT, "Date": AT}, {"Last-Modified": AT}])
def test_what_proves_no_version_still_shows_that_two_differ(told: dict[str, str]) -> None:
    shown = headers.validator_of(told)
    assert shown is not None
    assert shown.startswith("W/")


@given(
    st.dictionaries(
        st.sampled_from(["Link", "Digest", "Repr-Digest", "Content-Disposition", "ETag", "Date"]), st.text()
    )
)
def test_any_header_is_read_or_passed_over(told: dict[str, str]) -> None:
    headers.next_page(told)
    headers.digest_of(told)
    headers.filename_of(told)
    headers.validator_of(told)
    assert headers.number(told.get("ETag")) is None or told["ETag"].strip().isdigit()
