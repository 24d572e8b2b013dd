"""Whether an event can be stored: a known tenant, a time that is kept, properties as their schema and plan ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.catalog import rules_of
from schemas.properties import parse_properties
from schemas.reasons import Reason
from schemas.records import CollectedEvent, CollectedRecord
from schemas.stages import DecodedRecord, Rejection, ValidatedRecord
from schemas.tenants import Tenant
from streams.core.clock import clock_error
from streams.core.recent_ids import oldest_time
from streams.core.replay import http_form

#: A little less than a calendar month, so that nothing is stored that the table's TTL would remove at once.
_MONTH_MS: Final = 30 * 86_400_000

Fault = tuple[Reason, str, str]  # reason, field, message


@dataclass(frozen=True, slots=True)
class Rules:
    """What validation asks: the tenants by companyId, and how long events are kept where a tenant does not say."""

    tenants: Mapping[str, Tenant]
    retention_months: int


def validate(decoded: DecodedRecord, rules: Rules) -> tuple[ValidatedRecord, list[Rejection]]:
    """The record with those of its events that can be stored, and the others with their reasons."""
    record = decoded.record
    received_at = record["receivedAt"]
    error = clock_error(received_at, record["sentAt"])
    tenant = rules.tenants.get(record["companyId"])
    oldest_kept = received_at - _MONTH_MS * ((tenant and tenant.retention_months) or rules.retention_months)
    # Of nearly every event only the properties can be at fault: a call an event is saved.
    plain = tenant is not None and not tenant.plan and record["anonymousId"] != ""
    events: list[CollectedEvent] = []
    times: list[int] = []
    parsed: list[Any] = []
    rejections: list[Rejection] = []
    for position, event in enumerate(record["events"]):
        at = event["timestamp"] + error
        if at > received_at:
            at = received_at
        try:  # parsed once for validation and redaction; what is no JSON matters to those who need it alone
            properties = parse_properties(event["properties"])
        except (ValueError, RecursionError):
            properties = None
        schema = rules_of(event["eventCategory"], event["eventAction"])
        if plain and at >= oldest_kept and (schema is None or (properties is not None and schema.are_kept(properties))):
            fault = None
        else:
            fault = _find_fault(record, event, tenant, at, oldest_kept, properties)
        if fault is None:
            events.append(event)
            times.append(at)
            parsed.append(properties)
        else:
            rejections.append(reject_event(decoded.offset, position, record, at, *fault))
    return ValidatedRecord(decoded, events, times, parsed), rejections


def _find_fault(
    record: CollectedRecord, event: CollectedEvent, tenant: Tenant | None, at: int, oldest_kept: int, properties: Any
) -> Fault | None:
    if tenant is None:
        return Reason.UNKNOWN_TENANT, "companyId", f"No tenant {record['companyId']} is in the tenants file."
    if not (record["anonymousId"] or event["userId"]):
        return Reason.MISSING_ID, "anonymousId", "The event has neither anonymousId nor userId."
    if at < oldest_kept:
        return Reason.TIMESTAMP_OUT_OF_RANGE, "timestamp", "The event is older than the tenant's events are kept."
    category, action = event["eventCategory"], event["eventAction"]
    rules = rules_of(category, action)
    plan = tenant.plan if tenant.plan and event["type"] in ("page", "track") else None
    planned = plan is not None and plan.concerns(category, action)
    if rules is None and not planned:
        return None
    if properties is None:
        properties = parse_properties(event["properties"])  # raises, and so rejects the record
    if rules and (violation := rules.find_fault(properties)):
        return Reason.PROPERTY_SCHEMA, violation.field, violation.message
    if planned and plan and (broken := plan.check(category, action, properties)):
        return broken.reason, broken.field, broken.message
    return None


def reject_event(
    offset: int, position: int, record: CollectedRecord, at: int, reason: Reason, field: str, message: str
) -> Rejection:
    """A rejection whose payload can be sent again as it is."""
    event = record["events"][position]
    return Rejection(
        offset=offset,
        position=position,
        reason=reason,
        field=field,
        message=message,
        company_id=record["companyId"],
        event_id=event["eventId"],
        received_at=record["receivedAt"],
        oldest=oldest_time(event["timestamp"], at, event["eventId"], record["receivedAt"]),
        payload=http_form(record, event, at),
    )
