"""Checks the shape of sent events and makes collected ones of them; what is wrong with one is a value, `Refused`."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
from pydantic import TypeAdapter, ValidationError

from collector.answers import Refused
from collector.arrival import Arrival
from collector.limits import MAX_PROPERTIES
from collector.segment import name_event, properties_of
from collector.times import epoch_ms
from schemas.identifiers import visitor_of
from schemas.reasons import Reason
from schemas.records import CollectedEvent
from schemas.sent import PlainEvent, Sent, SentEvent

_EVENT: Final = TypeAdapter(SentEvent)


def check_shapes(events: list[Any]) -> Sequence[SentEvent | PlainEvent | Refused]:
    """Every event of a request, or why it is none: all in one call, each by itself only where that fails."""
    try:
        return msgspec.convert(events, list[PlainEvent])
    except msgspec.ValidationError:
        return [check_shape(event) for event in events]


def check_shape(event: Any) -> SentEvent | PlainEvent | Refused:
    """As `check_shapes`, one event."""
    try:
        return msgspec.convert(event, PlainEvent)
    except msgspec.ValidationError:
        return check_closely(event)


def check_closely(event: Any) -> SentEvent | Refused:
    """As `check_shapes`, one event that cannot be read as a PlainEvent."""
    try:
        return _EVENT.validate_python(event)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return Refused(Reason.MISSING_FIELD, field, f"{field} is missing; every event needs it.")
    if not field:
        return _invalid("", "An event has to be a JSON object.")
    return _invalid(field, f"{field} does not fit: {first['msg']}.")


def _invalid(field: str, message: str) -> Refused:
    return Refused(Reason.INVALID_FIELD, field, message)


def collect(sent: Sent, arrival: Arrival) -> CollectedEvent | Refused:
    """The event as it goes into a record of the tenant, its context still empty; times in ms since the epoch."""
    kind, user_id, category, action = sent.type, sent.user_id or "", sent.event_category, sent.event_action
    if sent.company_id is not None or kind == "alias" or not visitor_of(sent.anonymous_id or "", user_id):
        fault = _find_fault(sent, arrival.company_id)
        if fault is not None:
            return fault
    if not (category and action):
        name = name_event(sent)
        if name is None:
            return Refused(Reason.MISSING_FIELD, "eventAction", "A track event needs eventAction, or event; send one.")
        category, action = name
    try:
        timestamp = arrival.received_at if sent.timestamp is None else epoch_ms(sent.timestamp)
    except ValueError as error:
        return _invalid("timestamp", f"timestamp does not fit: {error}.")
    properties = properties_of(sent)
    text = _json_text(properties) if properties else "{}"
    if isinstance(text, Refused):
        return text
    return {
        "eventId": sent.event_id or arrival.mint_id(),
        "timestamp": timestamp,
        "type": "page" if kind == "screen" else kind,
        "userId": user_id,
        "previousId": sent.previous_id or "",
        "eventCategory": category,
        "eventAction": action,
        "eventLabel": sent.event_label or sent.name or "",
        "value": sent.value,
        "properties": text,
        "context": {},
    }


def _find_fault(sent: Sent, company_id: str) -> Refused | None:
    if sent.company_id is not None and sent.company_id != company_id:
        message = "companyId is not the tenant of the write key; leave it out or use that tenant's key."
        return Refused(Reason.COMPANY_MISMATCH, "companyId", message)
    if not visitor_of(sent.anonymous_id or "", sent.user_id or ""):
        return Refused(Reason.MISSING_ID, "anonymousId", "Neither anonymousId nor userId names a visitor; send one.")
    if sent.type == "alias" and not sent.previous_id:
        return Refused(Reason.MISSING_FIELD, "previousId", "An alias needs previousId, the id that userId replaces.")
    return None


def _json_text(properties: dict[str, Any]) -> str | Refused:
    try:
        text = orjson.dumps(properties)
    except TypeError:
        try:  # with whole numbers over 64 bits as floats, as they are where orjson reads the body
            text = orjson.dumps(orjson.loads(msgspec.json.encode(properties)))
        except (TypeError, ValueError, RecursionError):
            return _invalid("properties", "properties is nested more than 250 levels deep.")
    if len(text) > MAX_PROPERTIES:
        return _invalid("properties", f"properties is over {MAX_PROPERTIES} bytes as JSON.")
    return text.decode()
