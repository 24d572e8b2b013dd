"""From the events of a request to records for the log and a verdict for each: pure, time and ids passed in.

What is wrong with an event is a value, never an exception, and every rejected event becomes a dead letter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from collector.answers import Refused
from collector.arrival import Arrival
from collector.batch import Batch
from collector.checking import check_closely, check_shapes, collect
from collector.context import Contexts
from collector.grouping import Groups
from collector.letters import letter_of_event
from collector.sink import Outgoing
from collector.times import epoch_ms_or_none
from schemas.sent import MAX_EVENT_ID, PlainEvent, Sent, SentContext, SentEvent


class Intake(NamedTuple):
    """What a request becomes: records in the order to send them, each event's id, and why some are not taken."""

    records: list[Outgoing]
    event_ids: list[str]
    refused: Mapping[int, Refused]  # by place among the events

    @property
    def accepted(self) -> int:
        """How many events are taken."""
        return len(self.event_ids) - len(self.refused)


def take(batch: Batch, arrival: Arrival) -> Intake:
    """The records and verdicts of a request.

    Raises RequestRefused only for a body out of which its rejected events cannot be cut.
    """
    contexts = Contexts(batch.context, arrival.sender)
    groups = Groups(arrival.company_id, arrival.received_at, epoch_ms_or_none(batch.sent_at))
    event_ids: list[str] = []
    refused: dict[int, Refused] = {}
    for sent, own in _shapes(batch):
        event = sent if isinstance(sent, Refused) else collect(sent, arrival)
        if isinstance(event, Refused):
            refused[len(event_ids)] = event
            event_ids.append(_id_of(batch.event(len(event_ids))) or arrival.mint_id())
        else:
            assert not isinstance(sent, Refused)
            groups.add(sent.anonymous_id or "", event, contexts.of(own, sent))
            event_ids.append(event["eventId"])
    letters = _letters(batch, arrival, event_ids, refused) if refused else []
    return Intake(groups.outgoing() + letters, event_ids, refused)


def _shapes(batch: Batch) -> Sequence[tuple[Sent | Refused, SentContext]]:
    """Every event, or why it is none, and its own context."""
    if batch.plain is None:
        return [_with_context(sent) for sent in check_shapes(batch.typed_events())]
    return [sent or _with_context(check_closely(batch.event(place))) for place, sent in enumerate(batch.plain)]


def _with_context(sent: SentEvent | PlainEvent | Refused) -> tuple[Sent | Refused, SentContext]:
    return sent, None if isinstance(sent, Refused) else sent.context


def _letters(batch: Batch, arrival: Arrival, event_ids: list[str], refused: Mapping[int, Refused]) -> list[Outgoing]:
    payloads, request_id = batch.payloads(refused), arrival.mint_id()
    return [
        letter_of_event(arrival, f"collector/{request_id}/{at}", at, event_ids[at], why, payloads[at])
        for at, why in refused.items()
    ]


def _id_of(event: Any) -> str:
    if not isinstance(event, dict):
        return ""
    sent = event.get("eventId", event.get("messageId"))
    return sent if isinstance(sent, str) and len(sent) <= MAX_EVENT_ID else ""
