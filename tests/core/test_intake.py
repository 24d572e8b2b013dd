import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.answers import RequestRefused
from collector.arrival import Arrival, Sender
from collector.batch import parse_batch
from collector.intake import Intake, take
from collector.limits import MAX_EVENT_LETTER, MAX_RECORD_TEXT
from schemas.context import CONTEXT_FIELDS
from schemas.reasons import Reason
from tests.collecting import NOW_MS, event, events_of, letters_of, records_of

SENDER = Sender("203.0.113.77", "DE", "Mozilla/5.0")
ARRIVAL = Arrival("acme", SENDER, NOW_MS, lambda: "minted")


def take_body(body: Any, kind: str | None = None, sender: Sender = SENDER) -> Intake:
    numbers = iter(range(1_000_000))
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return take(parse_batch(text, kind), Arrival("acme", sender, NOW_MS, lambda: f"minted-{next(numbers)}"))


def context_of(taken: Intake, index: int = 0) -> dict[str, str]:
    record = records_of(taken.records)[0]
    merged = {**record["context"], **record["events"][index]["context"]}
    return {name: text for name, text in merged.items() if text}


def refusal_of(taken: Intake) -> tuple[Reason, str]:
    assert len(taken.event_ids) == 1
    assert taken.accepted == 0
    refused = taken.refused[0]
    return refused.reason, refused.field


def test_a_whole_event_becomes_a_record_of_its_visitor() -> None:
    sent = event(
        timestamp="2026-11-24T15:59:01.123Z",
        companyId="acme",
        userId="u-1",
        eventLabel="brakes",
        value=3,
        properties={"term": "brakes", "results": 0},
        context={"app": "portal", "ip": "198.51.100.9", "country": "FR", "userAgent": "own"},
    )
    taken = take_body({"batch": [sent], "sentAt": "2026-11-24T15:59:02Z"})
    (out,) = taken.records
    assert (out.topic, out.key, out.events) == ("events.collected", "acme:anon-1", 1)
    assert out.record == {
        "companyId": "acme",
        "anonymousId": "anon-1",
        "receivedAt": NOW_MS,
        "sentAt": 1795535942000,
        "journal": "",
        "sequence": 0,
        "context": dict.fromkeys(CONTEXT_FIELDS, "")
        | {"app": "portal", "ip": "198.51.100.0", "country": "FR", "userAgent": "own"},
        "events": [
            {
                "eventId": "e-1",
                "timestamp": 1795535941123,
                "type": "track",
                "userId": "u-1",
                "previousId": "",
                "eventCategory": "search",
                "eventAction": "search",
                "eventLabel": "brakes",
                "value": 3.0,
                "properties": '{"term":"brakes","results":0}',
                "context": {},
            }
        ],
    }


def test_what_the_client_left_out_or_sent_as_null_is_filled_in() -> None:
    bare = {"type": "page", "anonymousId": 17, "eventId": None, "properties": None, "value": None, "context": None}
    taken = take_body(bare)
    (record,) = records_of(taken.records)
    assert record["anonymousId"] == "17"
    assert record["sentAt"] is None
    (page,) = record["events"]
    assert page["eventId"] == "minted-0" == taken.event_ids[0]
    assert page["timestamp"] == NOW_MS
    assert (page["eventCategory"], page["eventAction"], page["properties"]) == ("page", "view", "{}")
    assert context_of(taken) == {"ip": "203.0.113.0", "country": "DE", "userAgent": "Mozilla/5.0"}


def test_a_screen_is_a_page_of_its_own_category_and_its_name_is_the_label() -> None:
    (screen,) = events_of(take_body({"type": "screen", "userId": "u", "name": "Home", "category": "main"}).records)
    assert (screen["type"], screen["eventCategory"], screen["eventAction"]) == ("page", "screen", "view")
    assert (screen["eventLabel"], screen["properties"]) == ("Home", '{"category":"main"}')


def test_a_requests_events_are_grouped_by_visitor_in_order() -> None:
    batch = [
        event(eventId="1"),
        event(eventId="2", anonymousId=None, userId="u"),
        event(eventId="3", userId="u"),
        event(eventId="4", anonymousId="undefined", userId="u"),
        event(eventId="5", anonymousId="u"),
    ]
    taken = take_body(batch)
    keyed = [(out.key, out.record["companyId"], out.events) for out in taken.records]
    assert keyed == [("acme:anon-1", "acme", 2), ("acme:u", "acme", 2), ("acme:u", "acme", 1)]
    ids = [
        (record["anonymousId"], [one["eventId"] for one in record["events"]]) for record in records_of(taken.records)
    ]
    assert ids == [("anon-1", ["1", "3"]), ("", ["2", "4"]), ("u", ["5"])]
    assert taken.event_ids == list("12345")


def test_a_visitor_whose_record_is_full_gets_another() -> None:
    big = {"text": "x" * 30_000}
    taken = take_body([event(eventId=str(number), properties=big) for number in range(20)])
    assert len(taken.records) > 1
    assert {out.key for out in taken.records} == {"acme:anon-1"}
    assert [one["eventId"] for one in events_of(taken.records)] == [str(number) for number in range(20)]
    for record in records_of(taken.records):
        assert sum(len(one["properties"]) for one in record["events"]) <= MAX_RECORD_TEXT


def test_an_event_carries_only_the_context_fields_that_differ_from_its_records() -> None:
    batch = [
        event(context={"url": "/a", "title": "A"}),
        event(context={"url": "/b", "title": "A"}),
        event(context={"url": "/a"}),
        event(context={"url": "/a", "title": "A"}),
    ]
    taken = take_body(batch)
    assert [one["context"] for one in events_of(taken.records)] == [{}, {"url": "/b"}, {"title": ""}, {}]


def test_the_requests_context_is_shared_and_an_events_own_goes_first() -> None:
    shared = {"app": "portal", "url": "/shared", "ip": "198.51.100.9"}
    taken = take_body({"context": shared, "batch": [event(), event(context={"url": "/own"})]})
    assert context_of(taken, 0) == {"app": "portal", "url": "/shared"} | FROM_HEADERS | {"ip": "198.51.100.0"}
    assert context_of(taken, 1)["url"] == "/own"
    assert context_of(taken, 1)["app"] == "portal"


FROM_HEADERS = {"ip": "203.0.113.0", "country": "DE", "userAgent": "Mozilla/5.0"}


@pytest.mark.parametrize(
    ("library", "filled"),
    [
        (None, {"ip", "country", "userAgent"}),
        ({"name": "analytics.js", "version": "2"}, {"ip", "country", "userAgent"}),
        ("headrace-browser", {"ip", "country", "userAgent"}),
        ({"name": "analytics-swift"}, {"ip", "country"}),
        ({"name": "analytics-python"}, set()),
        ({"name": "@segment/analytics-node"}, set()),
    ],
)
def test_a_servers_own_address_and_user_agent_never_become_the_end_users(library: Any, filled: set[str]) -> None:
    taken = take_body(event(context={"library": library}))
    assert {name for name in FROM_HEADERS if name in context_of(taken)} == filled


def test_an_ip_that_is_none_is_not_stored_as_sent() -> None:
    assert context_of(take_body(event(context={"ip": "my secret"}))).get("ip") is None


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"type": None}, Reason.MISSING_FIELD, "type"),
        ({"type": "click"}, Reason.INVALID_FIELD, "type"),
        ({"eventId": "x" * 201}, Reason.INVALID_FIELD, "eventId"),
        ({"eventId": {}}, Reason.INVALID_FIELD, "eventId"),
        ({"timestamp": "yesterday"}, Reason.INVALID_FIELD, "timestamp"),
        ({"timestamp": True}, Reason.INVALID_FIELD, "timestamp"),
        ({"timestamp": 1e300}, Reason.INVALID_FIELD, "timestamp"),
        ({"anonymousId": None}, Reason.MISSING_ID, "anonymousId"),
        ({"anonymousId": "null", "userId": "00000000-0000-0000-0000-000000000000"}, Reason.MISSING_ID, "anonymousId"),
        ({"anonymousId": "x" * 257}, Reason.INVALID_FIELD, "anonymousId"),
        ({"userId": True}, Reason.INVALID_FIELD, "userId"),
        ({"userId": ["u"]}, Reason.INVALID_FIELD, "userId"),
        ({"companyId": "bolt"}, Reason.COMPANY_MISMATCH, "companyId"),
        ({"companyId": ""}, Reason.COMPANY_MISMATCH, "companyId"),
        ({"eventAction": None}, Reason.MISSING_FIELD, "eventAction"),
        ({"eventAction": "x" * 201}, Reason.INVALID_FIELD, "eventAction"),
        ({"eventCategory": 5}, Reason.INVALID_FIELD, "eventCategory"),
        ({"eventLabel": "x" * 1_001}, Reason.INVALID_FIELD, "eventLabel"),
        ({"value": "12"}, Reason.INVALID_FIELD, "value"),
        ({"value": False}, Reason.INVALID_FIELD, "value"),
        ({"properties": []}, Reason.INVALID_FIELD, "properties"),
        ({"properties": {"text": "x" * (32 << 10)}}, Reason.INVALID_FIELD, "properties"),
        ({"context": "x"}, Reason.INVALID_FIELD, "context"),
        ({"type": "alias", "userId": "u"}, Reason.MISSING_FIELD, "previousId"),
    ],
)
def test_an_event_of_the_wrong_shape_is_rejected_with_reason_and_field(
    fields: dict[str, Any], reason: Reason, field: str
) -> None:
    taken = take_body(event(**fields))
    assert refusal_of(taken) == (reason, field)
    (letter,) = letters_of(taken.records)
    assert (letter["reason"], letter["field"]) == (reason, field)
    assert letter["message"].endswith(".")
    assert json.loads(letter["payload"]) == event(**fields)


@pytest.mark.parametrize("body", [b"5", b"null", b'"text"', b"[[]]", b'{"batch":{"type":"page"}}'])
def test_an_event_that_is_no_object_is_rejected(body: bytes) -> None:
    assert refusal_of(take_body(body))[0] in (Reason.INVALID_FIELD, Reason.MISSING_FIELD)


def test_properties_nested_deeper_than_can_be_written_are_rejected() -> None:
    def deep(levels: int) -> bytes:
        return b'{"type":"page","userId":"u","properties":{"a":' + b"[" * levels + b"]" * levels + b"}}"

    assert take_body(deep(250)).accepted == 1
    assert refusal_of(take_body(deep(300))) == (Reason.INVALID_FIELD, "properties")
    with pytest.raises(RequestRefused) as refused:
        take_body(deep(1_010))
    assert refused.value.reason is Reason.INVALID_JSON


def test_deep_contexts_that_are_equal_are_taken() -> None:
    deep = b'{"type":"page","userId":"u","context":{"app":"x","a":' + b"[" * 980 + b"]" * 980 + b"}}"
    assert take_body(b"[" + deep + b"," + deep + b"]").accepted == 2


@pytest.mark.parametrize("as_batch", [False, True])
def test_contexts_that_differ_in_the_kind_of_a_value_only_keep_their_own_text(as_batch: bool) -> None:
    versions = [1, True, 1.0, 1]
    events = [event(eventId=f"e-{n}", context={"osVersion": each}) for n, each in enumerate(versions)]
    taken = take_body({"batch": events} if as_batch else events)
    assert [context_of(taken, n).get("osVersion") for n in range(4)] == ["1", None, "1.0", "1"]


def test_a_rejected_event_is_a_whole_dead_letter_and_the_others_are_stored() -> None:
    good = b'{"type":"page","userId":"u"}'
    body = b"[" + good + b', {"eventId":"bad", "value" : 1.50, "value":"x", "context":{"ip":"203.0.113.77"}}]'
    taken = take_body(body)
    assert taken.event_ids == ["minted-0", "bad"]
    assert list(taken.refused) == [1]
    assert taken.accepted == len(events_of(taken.records)) == 1
    (out,) = taken.records[1:]
    assert (out.topic, out.key, out.events) == ("events.dead_letter", "collector/minted-1/1", 0)
    assert out.record == {
        "key": "collector/minted-1/1",
        "companyId": "acme",
        "source": "collector",
        "reason": "missing_field",
        "field": "type",
        "message": "type is missing; every event needs it.",
        "eventId": "bad",
        "logId": "",
        "topic": "",
        "partition": -1,
        "offset": -1,
        "position": 1,
        "receivedAt": NOW_MS,
        "failedAt": NOW_MS,
        "journal": "",
        "sequence": 0,
        "contentType": "json",
        "payload": b'{"eventId":"bad", "value" : 1.50, "value":"x", "context":{"ip":"203.0.113.0"}}',
        "truncated": False,
    }


def test_a_rejected_event_too_large_for_the_log_is_cut_and_no_longer_json() -> None:
    taken = take_body(event(properties={"text": "x" * 600_000}))
    (letter,) = letters_of(taken.records)
    assert (letter["contentType"], letter["truncated"], len(letter["payload"])) == ("raw", True, MAX_EVENT_LETTER)


def test_the_path_gives_its_type_to_every_event() -> None:
    taken = take_body({"userId": "u", "traits": {"plan": "pro"}}, kind="identify")
    (identify,) = events_of(taken.records)
    assert (identify["type"], identify["properties"]) == ("identify", '{"plan":"pro"}')


def test_an_unreadable_sent_at_is_left_out() -> None:
    (record,) = records_of(take_body({"batch": [event()], "sentAt": "soon"}).records)
    assert record["sentAt"] is None


def test_every_text_on_its_way_to_the_log_can_be_encoded() -> None:
    sent = event(eventId="\ud83d", eventLabel="a\0b", properties={"\udc00": "\0"}, context={"title": "\ud83d"})
    taken = take_body(sent)
    (one,) = events_of(taken.records)
    assert (one["eventId"], one["eventLabel"], one["properties"]) == ("�", "a�b", '{"�":"�"}')
    assert context_of(taken)["title"] == "�"


a_leaf = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def objects(whole: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    value = st.recursive(
        a_leaf | whole,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    return st.dictionaries(st.sampled_from(("url", "page", "library", "category", "x")), value, max_size=3)


a_context = objects(st.integers(-(2**63), 2**63))  # a larger one would be text of other digits
a_sent_event = st.fixed_dictionaries(
    {"type": st.sampled_from(("page", "track", "screen", "alias"))},
    optional={
        "eventId": a_leaf | st.integers(),
        "anonymousId": st.sampled_from(("a", "b", "0", "")),
        "userId": st.sampled_from(("u", "null", 7)),
        "eventCategory": st.text(max_size=3),
        "eventAction": st.text(max_size=3),
        "event": st.text(max_size=5),
        "value": a_leaf | st.integers(),
        "timestamp": a_leaf | st.integers() | st.just("2026-11-24T10:00:00.123Z"),
        "properties": objects(st.integers(-(2**70), 2**70)),
        "context": a_context,
        "traits": a_context,
        "unknown": a_leaf | st.integers(),
    },
)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # the first events of a machine take long to make
@given(st.lists(a_sent_event, max_size=5), a_context)
def test_events_read_straight_from_the_text_become_what_they_become_by_way_of_its_value(
    events: list[dict[str, Any]], context: dict[str, Any]
) -> None:
    text = json.dumps({"batch": events, "context": context}, ensure_ascii=len(events) % 2 == 0).encode(
        "utf-8", "replace"
    )
    straight = parse_batch(text, None)
    by_value = replace(straight, plain=None)
    one, other = (
        take(batch, Arrival("acme", Sender("203.0.113.77"), NOW_MS, lambda: "minted")) for batch in (straight, by_value)
    )
    assert one == other


CONTEXTS_AS_TEXT = (
    b"",
    b"null",
    b"{}",
    b"5",
    b'"x"',
    b"[]",
    b"fals",
    b'{"app":"a","page":{"url":"/a"}}',
    b' {"app": "a", "page": {"url": "/a"}} ',
    b'{"app":"b","page":{"url":"/a","path":"/a","title":"A","referrer":"/"}}',
    b'{"app":"a","app":"b"}',
    b'{"app":"a"},"context":{"app":"b"}',
    b'5,"context":{"app":"b"}',
    b'{"app":"b"},"context":5',
    b'{"library":{"name":"analytics-python"}}',
    b'{"ip":"198.51.100.9","app":7}',
    b'{"x":18446744073709551617,"app":18446744073709551615}',
    b'{"x":1e999}',
    b'{"x":01}',
    b'{"app":"\\ud83d"}',
    b'{"app":"\\ud83d\\ude00\\n"}',
    b'{"app":"\\u0000"}',
    b'{"app":"\\q"}',
    b'{"app":"\xff"}',
    b'{"app":"\xc3\xa9"}',
    b'{"app":"a","x":' + b"[" * 300 + b"]" * 300 + b"}",
)


def outcome_of(body: bytes) -> Intake | Reason:
    try:
        return take(parse_batch(body, None), ARRIVAL)
    except RequestRefused as refused:
        return refused.reason


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((b'"anonymousId":"a"', b'"anonymousId":"b"', b'"userId":"u"', b'"userId":7')),
            st.sampled_from((b"page", b"identify")),
            st.sampled_from(CONTEXTS_AS_TEXT) | st.sampled_from(CONTEXTS_AS_TEXT[:3] + CONTEXTS_AS_TEXT[7:10]),
        ),
        max_size=8,
    )
)
def test_contexts_of_every_kind_that_are_repeated_become_what_they_become_by_way_of_their_values(
    events: list[tuple[bytes, bytes, bytes]],
) -> None:
    array = b"[%b]" % b",".join(
        b'{%b,"type":"%b","properties":{"title":"T"}%b}' % (who, kind, b',"context":' + context if context else b"")
        for who, kind, context in events
    )
    assert outcome_of(b'{"batch":%b}' % array) == outcome_of(array)


@pytest.mark.parametrize("levels", [300, 980, 1_010, 1_100])
def test_a_deep_context_becomes_what_it_becomes_by_way_of_its_value(levels: int) -> None:
    deep = b'{"type":"page","userId":"u","context":{"app":"x","a":' + b"[" * levels + b"]" * levels + b"}}"
    array = b"[" + deep + b"," + deep + b"]"
    assert outcome_of(b'{"batch":%b}' % array) == outcome_of(array)


@pytest.mark.parametrize("odd", range(7))
def test_a_few_odd_events_among_plain_ones_become_what_they_become_by_way_of_their_value(odd: int) -> None:
    kinds: list[dict[str, Any]] = [
        {"type": None},
        {"userId": 5},
        {"eventId": 7},
        {"kind": "page", "type": "x"},
        {"value": "1"},
        {"type": 3},
    ]
    events = [event(eventId=str(number)) for number in range(7)]
    for number in range(odd):
        events[number] |= kinds[number]
    straight = parse_batch(json.dumps({"batch": events, "sentAt": 5}).encode(), None)
    assert (straight.plain is None) == (odd > 4)
    one, other = (take(batch, ARRIVAL) for batch in (straight, replace(straight, plain=None)))
    assert one == other
    assert [at for at, why in one.refused.items() if why] == [number for number in range(odd) if number not in (1, 2)]


@pytest.mark.parametrize("rest", [b"", b',{"type":"none"}'], ids=["alone", "beside a bad event"])
@pytest.mark.parametrize(
    ("fault", "is_taken"), [(b"1e999", True), (b'"\\ud800"', True), (b'"\\q"', False), (b"01", False), (b"[", False)]
)
def test_a_member_nobody_asked_for_refuses_the_body_only_where_it_is_no_json(
    fault: bytes, is_taken: bool, rest: bytes
) -> None:
    text = b'{"batch":[{"type":"page","userId":"u","x":%b}%b]}' % (fault, rest)
    if is_taken:
        assert take_body(text).accepted == 1
        return
    with pytest.raises(RequestRefused) as refused:
        take_body(text)
    assert refused.value.reason is Reason.INVALID_JSON
