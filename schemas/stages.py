"""Frozen types for what passes through the pipeline, named by what has been done to it.

msgspec structs that the garbage collector does not track: a worker makes some for every record.
"""

from collections.abc import Iterable
from itertools import groupby
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


class ValidatedRecord(msgspec.Struct, frozen=True, gc=False):
    """The events of a record that are of a known tenant, in the range of time that is kept, as schema and plan ask.

    Of each event: `times` has its timestamp, corrected for the client's clock, and `properties` those of the source
    parsed, None where they are no JSON.
    """

    decoded: DecodedRecord
    events: list[CollectedEvent]
    times: list[int]
    properties: list[Any]


class EnrichedRun(msgspec.Struct, frozen=True, gc=False):
    """Consecutive events of one record that share a context, redacted; `times` are theirs.

    `context` is complete: values in the order of CONTEXT_FIELDS, then bot. Nearly every record is one run, and what
    holds for all events of a run is worked out once.
    """

    record: CollectedRecord
    offset: int
    context: tuple[str | bool, ...]
    events: list[CollectedEvent]
    times: list[int]


class Rejection(msgspec.Struct, frozen=True):
    """An event (or, at position -1, a whole record) that cannot be stored, and why.

    `oldest` is the earliest time at which a copy of the event may have been received (ms), 0 where nothing is known.
    """

    offset: int
    position: int
    reason: Reason
    field: str
    message: str
    company_id: str = ""
    event_id: str = ""
    received_at: int = 0
    oldest: int = 0
    content_type: str = "json"
    payload: bytes = b""


class EventRun(msgspec.Struct, frozen=True, gc=False):
    """Rows of `events` that agree in what their record and context say: `own` has a tuple of OWN_COLUMNS for each."""

    own: list[tuple[Any, ...]]
    shared: tuple[Any, ...]

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows whole, in the order of EVENT_COLUMNS."""
        return [own + self.shared for own in self.own]


def runs_of(rows: Iterable[tuple[Any, ...]]) -> list[EventRun]:
    """Rows in the order of EVENT_COLUMNS as runs."""
    own = len(OWN_COLUMNS)
    return [EventRun([row[:own] for row in run], shared) for shared, run in groupby(rows, lambda row: row[own:])]


#: The columns of `events` that each event has of its own.
OWN_COLUMNS: Final = (
    "eventId",
    "timestamp",
    "userId",
    "previousId",
    "sessionId",
    "type",
    "identity",
    "eventCategory",
    "eventAction",
    "eventLabel",
    "value",
    "properties",
)
#: Those in which the events of a run agree.
SHARED_COLUMNS: Final = (
    "receivedAt",
    "companyId",
    "anonymousId",
    *CONTEXT_FIELDS,
    "bot",
    "logId",
    "logPartition",
    "logOffset",
    "journal",
    "sequence",
)
#: All that a worker fills, in the order of a row.
EVENT_COLUMNS: Final = (*OWN_COLUMNS, *SHARED_COLUMNS)
