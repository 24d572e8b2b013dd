import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.plan import TrackingPlan
from schemas.reasons import Reason


def plan_of(mode: str = "allow", /, **events: Any) -> TrackingPlan:
    return TrackingPlan.model_validate({"mode": mode, "events": events})


def typed(**properties: Any) -> TrackingPlan:
    return plan_of(**{"shop/order": {"properties": properties}})


def test_a_plan_without_rules_concerns_no_event() -> None:
    plan = TrackingPlan()
    assert not plan.concerns("ui", "click")
    assert plan.check("ui", "click", {"anything": 1}) is None


def test_a_strict_plan_forbids_what_it_does_not_list() -> None:
    plan = plan_of("strict", **{"search/search": {}})
    violation = plan.check("ui", "click", {})
    assert violation == (
        Reason.PLAN_FORBIDDEN_EVENT,
        "eventAction",
        "The event is not in the tenant's tracking plan.",
    )
    assert plan.concerns("ui", "click")
    assert plan.check("search", "search", {"term": 1}) is None
    assert not plan.concerns("search", "search")


def test_a_forbidden_event_is_refused_in_an_allowing_plan() -> None:
    plan = plan_of(**{"ui/click": {"forbidden": True}})
    violation = plan.check("ui", "click", {})
    assert violation is not None
    assert violation.reason is Reason.PLAN_FORBIDDEN_EVENT
    assert plan.check("ui", "hover", {}) is None


@pytest.mark.parametrize(
    ("key", "matching", "other"),
    [
        ("shop/order", ("shop", "order"), ("shop", "Order")),
        ("Search Result Clicked", ("search", "result_click"), ("track", "Search Result Clicked")),
        ("Order Completed", ("track", "Order Completed"), ("track", "Order")),
        ("Order Completed", ("shop", "Order Completed"), ("Order Completed", "shop")),
        ("shop/*", ("shop", "anything"), ("shopping", "order")),
        ("shop/order*", ("shop", "order_paid"), ("shop", "reorder")),
        ("Debug*", ("any", "Debug Printed"), ("Debug", "printed")),
        ("*", ("any", "thing"), None),
    ],
)
def test_a_key_stands_for(key: str, matching: tuple[str, str], other: tuple[str, str] | None) -> None:
    plan = plan_of(**{key: {"forbidden": True}})
    assert plan.concerns(*matching)
    assert other is None or not plan.concerns(*other)


def test_category_and_action_go_before_the_name_and_the_longest_pattern_before_shorter_ones() -> None:
    plan = plan_of(
        **{
            "*": {"forbidden": True},
            "shop/*": {"properties": {"a": {"required": True}}},
            "shop/order*": {"properties": {"b": {"required": True}}},
            "Order": {"properties": {"c": {"required": True}}},
            "shop/Order": {"properties": {"d": {"required": True}}},
        }
    )
    found = [
        violation and violation.field
        for violation in (
            plan.check("shop", "Order", {}),
            plan.check("mall", "Order", {}),
            plan.check("shop", "orders", {}),
            plan.check("shop", "visit", {}),
            plan.check("ui", "click", {}),
        )
    ]
    assert found == ["properties.d", "properties.c", "properties.b", "properties.a", "eventAction"]


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "string"}, ["", "x"], [1, True, [], {}]),
        ({"type": "number"}, [0, -1, 2.5], ["1", True, []]),
        ({"type": "integer"}, [0, -1, 2.0], [2.5, "1", False, math.inf, math.nan]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "object"}, [{}, {"a": 1}], [[], "{}"]),
        ({"type": "array"}, [[], [1]], [{}, "[]"]),
        ({"enum": [True, "no"]}, [True, "no"], [1, False, "true"]),
        ({"enum": ["eur", "usd", 1]}, ["eur", 1], ["EUR", True, 2, [], {}]),
        ({"type": "string", "pattern": "[a-z]+"}, ["abc"], ["", "abc1", "ABC", "abc\n", 1]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "äöü"], ["a", "abcd", 12]),
        ({"type": "string", "minLength": 2}, ["ab"], ["a"]),
        ({"type": "number", "minimum": 0.5}, [0.5, 1], [0, -1]),
        ({}, [1, "x", [], {}, True], []),
    ],
)
def test_a_property_rule_takes_and_refuses(rule: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    plan = typed(p=rule)
    assert [value for value in good if plan.check("shop", "order", {"p": value})] == []
    for value in bad:
        violation = plan.check("shop", "order", {"p": value})
        assert violation is not None, value
        assert violation[:2] == (Reason.PLAN_PROPERTY_TYPE, "properties.p")
    assert plan.check("shop", "order", {}) is None
    assert plan.check("shop", "order", {"p": None}) is None


def test_a_required_property_has_to_be_there_and_not_null() -> None:
    plan = typed(total={"type": "number", "required": True})
    for properties in ({}, {"total": None}):
        assert plan.check("shop", "order", properties) == (
            Reason.PLAN_MISSING_PROPERTY,
            "properties.total",
            "Tracking plan: The property total is missing.",
        )
    assert plan.check("shop", "order", {"total": 0}) is None


def test_a_forbidden_property_is_refused_unless_it_is_null() -> None:
    plan = typed(**{"password": {"forbidden": True}, "secret*": {"forbidden": True}})
    assert plan.check("shop", "order", {"password": None, "pass": "x"}) is None
    for name in ("password", "secret", "secretAnswer"):
        violation = plan.check("shop", "order", {name: "x"})
        assert violation is not None
        assert violation[:2] == (Reason.PLAN_FORBIDDEN_PROPERTY, f"properties.{name}")


def test_without_additional_properties_only_the_listed_ones_pass() -> None:
    plan = plan_of(**{"shop/order": {"additionalProperties": False, "properties": {"total": {}, "utm*": {}}}})
    assert plan.concerns("shop", "order")
    assert plan.check("shop", "order", {"total": "any", "utmSource": 1}) is None
    violation = plan.check("shop", "order", {"total": 1, "x" * 1_000: 1})
    assert violation is not None
    assert violation.reason is Reason.PLAN_FORBIDDEN_PROPERTY
    assert violation.field == "properties." + "x" * 200


@pytest.mark.parametrize(
    "broken",
    [
        {"mode": "forbid"},
        {"events": {"": {}}},
        {"events": {"shop*/x": {}}},
        {"events": {"Search": {}, "search/search": {}}},
        {"events": {"a": {"forbiden": True}}},
        {"events": {"a": {"forbidden": True, "properties": {"p": {}}}}},
        {"events": {"a": {"properties": {"p": {"type": "text"}}}}},
        {"events": {"a": {"properties": {"p": {"type": "string", "pattern": "["}}}}},
        {"events": {"a": {"properties": {"p": {"pattern": "x"}}}}},
        {"events": {"a": {"properties": {"p": {"type": "string", "minimum": 1}}}}},
        {"events": {"a": {"properties": {"p": {"forbidden": True, "required": True}}}}},
        {"events": {"a": {"properties": {"p*": {"required": True}}}}},
        {"events": {"a": {"properties": {"p*q": {}}}}},
    ],
)
def test_a_plan_that_contradicts_itself_or_is_misspelt_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrackingPlan.model_validate(broken)


def test_plans_with_the_same_rules_are_equal_also_after_use() -> None:
    one, other = typed(p={"type": "string"}), typed(p={"type": "string"})
    one.check("shop", "order", {})
    assert one == other


names = st.sampled_from(["shop", "order", "Order", "Search", "search", "ui", "debug"])
keys = names | st.tuples(names, names).map("/".join) | names.map(lambda name: f"{name}*") | st.just("*")
json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
rules = st.sampled_from(
    [{}, {"forbidden": True}, {"required": True}, {"type": "integer"}, {"type": "string", "pattern": "a+"}]
)
event_rules = st.one_of(
    st.just({"forbidden": True}),
    st.fixed_dictionaries(
        {"properties": st.dictionaries(st.sampled_from("pq"), rules), "additionalProperties": st.booleans()}
    ),
)
events = st.dictionaries(keys, event_rules)


@given(st.sampled_from(["allow", "strict"]), events, names, names, st.dictionaries(st.sampled_from("pqr"), json_values))
def test_an_event_that_does_not_concern_the_plan_is_never_refused(
    mode: str, rules_of: dict[str, Any], category: str, action: str, properties: dict[str, Any]
) -> None:
    try:
        plan = plan_of(mode, **rules_of)
    except ValidationError:  # "Search" beside "search/search"
        return
    violation = plan.check(category, action, properties)
    assert violation is None or plan.concerns(category, action)
