"""What a block stores: the rows of events, and its dead letters."""

from collections.abc import Sequence

from schemas.blocks import Partition
from schemas.records import CollectedEvent, DeadLetter
from schemas.stages import EnrichedRun, EventRun, Rejection
from streams.core.identity import IDENTIFYING, Link, link_or_alias


def event_rows(run: EnrichedRun, sessions: Sequence[str], partition: Partition) -> EventRun:
    """The rows of a run's events, each with its session's id."""
    record = run.record
    own = [
        (
            event["eventId"],
            at,
            event["userId"],
            event["previousId"],
            session_id,
            kind := event["type"],
            _identity(record["anonymousId"], event, at) if kind in IDENTIFYING else "",
            event["eventCategory"],
            event["eventAction"],
            event["eventLabel"],
            event["value"],
            event["properties"],
        )
        for event, at, session_id in zip(run.events, run.times, sessions, strict=True)
    ]
    where = partition.log_id, partition.number, run.offset, record["journal"], record["sequence"]
    return EventRun(own, (record["receivedAt"], record["companyId"], record["anonymousId"], *run.context, *where))


def _identity(anonymous_id: str, event: CollectedEvent, at: int) -> str:
    """What the event says of identity: 'link', 'alias' or ''."""
    said = link_or_alias(event["type"], anonymous_id, event["userId"], event["previousId"], at)
    return "" if said is None else "link" if isinstance(said, Link) else "alias"


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
