"""Which log each assigned partition is of, and whether the ledger fits it: asked before a worker reads a record."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import structlog
from faust.types import TP

from headrace.log_identity import BrokerUnavailable, Topic, describe_topics, read_extents
from schemas.blocks import Partition, StoreUnavailable
from schemas.fit import REPAIR, LedgerRefused, LogExtent, Misfit, find_misfit
from schemas.settings import BrokerSettings
from schemas.topics import SPECS
from streams.partitions import Assignment
from warehouse.extents import ClickHouseExtents
from warehouse.logs import ClickHouseLogs

log = structlog.get_logger(__name__)
#: A new leader may not know for a moment how far its followers had acknowledged (KIP-207), and answers too low an end.
_PATIENCE: Final = 10
_LOOK_AGAIN: Final = 1.0


class LogFit:
    """Asks broker and ledger. Each method raises BrokerUnavailable and StoreUnavailable."""

    def __init__(self, broker: BrokerSettings, logs: ClickHouseLogs, extents: ClickHouseExtents) -> None:
        self._broker, self._logs, self._extents = broker, logs, extents

    async def assign(self, partitions: Collection[TP]) -> Mapping[TP, Assignment]:
        """What each of these is of, once broker and ClickHouse answer; raises LedgerRefused where one does not fit."""
        for attempt in range(1, 1_000_000):
            try:
                assigned = await self.identify(partitions, also=SPECS)
                misfits = await self.misfits(assigned)
            except (BrokerUnavailable, StoreUnavailable) as error:
                log.warning("assignment_waits", error=str(error))
            else:
                if not misfits:
                    return assigned
                if attempt >= _PATIENCE or any(misfit.repair != "new_log" for misfit in misfits.values()):
                    raise LedgerRefused(" ".join([*(misfit.sentence for misfit in misfits.values()), f"{REPAIR}."]))
            await asyncio.sleep(_LOOK_AGAIN)
        raise AssertionError("unreachable")

    async def identify(self, partitions: Collection[TP], also: Iterable[str] = ()) -> Mapping[TP, Assignment]:
        """The log of each partition; raises LedgerRefused where its topic, or one of these, was created anew."""
        topics = await describe_topics(self._broker)
        names = {tp.topic for tp in partitions}.union(also)
        log_ids = {name: await asyncio.to_thread(self._find, name, topics[name]) for name in names}
        return {
            tp: Assignment(Partition(log_ids[tp.topic], tp.topic, tp.partition), topics[tp.topic].partitions)
            for tp in partitions
        }

    async def misfits(self, assigned: Mapping[TP, Assignment]) -> Mapping[TP, Misfit]:
        """Where the ledger does not fit.

        The log's beginning is read before the ledger and its end after it: both rise, so that neither can seem to be
        where the ledger is not yet.
        """
        before = await read_extents(self._broker, assigned)
        ledgers = await asyncio.to_thread(
            lambda: {tp: self._extents.read(assignment.partition) for tp, assignment in assigned.items()}
        )
        after = await read_extents(self._broker, assigned)
        found = {
            tp: find_misfit(assigned[tp].partition, ledger, LogExtent(before[tp].begin, after[tp].end))
            for tp, ledger in ledgers.items()
        }
        return {tp: misfit for tp, misfit in found.items() if misfit}

    def _find(self, name: str, topic: Topic) -> str:
        return self._logs.find(topic.cluster, name, topic.topic_id)
