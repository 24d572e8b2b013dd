"""What waits for the log's acknowledgement: the records of each partition, in order, and their bytes all together."""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.topics import MAX_RECORD_BYTES

RETRY_SECONDS: Final = 0.2


class LogUnavailable(Exception):
    """The log has not acknowledged the record; it may hold it all the same."""


class Position(NamedTuple):
    """Where the log holds a record."""

    partition: int
    offset: int


@dataclass(slots=True, eq=False)
class QueuedRecord:
    """A record on its way: with a `session` it goes out in that session only, else until `deadline` (loop time)."""

    key: bytes
    value: bytes
    size: int  # bytes in a batch, at most
    session: int | None
    deadline: float
    acknowledged: asyncio.Future[Position] | None = None  # None: a later record of the partition tells for it

    def may_wait(self, now: float) -> bool:
        """Whether it may be tried again after a failure."""
        return self.session is None and now < self.deadline


class Unacknowledged:
    """The bytes that wait for an acknowledgement, and their bound."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes, self._max_bytes = 0, max_bytes
        self._less = asyncio.Event()

    def release(self, records: Iterable[QueuedRecord]) -> None:
        """The records wait no more."""
        self.bytes -= sum(record.size for record in records)
        self._less.set()

    async def room(self, deadline: float) -> None:
        """Wait until there is room; raises LogUnavailable at the deadline (loop time, may be infinite)."""
        if self.bytes < self._max_bytes:
            return
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                while self.bytes >= self._max_bytes:
                    await self._change()
        except TimeoutError:
            raise LogUnavailable(f"{self.bytes} bytes wait for the log, the most that may.") from None

    async def settled(self, seconds: float) -> None:
        """Wait until nothing is left, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self.bytes:
                    await self._change()
        except TimeoutError:
            return

    async def _change(self) -> None:
        self._less.clear()
        await self._less.wait()


@dataclass(slots=True, eq=False)
class PartitionQueue:
    """The records of one partition, oldest first; `busy` while a batch of it is in flight."""

    topic: str
    number: int
    unacknowledged: Unacknowledged
    records: deque[QueuedRecord] = field(default_factory=deque)
    busy: bool = False
    not_before: float = 0.0

    def put(self, record: QueuedRecord) -> None:
        """Queue a record behind the others."""
        self.records.append(record)
        self.unacknowledged.bytes += record.size

    def take(self, session: int) -> list[QueuedRecord]:
        """The next batch; records of an earlier session are failed on the way."""
        batch: list[QueuedRecord] = []
        size = 0
        while self.records and size + self.records[0].size <= MAX_RECORD_BYTES:
            record = self.records.popleft()
            if record.session in (None, session):
                batch.append(record)
                size += record.size
            else:
                self.fail([record], "The connection to the log was lost after the record was queued.")
        return batch

    def acknowledge(self, batch: list[QueuedRecord], offset: int) -> None:
        """The log has the batch from `offset` on."""
        for place, record in enumerate(batch, offset):
            if record.acknowledged is not None and not record.acknowledged.done():
                record.acknowledged.set_result(Position(self.number, place))
        self.unacknowledged.release(batch)

    def refuse(self, batch: list[QueuedRecord], error: Exception, now: float) -> None:
        """The batch failed. What may wait is queued again in its place; the rest, and the queue's rest, fails."""
        records = [*batch, *self.records]
        self.records = deque(record for record in records if record.may_wait(now))
        self.fail([record for record in records if not record.may_wait(now)], str(error) or type(error).__name__)
        self.not_before = now + RETRY_SECONDS

    def fail(self, records: list[QueuedRecord], reason: str) -> None:
        """Tell the waiting that the log has not acknowledged."""
        for record in records:
            if record.acknowledged is not None and not record.acknowledged.done():
                record.acknowledged.set_exception(LogUnavailable(f"{self.topic}/{self.number}: {reason}"))
                record.acknowledged.exception()  # seen: one that nobody waits for any more is not worth a log line
        self.unacknowledged.release(records)
