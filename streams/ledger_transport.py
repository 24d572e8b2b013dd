"""Faust's Kafka transport with one difference: partitions start where the warehouse's ledger ends.

Faust seeks to the group's committed offsets after a rebalance and before it delivers anything; here it waits until the
state of the assigned partitions is read back, and seeks to the position of each. Overrides a public method of
faust-streaming 0.15.3; `tests/contract/test_ledger_transport.py` holds it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP

#: Takes each assigned partition with the number of partitions of its topic, answers where each starts.
OpenPartitions = Callable[[Mapping[TP, int]], Awaitable[Mapping[TP, int]]]


class LedgerConsumer(Consumer):
    """Asks `open_partitions` (set on the app's transport) where each assigned partition starts."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek the assigned partitions to their positions in the ledger."""
        open_partitions: OpenPartitions = self.transport.open_partitions
        assigned = {tp: self.topic_partitions(tp.topic) or 0 for tp in self.assignment()}
        starts = await open_partitions(assigned)
        await self.seek_wait(starts)
        return starts


class LedgerTransport(Transport):
    """The transport to set on an app."""

    Consumer = LedgerConsumer

    def __init__(self, *args: Any, open_partitions: OpenPartitions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open_partitions = open_partitions
