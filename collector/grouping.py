"""Groups a request's events into records, one visitor's each, their order kept."""

from dataclasses import dataclass
from typing import Final

from collector.context import differences
from collector.limits import MAX_RECORD_TEXT
from collector.segment import Context
from collector.sink import Outgoing
from schemas.context import CONTEXT_FIELDS
from schemas.identifiers import record_key
from schemas.records import CollectedEvent, CollectedRecord
from schemas.topics import COLLECTED

_EMPTY_CONTEXT: Final[Context] = dict.fromkeys(CONTEXT_FIELDS, "")
_FIXED_TEXT = 256  # an event's ids, names and numbers


@dataclass(slots=True)
class _Group:
    """A record that is being filled, the context its events are compared with, and roughly its length as text."""

    record: CollectedRecord
    visitor: str
    context: Context
    length: int = 0


class Groups:
    """The records of one request; a visitor gets another one when the last is full. Times are ms since the epoch."""

    def __init__(self, company_id: str, received_at: int, sent_at: int | None) -> None:
        self._company_id, self._received_at, self._sent_at = company_id, received_at, sent_at
        self._open: dict[tuple[str, str], _Group] = {}
        self._all: list[_Group] = []

    def add(self, visitor: str, anonymous_id: str, event: CollectedEvent, context: Context) -> None:
        """Put the event at the end of its visitor's record; its context becomes what differs from the record's."""
        group = self._open.get((visitor, anonymous_id))
        if group is not None and context is not group.context:
            event["context"] = differences(context, group.context)
        length = _length_of(event)
        if group is None or group.length + length > MAX_RECORD_TEXT:
            event["context"] = {}
            group = self._open_group(visitor, anonymous_id, context)
        group.record["events"].append(event)
        group.length += length

    def _open_group(self, visitor: str, anonymous_id: str, context: Context) -> _Group:
        record: CollectedRecord = {
            "companyId": self._company_id,
            "anonymousId": anonymous_id,
            "receivedAt": self._received_at,
            "sentAt": self._sent_at,
            "journal": "",
            "sequence": 0,
            "context": {**_EMPTY_CONTEXT, **context},
            "events": [],
        }
        group = self._open[visitor, anonymous_id] = _Group(record, visitor, context)
        self._all.append(group)
        return group

    def outgoing(self) -> list[Outgoing]:
        """The records, in the order of their first events."""
        return [self._outgoing(group) for group in self._all]

    def _outgoing(self, group: _Group) -> Outgoing:
        key = record_key(self._company_id, group.visitor)
        return Outgoing(COLLECTED, key, group.record, len(group.record["events"]))


def _length_of(event: CollectedEvent) -> int:
    own = sum(map(len, event["context"].values())) if event["context"] else 0
    return _FIXED_TEXT + len(event["properties"]) + len(event["eventLabel"]) + own
