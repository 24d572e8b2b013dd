"""Faust's Kafka transport with three differences, all for faust-streaming 0.15.3, whose methods it overrides.

Partitions start where the warehouse's ledger ends. Faust seeks to the group's committed offsets after its signal that a
rebalance is complete, and before it delivers anything. The signal's handler reads the state of the assigned partitions
back, with as much time as it takes, and leaves their positions in `starts`.

An agent is handed all records that one poll found of a partition as one message: its value is the tuple of records, its
offset that of the last. Faust's way of a message through its tasks, queues and acknowledgements costs four times what
reading it from the broker does, and is paid once a poll so. Partitions whose writer is full are not polled, so that one
does not hold up the others.

The log is asked about ten times a second while there is something to read. aiokafka asks again as soon as it was
answered, and under a steady stream every answer holds the one record that has come meanwhile: that was half of a
worker's work.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage

_LOOK_AGAIN: Final = 0.05  # seconds after which a partition that was full is asked for again
_PACE: Final = 0.1  # seconds from one answer that held records to the next question


class LedgerConsumerThread(AIOKafkaConsumerThread):
    """Lets aiokafka ask the log only while somebody waits for the answer."""

    async def _fetch_records(self, consumer: AIOKafkaConsumer, active_partitions: set[TP], **options: Any) -> Any:
        wanted = active_partitions & consumer.assignment()
        consumer.resume(*wanted)
        try:
            return await super()._fetch_records(consumer, active_partitions, **options)
        finally:
            consumer.pause(*(wanted & consumer.assignment()))


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
        records = await self._poll(timeout)
        self._next_poll = clock() + _PACE if records else 0.0
        for tp, found in records.items():
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return  # a rebalance began: whoever owns the partition then reads it from its position
            if found:
                yield tp, self._batch_message(tp, found)

    async def _poll(self, timeout: float) -> Mapping[TP, list[Any]]:
        active = self._get_active_partitions()
        open_now = {tp for tp in active if self.has_room(tp)}
        if not open_now:
            await self.sleep(_LOOK_AGAIN)
            return {}
        patience = timeout if len(open_now) == len(active) else _LOOK_AGAIN
        found: Mapping[TP, list[Any]] = await self._getmany(active_partitions=open_now, timeout=patience)
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
