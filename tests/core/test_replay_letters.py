"""Dead letters as events to send again: the same each time, fixed by a patch, or with the sentence why not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from headrace.replay import BadPatch, NotReplayable, parse_patch, replay
from headrace.replaying import batches
from headrace.times import parse_time, show_time
from streams.core.replay import http_form, iso_time
from tests.core.test_writer import collected_event, log_record
from tests.filling import CODEC, NOW, record_of, sent
from warehouse.letters import StoredLetter

LETTER = StoredLetter(
    key="collector/r/0",
    company_id="acme",
    source="collector",
    reason="invalid_field",
    field="value",
    message="value does not fit.",
    event_id="",
    log_id="",
    topic="",
    partition=-1,
    offset=-1,
    position=0,
    received_at=NOW,
    failed_at=NOW,
    content_type="json",
    truncated=False,
)
EVENT = {"type": "track", "eventId": "e-1", "anonymousId": "a", "eventAction": "x", "timestamp": 5, "value": "3"}


def letter_of(event: Any, **fields: Any) -> StoredLetter:
    return replace(LETTER, payload=json.dumps(event).encode(), **fields)


def replayed(letter: StoredLetter, fix: str = "") -> dict[str, Any]:
    [item] = replay(letter, CODEC, parse_patch(fix) if fix else None)
    event: dict[str, Any] = json.loads(item.text)
    return event


@pytest.mark.parametrize(
    ("properties", "sent_again"),
    [
        ('{"term": "oil", "n": 7}', {"term": "oil", "n": 7}),
        ("{}", None),
        ("{ }", None),
        ("null", None),
        ("", None),
        ("not JSON", "not JSON"),
        (f'{{"n":{10**30}}}', {"n": 10**30}),
        ('{"half":"\\ud83d"}', {"half": "?"}),
        ('{"snow":"\\u2603"}', {"snow": "\u2603"}),
    ],
)
def test_the_letter_of_an_event_of_the_log_has_its_properties_whatever_they_are(
    properties: str, sent_again: Any
) -> None:
    event = collected_event("e", NOW, properties=properties, userId="", value=1.5, context={"app": "", "os": "iOS"})
    record = CODEC.decode_collected(log_record(0, "a", [event]).value or b"")
    wanted = {
        "eventId": "e",
        "timestamp": iso_time(NOW),
        "companyId": "acme",
        "anonymousId": "a",
        "type": "track",
        "eventCategory": "ui",
        "eventAction": "opened",
        "value": 1.5,
        "context": {"os": "iOS"},
        **({} if sent_again is None else {"properties": sent_again}),
    }
    assert json.loads(http_form(record, record["events"][0], NOW)) == wanted


def test_an_event_is_sent_again_as_it_is() -> None:
    assert replayed(letter_of(EVENT)) == EVENT


def test_a_fix_changes_what_it_names() -> None:
    fix = '[{"op": "replace", "path": "/value", "value": 3}, {"op": "remove", "path": "/eventAction"}]'
    assert replayed(letter_of(EVENT), fix) == {
        name: value for name, value in {**EVENT, "value": 3}.items() if name != "eventAction"
    }


def test_an_event_without_id_gets_the_one_its_verdict_had() -> None:
    event = {name: value for name, value in EVENT.items() if name != "eventId"}
    assert replayed(letter_of(event, event_id="minted"))["eventId"] == "minted"


@pytest.mark.parametrize("absent", [None, ""])
def test_an_id_that_follows_from_the_key_is_always_the_same(absent: str | None) -> None:
    first, again = (replayed(letter_of({**EVENT, "eventId": absent}))["eventId"] for _ in range(2))
    assert first == again
    assert first != replayed(letter_of({**EVENT, "eventId": absent}, key="collector/r/1"))["eventId"]


def test_segments_message_id_is_an_id() -> None:
    event = {**{name: value for name, value in EVENT.items() if name != "eventId"}, "messageId": "m-1"}
    assert replayed(letter_of(event)) == event


def test_an_event_without_a_time_happened_when_it_was_received() -> None:
    event = {name: value for name, value in EVENT.items() if name != "timestamp"}
    assert replayed(letter_of(event))["timestamp"] == "2026-09-21T14:13:20.000Z"


def test_a_record_of_the_log_becomes_its_events_by_the_collectors_clock() -> None:
    record = record_of("desk", [sent("a", NOW - 60_000), sent("b", NOW)], app="web") | {"sentAt": NOW - 3_600_000}
    letter = replace(LETTER, content_type="avro", payload=CODEC.encode_collected(record))
    events = [json.loads(item.text) for item in replay(letter, CODEC)]
    assert [event["eventId"] for event in events] == ["a", "b"]
    assert events[0]["anonymousId"] == "desk"
    assert events[0]["context"] == {"app": "web"}
    assert events[0]["timestamp"] == "2026-09-21T14:13:20.000Z"


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (replace(LETTER, content_type="raw", payload=b"{"), "could not be read"),
        (replace(LETTER, content_type="avro", payload=b"junk"), "cannot be decoded"),
        (letter_of(EVENT, truncated=True), "was cut"),
        (letter_of("only text"), "not a JSON object"),
    ],
)
def test_what_cannot_be_sent_again_says_why(letter: StoredLetter, why: str) -> None:
    with pytest.raises(NotReplayable, match=why):
        replay(letter, CODEC)


@pytest.mark.parametrize(
    "fix",
    [
        '[{"op": "remove", "path": "/nothing"}]',
        '[{"op": "test", "path": "/value", "value": 1}]',
        '[{"op": "add", "path": "/value/deep", "value": 1}]',
        '[{"op": "remove", "path": "/context/page"}]',
    ],
)
def test_a_fix_that_does_not_fit_the_event_is_no_crash(fix: str) -> None:
    with pytest.raises(NotReplayable, match="The fix does not apply"):
        replayed(letter_of(EVENT), fix)


@pytest.mark.parametrize("text", ["", "{", "7", "{}", '["x"]', '[{"op": "wipe", "path": "/a"}]', '[{"path": "/a"}]'])
def test_what_is_no_patch_is_refused_before_anything_is_sent(text: str) -> None:
    with pytest.raises(BadPatch, match="RFC 6902"):
        parse_patch(text)


def test_batches_hold_what_a_collector_takes() -> None:
    items = [item for _ in range(1_001) for item in replay(letter_of(EVENT), CODEC)]
    assert [len(batch.events) for batch in batches(iter(items))] == [500, 500, 1]
    large = [item for _ in range(3) for item in replay(letter_of({**EVENT, "eventLabel": "x" * 400_000}), CODEC)]
    assert [len(batch.events) for batch in batches(iter(large))] == [1, 1, 1]
    assert list(batches(iter(()))) == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", NOW - 7_200_000),
        ("1.5d", NOW - 129_600_000),
        ("2026-09-21T14:13:20", NOW),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21T14:13:20Z", NOW),
    ],
)
def test_a_time_is_iso_or_so_long_ago(text: str, at: int) -> None:
    assert parse_time(text, NOW) == at


def test_what_is_no_time_is_told_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="'yesterday' is no time; give ISO 8601"):
        parse_time("yesterday", NOW)


def test_times_are_shown_in_utc_with_milliseconds() -> None:
    assert (show_time(NOW + 7), show_time(0)) == ("2026-09-21T14:13:20.007Z", "")
