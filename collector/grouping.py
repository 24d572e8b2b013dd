"""Groups a request's events into records, one visitor's each, their order kept."""

from dataclasses import dataclass
from typing import Final

from collector.context import differences
from collector.limits import MAX_RECORD_TEXT
from collector.segment import Context
from collector.sink import Outgoing
from schemas.context import CONTEXT_FIELDS
from schemas.identifiers import record_key, visitor_of
from schemas.records import CollectedEvent, CollectedRecord
from schemas.topics import COLLECTED

_EMPTY_CONTEXT: Final[Context] = dict.fromkeys(CONTEXT_FIELDS, "")
_FIXED_TEXT = 256  # an event's ids, names and numbers


@dataclass(slots=True)
class _Group:
    """A record that is being filled, the context its events are compared with, and roughly its length as text."""

    record: CollectedRecord
    events: list[CollectedEvent]
    visitor: str
    context: Context
    length: int = 0


class Groups:
    """The records of one request; a visitor gets another one when the last is full. Times are ms since the epoch."""

    def __init__(self, company_id: str, received_at: int, sent_at: int | None) -> None:
        self._company_id, self._received_at, self._sent_at = company_id, received_at, sent_at
        self._open: dict[tuple[str, str], _Group] = {}
        self._all: list[_Group] = []
        self._who: tuple[str, str] | None = None
        self._key = ("", "")
        self._group: _Group | None = None

    def add(self, anonymous_id: str, event: CollectedEvent, context: Context) -> None:
        """Put the event at the end of its visitor's record; its context becomes what differs from the record's."""
        who = (anonymous_id, event["userId"])
        if who != self._who:  # nearly always the same as before it
            self._who, visitor = who, visitor_of(*who)
            # An anonymousId that is a placeholder names nobody: the record is then the userId's.
            self._key = (visitor, anonymous_id if visitor == anonymous_id else "")
            self._group = self._open.get(self._key)
        group = self._group
        length = _FIXED_TEXT + len(event["properties"]) + len(event["eventLabel"])
        if group is not None and context is not group.context:
            event["context"] = own = differences(context, group.context)
            length += sum(map(len, own.values()))
        if group is None or group.length + length > MAX_RECORD_TEXT:
            event["context"] = {}
            group = self._open_group(context)
        group.events.append(event)
        group.length += length

    def _open_group(self, context: Context) -> _Group:
        visitor, anonymous_id = self._key
        events: list[CollectedEvent] = []
        record: CollectedRecord = {
            "companyId": self._company_id,
            "anonymousId": anonymous_id,
            "receivedAt": self._received_at,
            "sentAt": self._sent_at,
            "journal": "",
            "sequence": 0,
            "context": {**_EMPTY_CONTEXT, **context},
            "events": events,
        }
        group = self._group = self._open[self._key] = _Group(record, events, visitor, context)
        self._all.append(group)
        return group

    def outgoing(self) -> list[Outgoing]:
        """The records, in the order of their first events."""
        return [self._outgoing(group) for group in self._all]

    def _outgoing(self, group: _Group) -> Outgoing:
        key = record_key(self._company_id, group.visitor)
        return Outgoing(COLLECTED, key, group.record, len(group.events))
