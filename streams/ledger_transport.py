"""Faust's Kafka transport with one difference: partitions start where the warehouse's ledger ends.

Faust seeks to the group's committed offsets after its signal that a rebalance is complete, and before it delivers
anything. The signal's handler reads the state of the assigned partitions back, with as much time as it takes, and
leaves their positions in `starts`. Overrides a public method of faust-streaming 0.15.3.
"""

from collections.abc import Mapping

from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP


class LedgerConsumer(Consumer):
    """Seeks to `starts`, also where a partition starts at 0: what Faust would do there depends on the group's past."""

    starts: Mapping[TP, int] = {}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek the assigned partitions to their positions in the ledger."""
        starts = {tp: self.starts[tp] for tp in self.assignment()}
        await self.seek_wait(starts)
        return starts


class LedgerTransport(Transport):
    """The transport to set on an app."""

    Consumer = LedgerConsumer
