"""What is done once for a record comes to the same as doing it for each event."""

from typing import Any

import pytest

from schemas.codec import Codec
from schemas.context import CONTEXT_FIELDS
from schemas.records import CollectedEvent, CollectedRecord
from schemas.stages import EnrichedRun, LogRecord
from schemas.tenants import Tenant
from streams.core.enrich import UserAgent
from streams.core.redact import DEFAULT_POLICY
from streams.core.validate import Rules
from streams.pipeline import Pipeline

NOW = 1_795_600_000_000
CODEC = Codec()
PIPELINE = Pipeline(CODEC, DEFAULT_POLICY, lambda _: UserAgent(), lambda _: "", 1_800_000)


def event(number: int, **fields: Any) -> CollectedEvent:
    whole: Any = {
        "eventId": f"e-{number}",
        "timestamp": NOW - 1000,
        "type": "track",
        "userId": "",
        "previousId": "",
        "eventCategory": "shop",
        "eventAction": "order",
        "eventLabel": "",
        "value": None,
        "properties": "{}",
        "context": {},
        **fields,
    }
    return whole  # type: ignore[no-any-return]


def prepared(*events: CollectedEvent) -> list[EnrichedRun]:
    record: CollectedRecord = {
        "companyId": "acme",
        "anonymousId": "a",
        "receivedAt": NOW,
        "sentAt": None,
        "journal": "",
        "sequence": 0,
        "context": {**dict.fromkeys(CONTEXT_FIELDS, ""), "app": "portal"},
        "events": list(events),
    }
    records = [LogRecord(0, b"acme:a", CODEC.encode_collected(record))]
    return PIPELINE.prepare(records, {}, Rules({"acme": Tenant(company_id="acme")}, 24)).runs


def test_each_event_has_its_own_context_whatever_came_before() -> None:
    own: list[dict[str, str]] = [{}, {"title": "A"}, {"title": "A"}, {"app": ""}, {"title": "A"}, {}, {"title": "B"}]
    title, app = CONTEXT_FIELDS.index("title"), CONTEXT_FIELDS.index("app")
    found = prepared(*(event(number, context=context) for number, context in enumerate(own)))
    each = [(run.context, event["eventId"]) for run in found for event in run.events]
    assert [event_id for _, event_id in each] == [f"e-{number}" for number in range(len(own))]
    assert [context[title] for context, _ in each] == ["", "A", "A", "", "A", "", "B"]
    assert [context[app] for context, _ in each] == ["portal", "portal", "portal", "", "portal", "portal", "portal"]


@pytest.mark.parametrize(
    ("fields", "properties", "label"),
    [
        ({"eventLabel": "to a@b.example"}, '{"n":1}', "to [redacted:email]"),
        ({"properties": '{"to":"a@b.example"}'}, '{"to":"[redacted:email]"}', ""),
        ({"properties": '{"card":4111111111111111}'}, '{"card":"[redacted:card]"}', ""),
        ({"properties": '{"Api-Key":"s"}'}, '{"Api-Key":"[redacted:key]"}', ""),
        ({"properties": '{"a":{"apiKey":"s"}}'}, '{"a":{"apiKey":"[redacted:key]"}}', ""),
        ({"properties": '{"a":[{"apiKey":"s"}]}'}, '{"a":[{"apiKey":"[redacted:key]"}]}', ""),
        ({"properties": '{"n":NaN,"apiKey":"s"}'}, '{"n":NaN,"apiKey":"[redacted:key]"}', ""),
        ({"properties": '{"apiKey":"s"'}, '{"apiKey":"[redacted:key]"', ""),
    ],
)
def test_a_secret_is_taken_out_of_its_event_and_the_others_stay(
    fields: dict[str, str], properties: str, label: str
) -> None:
    clean = {"properties": '{"n":1}'}
    (run,) = prepared(event(0, **clean), event(1, **{**clean, **fields}), event(2, **clean))
    assert [one["properties"] for one in run.events] == ['{"n":1}', properties, '{"n":1}']
    assert [one["eventLabel"] for one in run.events] == ["", label, ""]
