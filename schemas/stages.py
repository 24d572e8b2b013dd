"""Frozen types for what passes through the pipeline, named by what has been done to it.

msgspec structs that the garbage collector does not track: a worker makes two for every event, and then its row.
"""

from typing import Any, Final

import msgspec

from schemas.context import CONTEXT_FIELDS
from schemas.reasons import Reason
from schemas.records import CollectedEvent, CollectedRecord


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as the log hands it out."""

    offset: int
    key: bytes | None
    value: bytes | None


class DecodedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that could be read, with its offset."""

    offset: int
    record: CollectedRecord


class ValidatedEvent(msgspec.Struct, frozen=True, gc=False):
    """Of a known tenant, in the range of time that is kept, as its property schema and tracking plan ask.

    `timestamp` is corrected for the client's clock; `properties` are the source's parsed, None where they are no JSON.
    """

    source: CollectedEvent
    timestamp: int
    properties: Any


class EnrichedEvent(msgspec.Struct, frozen=True, gc=False):
    """Redacted, and with its context complete: values in the order of CONTEXT_FIELDS, then bot."""

    source: CollectedEvent
    record: CollectedRecord
    offset: int
    timestamp: int
    context: tuple[str | bool, ...]


class Rejection(msgspec.Struct, frozen=True):
    """An event (or, at position -1, a whole record) that cannot be stored, and why."""

    offset: int
    position: int
    reason: Reason
    field: str
    message: str
    company_id: str = ""
    event_id: str = ""
    received_at: int = 0
    content_type: str = "json"
    payload: bytes = b""


#: The columns of `events` that a worker fills, in the order of a row.
EVENT_COLUMNS: Final = (
    "eventId",
    "timestamp",
    "receivedAt",
    "companyId",
    "userId",
    "anonymousId",
    "previousId",
    "sessionId",
    "type",
    "identity",
    "eventCategory",
    "eventAction",
    "eventLabel",
    "value",
    "properties",
    *CONTEXT_FIELDS,
    "bot",
    "logId",
    "logPartition",
    "logOffset",
    "journal",
    "sequence",
)
