"""Ids that name nobody are refused; all others are taken as they are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.identifiers import PLACEHOLDERS, is_placeholder, record_key, visitor_of

NIL_UUID = "00000000-0000-0000-0000-000000000000"
ZEROS = ["0", "00", "-" * 20, "0000000000000000000000000", "-", "--", NIL_UUID, NIL_UUID.replace("-", "")]
NAMED = [
    *("", " ", "null", "undefined", "none", "nil", "nan", "guest", "anonymous", "anon", "unknown", "n/a", "na", "0"),
    *("-1", "false", "true", "[object object]", "[object Object]", "not_authenticated"),
]


@pytest.mark.parametrize("value", [*NAMED, *ZEROS, *sorted(PLACEHOLDERS)])
def test_a_placeholder_names_nobody_in_any_case_and_padding(value: str) -> None:
    for written in (value, value.upper(), value.title(), f"  {value}\t\n", value + " " * 40, " " * 40 + value):
        assert is_placeholder(written)


@pytest.mark.parametrize(
    "value",
    [
        *("1", "-10", "10", "100", "a", "guest7", "nullable", "Nathan", "anon-1", "00000000000000000001", "user 0"),
        *("019abcde-0000-7000-8000-000000000000", "1" + NIL_UUID[1:], NIL_UUID[:-1] + "1", "null@example.com", "0x0"),
    ],
)
def test_an_id_that_only_looks_like_a_placeholder_names_somebody(value: str) -> None:
    assert not is_placeholder(value)


@settings(deadline=None)
@given(st.text() | st.text(alphabet="0- n/aul", max_size=24))
def test_the_quick_answer_is_that_of_the_definition(value: str) -> None:
    trimmed = value.strip()
    assert is_placeholder(value) == (trimmed.lower() in PLACEHOLDERS or set(trimmed) <= set("0-"))


@pytest.mark.parametrize(
    ("anonymous_id", "user_id", "visitor"),
    [("a", "u", "a"), ("", "u", "u"), ("null", "u", "u"), ("a", "", "a"), ("a", "guest", "a"), ("0", "guest", "")],
)
def test_a_visitor_is_the_anonymous_id_or_the_user_id_or_nobody(anonymous_id: str, user_id: str, visitor: str) -> None:
    assert visitor_of(anonymous_id, user_id) == visitor


def test_the_record_key_names_tenant_and_visitor() -> None:
    assert record_key("acme", "a:b") == "acme:a:b"
