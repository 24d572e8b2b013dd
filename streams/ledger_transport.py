"""Faust's Kafka transport with three differences, all for faust-streaming 0.15.3, whose methods it overrides.

Partitions start where the warehouse's ledger ends. Faust seeks to the group's committed offsets after its signal that a
rebalance is complete, and before it delivers anything. The signal's handler reads the state of the assigned partitions
back, with as much time as it takes, and leaves their positions in `starts`.

An agent is handed all records that one poll found of a partition as one message: its value is the tuple of records, its
offset that of the last. Faust's way of a message through its tasks, queues and acknowledgements costs four times what
reading it from the broker does, and is paid once a poll so. Partitions whose writer is full are not polled, so that one
does not hold up the others.

The log is asked once a poll, ten times a second. aiokafka by itself asks again as soon as it was answered: under a
steady stream every answer then holds the one record that has come meanwhile, and a broker that answers at once that
there is nothing (the embedded one does) is asked a thousand times a second. That was half of a worker's work.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage

_PACE: Final = 0.1  # seconds from one poll to the next
_TURNS: Final = 8  # of the event loop; aiokafka's fetcher needs three to see that a partition was resumed, and to ask


class LedgerConsumerThread(AIOKafkaConsumerThread):
    """Keeps the partitions paused but for the moments in which a poll takes what has come, or asks for more, once."""

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> RecordMap:
        with _resumed(consumer, active_partitions):
            found: RecordMap = await super()._fetch_records(consumer, active_partitions, None, max_records)
        if found:
            return found
        answered = consumer._fetcher._create_fetch_waiter()
        with _resumed(consumer, active_partitions):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        await asyncio.wait([answered], timeout=timeout)
        answered.cancel()
        with _resumed(consumer, active_partitions):
            return await super()._fetch_records(consumer, active_partitions, None, max_records)


@contextlib.contextmanager
def _resumed(consumer: AIOKafkaConsumer, partitions: set[TP]) -> Iterator[None]:
    consumer.resume(*_of_consumer(consumer, partitions))
    try:
        yield
    finally:
        consumer.pause(*_of_consumer(consumer, partitions))


def _of_consumer(consumer: AIOKafkaConsumer, partitions: set[TP]) -> list[Any]:
    """Those that are assigned, as aiokafka's own tuples: of two equal ones it takes only them."""
    return [partition for partition in consumer.assignment() if partition in partitions]


class LedgerConsumer(Consumer):
    """Seeks to `starts`, also where a partition starts at 0: what Faust would do there depends on the group's past.

    `has_room` says whether more records of a partition may be delivered now.
    """

    starts: Mapping[TP, int] = {}
    has_room: Callable[[TP], bool]
    _next_poll = 0.0

    def _new_consumer_thread(self) -> LedgerConsumerThread:
        return LedgerConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def highwater(self, tp: TP) -> int | None:
        """The log's end as far as it is known; aiokafka asserts that the partition is assigned, which may be over."""
        try:
            end: int | None = super().highwater(tp)
        except AssertionError:
            return None
        return end

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek the assigned partitions to their positions in the ledger."""
        starts = {tp: self.starts[tp] for tp in self.assignment()}
        await self.seek_wait(starts)
        return starts

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message for each partition of which records were found within `timeout` (s)."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        clock = asyncio.get_running_loop().time
        if (pause := self._next_poll - clock()) > 0:
            await self.sleep(pause)
        self._next_poll = clock() + _PACE
        records = await self._poll(min(timeout, _PACE))
        for tp, found in records.items():
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return  # a rebalance began: whoever owns the partition then reads it from its position
            if found:
                yield tp, self._batch_message(tp, found)

    async def _poll(self, timeout: float) -> Mapping[TP, list[Any]]:
        active = self._get_active_partitions()
        open_now = {tp for tp in active if self.has_room(tp)}
        if not open_now:
            return {}
        found: Mapping[TP, list[Any]] = await self._getmany(active_partitions=open_now, timeout=timeout)
        return found

    def _batch_message(self, tp: TP, records: list[Any]) -> ConsumerMessage:
        last = records[-1]
        message = self._to_message(tp, last)
        message.key, message.value = None, tuple(records)
        return message

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """No gaps are kept: between the ends of two messages are the records of the second."""

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: writers acknowledge in the order of the log, so the last says it all."""
        acked = self._acked[tp]
        if not acked:
            return None
        offset: int = acked[-1] + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset


class LedgerTransport(Transport):
    """The transport to set on an app."""

    Consumer = LedgerConsumer
