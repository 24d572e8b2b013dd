"""The closed list of reasons: why an event was not taken, or not stored.

The same value stands in the HTTP answer, in the dead letter, in the metric's label and in docs/guide/reasons.md.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event or a request was refused; each member's comment is its meaning."""

    # The collector answers these; the event is `rejected` and goes to the dead letters.
    INVALID_JSON = "invalid_json"  # the body is not JSON
    INVALID_GZIP = "invalid_gzip"  # the body says gzip and is not
    MISSING_FIELD = "missing_field"  # a field that every event needs is absent
    INVALID_FIELD = "invalid_field"  # a field has the wrong type, length or form
    MISSING_ID = "missing_id"  # neither anonymousId nor userId names the visitor
    COMPANY_MISMATCH = "company_mismatch"  # companyId is not the tenant of the write key

    # The collector answers these for the whole request; nothing is stored.
    UNAUTHORIZED = "unauthorized"  # no write key, or none that is known
    BODY_TOO_LARGE = "body_too_large"  # over 1 MiB as sent, or over 10 MiB inflated
    TOO_MANY_EVENTS = "too_many_events"  # over 1,000 events in one request
    RATE_LIMITED = "rate_limited"  # over the tenant's rate
    UNAVAILABLE = "unavailable"  # the log is away and the spool is full

    # Streams decides these; the event was accepted and becomes a dead letter.
    UNDECODABLE = "undecodable"  # the record on the log cannot be read
    UNKNOWN_TENANT = "unknown_tenant"  # no tenant of this companyId
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"  # older than the tenant's retention
    PROPERTY_SCHEMA = "property_schema"  # a first-class event with a property of the wrong type
    PLAN_FORBIDDEN_EVENT = "plan_forbidden_event"  # the tracking plan forbids the event
    PLAN_FORBIDDEN_PROPERTY = "plan_forbidden_property"  # the tracking plan forbids the property
    PLAN_PROPERTY_TYPE = "plan_property_type"  # the tracking plan types the property otherwise
    PLAN_MISSING_PROPERTY = "plan_missing_property"  # the tracking plan requires the property


COLLECTOR_EVENT_REASONS = frozenset(
    {
        Reason.INVALID_JSON,
        Reason.INVALID_GZIP,
        Reason.MISSING_FIELD,
        Reason.INVALID_FIELD,
        Reason.MISSING_ID,
        Reason.COMPANY_MISMATCH,
    }
)
