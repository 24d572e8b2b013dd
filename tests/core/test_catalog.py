import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.catalog import (
    FIRST_CLASS,
    FIRST_CLASS_NAMES,
    check_properties,
    is_first_class,
    name_to_category_action,
)
from schemas.reasons import Reason

EXAMPLES = sorted((Path(schemas.__file__).parent / "examples").glob("*.json"))
VIN = "1HGCM82633A004352"


def example_of(category: str, action: str) -> dict[str, Any]:
    for path in EXAMPLES:
        event: dict[str, Any] = json.loads(path.read_text())
        if (event.get("eventCategory"), event.get("eventAction")) == (category, action):
            return event
    raise AssertionError(f"schemas/examples has no {category}/{action}")


@pytest.mark.parametrize("name", FIRST_CLASS, ids="/".join)
def test_every_first_class_event_has_a_valid_example(name: tuple[str, str]) -> None:
    assert check_properties(*name, example_of(*name)["properties"]) is None


@pytest.mark.parametrize("name", FIRST_CLASS, ids="/".join)
def test_a_required_property_that_is_absent_or_null_is_named(name: tuple[str, str]) -> None:
    properties = example_of(*name)["properties"]
    for required in [key for key, rule in FIRST_CLASS[name].items() if rule.required]:
        absent = {key: value for key, value in properties.items() if key != required}
        for broken in (absent, {**properties, required: None}):
            violation = check_properties(*name, broken)
            assert violation is not None
            assert violation.field == f"properties.{required}"
            assert violation.reason is Reason.PROPERTY_SCHEMA
            assert violation.message == f"The property {required} is missing."


@pytest.mark.parametrize("name", FIRST_CLASS, ids="/".join)
def test_a_property_of_another_type_is_named(name: tuple[str, str]) -> None:
    properties = example_of(*name)["properties"]
    for listed in FIRST_CLASS[name]:
        violation = check_properties(*name, {**properties, listed: ["a list"]})
        assert violation is not None
        assert violation.field == f"properties.{listed}"


@pytest.mark.parametrize("name", FIRST_CLASS, ids="/".join)
def test_properties_that_are_not_listed_pass(name: tuple[str, str]) -> None:
    assert check_properties(*name, {**example_of(*name)["properties"], "ours": {"deep": [1]}, "": None}) is None


@pytest.mark.parametrize(
    ("name", "properties", "field"),
    [
        (("search", "search"), {"term": "oil", "results": 0}, None),
        (("search", "search"), {"term": ""}, None),
        (("search", "search"), {"term": "oil", "results": 3.0}, None),
        (("search", "search"), {"term": "oil", "results": None}, None),
        (("search", "search"), {"term": "oil", "results": -1}, "results"),
        (("search", "search"), {"term": "oil", "results": 2.5}, "results"),
        (("search", "search"), {"term": "oil", "results": True}, "results"),
        (("search", "search"), {"term": "oil", "results": "3"}, "results"),
        (("search", "search"), {"term": 7}, "term"),
        (("search", "result_click"), {"term": "oil", "resultId": "m", "rank": 1}, None),
        (("search", "result_click"), {"term": "oil", "resultId": "m", "rank": 0}, "rank"),
        (("content", "view"), {"contentType": "video", "contentId": "v"}, None),
        (("content", "view"), {"contentType": "Video", "contentId": "v"}, "contentType"),
        (("content", "view"), {"contentType": "video", "contentId": ""}, "contentId"),
        (("content", "feedback"), {"contentId": "v", "helpful": 1}, "helpful"),
        (("vehicle", "selected"), {"vin": VIN}, None),
        (("vehicle", "selected"), {"vin": VIN[:-1]}, "vin"),
        (("vehicle", "selected"), {"vin": VIN + "X"}, "vin"),
        (("vehicle", "selected"), {"vin": VIN, "year": "2003"}, "year"),
        (("diagnostic", "step"), {"flow": "f", "step": "s", "outcome": "passed"}, None),
        (("diagnostic", "step"), {"flow": "f", "step": "s", "outcome": "ok"}, "outcome"),
        (("diagnostic", "step"), {"flow": "f", "step": "s", "recommendationFollowed": "yes"}, "recommendationFollowed"),
        (("subscription", "started"), {"plan": "pro", "seats": -1}, "seats"),
        (("report", "exported"), {"anything": object()}, None),
    ],
)
def test_the_catalog_says(name: tuple[str, str], properties: dict[str, Any], field: str | None) -> None:
    violation = check_properties(*name, properties)
    assert (violation and violation.field) == (field and f"properties.{field}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
listed_names = sorted({name for rules in FIRST_CLASS.values() for name in rules})


@given(st.sampled_from(list(FIRST_CLASS)), st.dictionaries(st.sampled_from(listed_names) | st.text(), json_values))
def test_whatever_json_the_properties_are_the_answer_is_none_or_a_listed_property(
    name: tuple[str, str], properties: dict[str, Any]
) -> None:
    violation = check_properties(*name, properties)
    assert violation is None or violation.field.removeprefix("properties.") in FIRST_CLASS[name]


def test_only_listed_pairs_are_first_class() -> None:
    assert is_first_class("search", "search")
    assert not is_first_class("search", "SEARCH")
    assert not is_first_class("track", "Checkout")


@pytest.mark.parametrize("spelling", [str, str.upper, str.title])
def test_every_first_class_name_leads_to_a_first_class_event_in_any_case(spelling: Any) -> None:
    for name, pair in FIRST_CLASS_NAMES.items():
        assert name_to_category_action(spelling(name), "elsewhere") == pair
        assert is_first_class(*pair)
    assert set(FIRST_CLASS_NAMES.values()) == set(FIRST_CLASS)


def test_another_name_is_the_action_in_the_category_that_was_sent_or_track() -> None:
    assert name_to_category_action("Order Completed", None) == ("track", "Order Completed")
    assert name_to_category_action("Order Completed", "") == ("track", "Order Completed")
    assert name_to_category_action("Order Completed", "shop") == ("shop", "Order Completed")
