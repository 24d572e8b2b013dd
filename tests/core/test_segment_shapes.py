from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.segment import flatten_context, name_event, properties_of, put_page
from schemas.context import CONTEXT_FIELDS
from schemas.sent import SentEvent

SEGMENT_CONTEXT = {
    "page": {
        "url": "https://x.example/a?b",
        "path": "/a",
        "title": "A",
        "referrer": "https://y.example/",
        "search": "?b",
    },
    "campaign": {"source": "news", "medium": "email", "name": "autumn", "term": "brake", "content": "top"},
    "library": {"name": "analytics.js", "version": "2.1"},
    "app": {"name": "Portal", "version": "4.2", "build": "99"},
    "os": {"name": "iOS", "version": 17.5},
    "screen": {"width": 1170, "height": 2532, "density": 3},
    "device": {"type": "ios", "model": "iPhone"},
    "userAgent": "Mozilla/5.0",
    "ip": "203.0.113.77",
    "timezone": "Europe/Berlin",
    "locale": "de-DE",
    "referrer": {"type": "ad", "id": "42"},
    "traits": {"plan": "pro"},
    "active": True,
}


def sent(**fields: Any) -> SentEvent:
    return SentEvent.model_validate({"type": "track", "anonymousId": "a", **fields})


def test_segments_nested_context_becomes_our_flat_one() -> None:
    assert flatten_context(SEGMENT_CONTEXT) == {
        "url": "https://x.example/a?b",
        "path": "/a",
        "title": "A",
        "referrer": "https://y.example/",
        "utmSource": "news",
        "utmMedium": "email",
        "utmCampaign": "autumn",
        "utmTerm": "brake",
        "utmContent": "top",
        "library": "analytics.js",
        "libraryVersion": "2.1",
        "app": "Portal",
        "appVersion": "4.2",
        "os": "iOS",
        "osVersion": "17.5",
        "screenResolution": "1170x2532",
        "deviceType": "mobile",
        "userAgent": "Mozilla/5.0",
        "ip": "203.0.113.77",
        "timezone": "Europe/Berlin",
        "locale": "de-DE",
    }


def test_every_flat_context_field_is_taken_as_it_is() -> None:
    flat = {name: f"{name} of the client" for name in CONTEXT_FIELDS}
    assert flatten_context(flat) == flat


def test_a_flat_field_goes_before_segments_object_in_either_order() -> None:
    assert flatten_context({"url": "flat", "page": {"url": "nested"}})["url"] == "flat"
    assert flatten_context({"page": {"url": "nested"}, "url": "flat"})["url"] == "flat"


def test_context_text_is_cut_at_2048_characters() -> None:
    assert flatten_context({"title": "x" * 3_000, "page": {"url": "y" * 3_000}}) == {
        "title": "x" * 2_048,
        "url": "y" * 2_048,
    }


@given(
    st.dictionaries(
        st.sampled_from((*CONTEXT_FIELDS, *SEGMENT_CONTEXT)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(("name", "version", "url", "width", "height", "type")), inner, max_size=3
                )
            ),
            max_leaves=5,
        ),
    )
)
def test_no_context_is_refused_and_every_field_is_known_text(context: dict[str, Any]) -> None:
    flat = flatten_context(context)
    assert set(flat) <= set(CONTEXT_FIELDS)
    assert all(isinstance(text, str) and text for text in flat.values())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"type": "page"}, ("page", "view")),
        ({"type": "screen"}, ("screen", "view")),
        ({"type": "identify"}, ("identity", "identify")),
        ({"type": "alias"}, ("identity", "alias")),
        ({"type": "group"}, ("identity", "group")),
        ({"type": "page", "eventCategory": "help"}, ("help", "view")),
        ({"eventCategory": "search", "eventAction": "search"}, ("search", "search")),
        ({"event": "Search Performed"}, ("search", "search")),
        ({"event": "Brake Selected"}, ("track", "Brake Selected")),
        ({"event": "Brake Selected", "properties": {"category": "parts"}}, ("parts", "Brake Selected")),
        ({"event": "Brake Selected", "properties": {"category": 5}}, ("track", "Brake Selected")),
        ({"event": "Brake Selected", "properties": {"category": "c" * 201}}, ("track", "Brake Selected")),
        ({"event": "Brake Selected", "eventCategory": "own"}, ("own", "Brake Selected")),
        ({"eventAction": "opened"}, ("track", "opened")),
        ({}, None),
        ({"event": ""}, None),
        ({"eventCategory": "search"}, None),
    ],
)
def test_an_event_is_named_by_its_own_names_then_by_its_type(
    fields: dict[str, Any], name: tuple[str, str] | None
) -> None:
    assert name_event(sent(**fields)) == name


def test_traits_group_and_category_are_taken_as_properties() -> None:
    group = sent(type="group", groupId=42, traits={"name": "Acme"})
    assert properties_of(group) == {"groupId": "42", "name": "Acme"}
    page = sent(type="page", category="docs", properties={"path": "/a"})
    assert properties_of(page) == {"category": "docs", "path": "/a"}
    assert properties_of(sent()) == {}
    assert properties_of(sent(properties={"category": "own"}, category="other")) == {"category": "own"}


def test_a_page_takes_its_address_from_its_properties_where_the_context_has_none() -> None:
    page = sent(type="page", properties={"url": "https://x.example/", "title": "T", "path": {}, "search": "?q"})
    assert put_page({"title": "own"}, page) == {"title": "own", "url": "https://x.example/"}
    context = {"url": "own", "title": "own"}
    assert put_page(context, page) is context
    assert put_page(context, sent(properties={"path": "/a"})) is context
