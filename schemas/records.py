"""The records of the log as the codec reads and writes them.

TypedDicts, because fastavro reads dicts and the hot path must not copy them; `tests/contract/test_codec.py` holds
them to the Avro files. Times are milliseconds since the epoch, UTC.
"""

from typing import Literal, TypedDict

EventType = Literal["page", "track", "identify", "alias", "group"]


class CollectedEvent(TypedDict):
    """One event inside a CollectedRecord; `context` holds only what differs from the record's."""

    eventId: str
    timestamp: int
    type: EventType
    userId: str
    previousId: str
    eventCategory: str
    eventAction: str
    eventLabel: str
    value: float | None
    properties: str
    context: dict[str, str]


class CollectedRecord(TypedDict):
    """One visitor's events of one request: the value of a record of `events.collected`."""

    companyId: str
    anonymousId: str
    receivedAt: int
    sentAt: int | None
    journal: str
    sequence: int
    context: dict[str, str]
    events: list[CollectedEvent]


class DeadLetter(TypedDict):
    """What could not be stored: the value of a record of `events.dead_letter`."""

    key: str
    companyId: str
    source: Literal["collector", "streams"]
    reason: str
    field: str
    message: str
    eventId: str
    logId: str
    topic: str
    partition: int
    offset: int
    position: int
    receivedAt: int
    failedAt: int
    journal: str
    sequence: int
    contentType: Literal["json", "avro", "raw"]
    payload: bytes
    truncated: bool
