"""Where accepted records go: the contract that the Kafka, journal and memory sinks share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schemas.records import CollectedRecord, DeadLetter


class Outgoing(NamedTuple):
    """One record on its way to the log; `record` is encoded by the sink, which may number it first."""

    topic: str
    key: str
    record: CollectedRecord | DeadLetter
    events: int  # events accepted with this record; 0 for a dead letter


class SinkUnavailable(Exception):
    """Neither the log nor the local disk can take records now; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Sink(Protocol):
    """Takes records durably.

    `send` returns once every record is acknowledged by the log (acks=all) or fsynced on local disk, and raises
    SinkUnavailable when it can promise neither; then none of the records may be called accepted, though some may
    arrive. `ready` is false while neither way is open. `close` finishes what was sent and lets go of everything.
    """

    async def send(self, records: Sequence[Outgoing]) -> None: ...

    def ready(self) -> bool: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class MemorySink:
    """Keeps records in a list; `available = False` makes it refuse like a full spool beside an absent log."""

    records: list[Outgoing] = field(default_factory=list)
    available: bool = True

    async def send(self, records: Sequence[Outgoing]) -> None:
        if not self.available:
            raise SinkUnavailable("The memory sink was told to refuse.", retry_after=5)
        self.records.extend(records)

    def ready(self) -> bool:
        return self.available

    async def close(self) -> None:
        self.available = False
