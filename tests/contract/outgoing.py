"""Records for the sinks' tests, told apart by a name."""

from typing import cast

from collector.sink import Outgoing
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER


def collected(visitor: str, name: str, padding: int = 0) -> Outgoing:
    """One event of a visitor of acme; `padding` bytes make it larger."""
    event = CollectedEvent(
        eventId=name,
        timestamp=1_760_000_000_000,
        type="track",
        userId="",
        previousId="",
        eventCategory="test",
        eventAction="sent",
        eventLabel="x" * padding,
        value=None,
        properties="{}",
        context={},
    )
    record = CollectedRecord(
        companyId="acme",
        anonymousId=visitor,
        receivedAt=1_760_000_000_000,
        sentAt=None,
        journal="",
        sequence=0,
        context={},
        events=[event],
    )
    return Outgoing(COLLECTED, f"acme:{visitor}", record, events=1)


def dead_letter(visitor: str, name: str, payload: bytes = b"{}") -> Outgoing:
    """A dead letter of a visitor of acme."""
    letter = DeadLetter(
        key=name,
        companyId="acme",
        source="collector",
        reason="invalid_type",
        field="",
        message="",
        eventId=name,
        logId="",
        topic="",
        partition=-1,
        offset=-1,
        position=0,
        receivedAt=1_760_000_000_000,
        failedAt=1_760_000_000_000,
        journal="",
        sequence=0,
        contentType="json",
        payload=payload,
        truncated=False,
    )
    return Outgoing(DEAD_LETTER, f"acme:{visitor}", letter, events=0)


def name_of(record: CollectedRecord | DeadLetter) -> str:
    """The name that `collected` or `dead_letter` gave."""
    if "events" in record:
        return cast(CollectedRecord, record)["events"][0]["eventId"]
    return record["eventId"]
