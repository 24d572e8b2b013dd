"""The checks that save work refuse just what the plain ones refuse."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.properties import PropertyRule, PropertyRules, PropertyType, parse_properties

TYPES: list[PropertyType] = ["string", "number", "integer", "boolean", "object", "array"]
NAMES = st.sampled_from("abc")
RULES = st.one_of(
    st.builds(PropertyRule, type=st.none() | st.sampled_from(TYPES), required=st.booleans()),
    st.builds(PropertyRule, type=st.sampled_from(["number", "integer"]), minimum=st.just(1.0)),
    st.builds(PropertyRule, type=st.just("string"), min_length=st.just(1), pattern=st.just("x+")),
    st.builds(PropertyRule, enum=st.just((1, "x", True)), required=st.booleans()),
    st.just(PropertyRule(forbidden=True)),
)
VALUES = st.sampled_from([None, "", "x", "y", 0, 1, 3, 0.5, 3.0, True, False, {}, [], {"a": 1}, [1]])


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(NAMES, RULES), st.dictionaries(NAMES, VALUES))
def test_rules_asked_for_properties_find_the_fault_of_properties_asked_for_rules(
    rules: dict[str, PropertyRule], properties: dict[str, Any]
) -> None:
    # A pattern among the rules makes each property be asked.
    expected = PropertyRules({**rules, "other*": PropertyRule()}).find_fault(properties)
    assert PropertyRules(rules).find_fault(properties) == expected


def parsed(parse: Any, text: str) -> str:
    try:
        return repr(parse(text))
    except (ValueError, RecursionError) as error:
        return type(error).__name__


PIECES = ["{", "}", "[", "]", ":", ",", '"', "a", '"a"', '"a":', "1", "-", "0", ".", "e5", "NaN", "Infinity", "\\", " "]
ODD = [
    '{"a":NaN}',
    '{"a":-Infinity,"a":2}',
    '{"a":1e400}',
    '{"a":12345678901234567890123}',
    '{"a":"\\ud800"}',
    '"\x01"',
]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
@example("[" * 100_000)
@example("1" * 5_000)
def test_properties_are_parsed_as_the_standard_library_parses_them(text: str) -> None:
    assert parsed(parse_properties, text) == parsed(json.loads, text)


@pytest.mark.parametrize("text", ODD)
def test_odd_json_is_parsed_as_the_standard_library_parses_it(text: str) -> None:
    assert parsed(parse_properties, text) == parsed(json.loads, text)
