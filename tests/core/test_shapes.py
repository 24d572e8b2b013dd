"""What is read as a PlainEvent is the same event as the SentEvent, which defines what may be sent."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.sent import MAX_EVENT_ID, MAX_LABEL, MAX_NAME, MAX_VISITOR_ID, PlainEvent, SentEvent

FIELDS = {name: field.alias or name for name, field in SentEvent.model_fields.items()}
NAMES = st.sampled_from([*FIELDS.values(), "eventId", "messageId", "integrations"])
LENGTHS = [MAX_EVENT_ID, MAX_VISITOR_ID, MAX_NAME, MAX_LABEL]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["x" * length + more for length in LENGTHS for more in ("", "😀")]),
    st.sampled_from(["", "page", "track", "é", 0, 5, 1.5, 2**63, 2**64 - 1, 1e300, True, False, None, [], {}]),
)


@settings(deadline=None, max_examples=1_000)
@given(st.dictionaries(NAMES, VALUES, max_size=5) | VALUES, st.sampled_from(["page", "screen", "click", None]))
@example({"eventId": None, "messageId": "m"}, "page")
@example({"value": 3}, "track")
def test_a_plain_event_is_the_sent_event(sent: Any, kind: str | None) -> None:
    event = {"type": kind, **sent} if isinstance(sent, dict) else sent
    try:
        plain = msgspec.convert(event, PlainEvent)
    except msgspec.ValidationError:
        return
    whole = SentEvent.model_validate(event)
    assert {name: repr(getattr(plain, name)) for name in FIELDS} == {
        name: repr(getattr(whole, name)) for name in FIELDS
    }


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_member_that_fits_a_sent_event_as_text_or_object_fits_a_plain_one(name: str) -> None:
    alias = "eventId" if name == "event_id" else FIELDS[name]
    for value in ("page", 2.5, {"a": 1}, *("x" * length for length in LENGTHS)):
        event = {"type": "track", alias: value}
        try:
            whole = SentEvent.model_validate(event)
        except ValidationError:
            continue
        if getattr(whole, name) == value:
            assert getattr(msgspec.convert(event, PlainEvent), name) == value
