"""What a block stores: the rows of events, and its dead letters."""

from typing import Any

from schemas.blocks import Partition
from schemas.records import DeadLetter
from schemas.stages import EnrichedEvent, Rejection


def event_row(event: EnrichedEvent, session_id: str, identity: str, partition: Partition) -> tuple[Any, ...]:
    """The values of EVENT_COLUMNS."""
    source, record = event.source, event.record
    return (
        source["eventId"],
        event.timestamp,
        record["receivedAt"],
        record["companyId"],
        source["userId"],
        record["anonymousId"],
        source["previousId"],
        session_id,
        source["type"],
        identity,
        source["eventCategory"],
        source["eventAction"],
        source["eventLabel"],
        source["value"],
        source["properties"],
        *event.context,
        partition.log_id,
        partition.number,
        event.offset,
        record["journal"],
        record["sequence"],
    )


def dead_letter(rejection: Rejection, partition: Partition, now: int) -> DeadLetter:
    """The letter of a rejection; its key is the event's coordinates on the log."""
    return {
        "key": f"{partition}/{rejection.offset}/{rejection.position}",
        "companyId": rejection.company_id,
        "source": "streams",
        "reason": rejection.reason.value,
        "field": rejection.field,
        "message": rejection.message,
        "eventId": rejection.event_id,
        "logId": partition.log_id,
        "topic": partition.topic,
        "partition": partition.number,
        "offset": rejection.offset,
        "position": rejection.position,
        "receivedAt": rejection.received_at,
        "failedAt": now,
        "journal": "",
        "sequence": 0,
        "contentType": "avro" if rejection.content_type == "avro" else "json",
        "payload": rejection.payload,
        "truncated": False,
    }
