"""From the events of a request to records for the log and a verdict for each: pure, time and ids passed in.

What is wrong with an event is a value, never an exception, and every rejected event becomes a dead letter.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from collector.answers import Refused, Verdict
from collector.arrival import Arrival
from collector.batch import Batch
from collector.checking import check_shapes, collect
from collector.context import Contexts
from collector.grouping import Groups
from collector.letters import letter_of_event
from collector.segment import put_page
from collector.sink import Outgoing
from collector.times import epoch_ms_or_none
from schemas.identifiers import visitor_of
from schemas.sent import MAX_EVENT_ID, Sent


@dataclass(frozen=True, slots=True)
class Intake:
    """What a request becomes: records in the order to send them, and one verdict for each event as sent."""

    records: list[Outgoing]
    verdicts: list[Verdict]
    accepted: int


class _Rejected(NamedTuple):
    position: int
    event_id: str
    refused: Refused


def take(batch: Batch, arrival: Arrival) -> Intake:
    """The records and verdicts of a request.

    Raises RequestRefused only for a body out of which its rejected events cannot be cut.
    """
    contexts = Contexts(batch.context, arrival.sender)
    groups = Groups(arrival.company_id, arrival.received_at, epoch_ms_or_none(batch.sent_at))
    verdicts: list[Verdict] = []
    rejected: list[_Rejected] = []
    for index, sent in enumerate(check_shapes(batch.typed_events())):
        taken = sent if isinstance(sent, Refused) else _take_one(sent, arrival, contexts, groups)
        if isinstance(taken, Refused):
            event_id = _id_of(batch.events[index]) or arrival.mint_id()
            rejected.append(_Rejected(index, event_id, taken))
            verdicts.append(Verdict(event_id, taken))
        else:
            verdicts.append(Verdict(taken, None))
    letters = _letters(batch, arrival, rejected) if rejected else []
    return Intake(groups.outgoing() + letters, verdicts, len(verdicts) - len(rejected))


def _take_one(sent: Sent, arrival: Arrival, contexts: Contexts, groups: Groups) -> str | Refused:
    event = collect(sent, arrival)
    if isinstance(event, Refused):
        return event
    anonymous_id = sent.anonymous_id or ""
    visitor = visitor_of(anonymous_id, event["userId"])
    # An anonymousId that is a placeholder names nobody: the record is then the userId's.
    context = put_page(contexts.flatten(sent.context), sent)
    groups.add(visitor, anonymous_id if visitor == anonymous_id else "", event, context)
    return event["eventId"]


def _letters(batch: Batch, arrival: Arrival, rejected: list[_Rejected]) -> list[Outgoing]:
    payloads, request_id = batch.payloads(), arrival.mint_id()
    return [
        letter_of_event(arrival, f"collector/{request_id}/{at}", at, event_id, refused, payloads[at])
        for at, event_id, refused in rejected
    ]


def _id_of(event: Any) -> str:
    if not isinstance(event, dict):
        return ""
    sent = event.get("eventId", event.get("messageId"))
    return sent if isinstance(sent, str) and len(sent) <= MAX_EVENT_ID else ""
