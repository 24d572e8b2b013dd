"""The partitions that this worker owns: one writer each, opened on assignment and closed on revocation."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka import ConsumerRecord
from faust.types import TP, EventT

from schemas import metrics
from schemas.blocks import Partition
from schemas.stages import LogRecord
from streams.writer import PartitionWriter, Pending, open_writers

log = structlog.get_logger(__name__)
_GAUGES: Final = (metrics.WORKER_LAG_RECORDS, metrics.WORKER_LAG_SECONDS, metrics.WORKER_PAUSED_PARTITIONS)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A partition that is this worker's now, and how many its topic has."""

    partition: Partition
    partitions: int


class Partitions:
    """Opens, feeds and closes the writers. `on_failure` is told of an error that ends a writer; the worker stops."""

    def __init__(
        self, new_writer: Callable[[Assignment], PartitionWriter], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._new_writer = new_writer
        self._on_failure = on_failure
        self._writers: dict[TP, PartitionWriter] = {}
        self._running: dict[TP, asyncio.Task[None]] = {}

    @property
    def owned(self) -> Mapping[TP, PartitionWriter]:
        """The writers of the partitions owned now."""
        return self._writers

    async def open(self, assigned: Mapping[TP, Assignment]) -> dict[TP, int]:
        """Begin anew with these partitions: read states back, return the positions."""
        await self.close(self._writers, finish=False)
        log.info("partitions_assigned", partitions=len(assigned))
        writers = {tp: self._new_writer(assignment) for tp, assignment in assigned.items()}
        positions = await open_writers(list(writers.values()))
        self._writers = writers
        for tp, writer in writers.items():
            self._running[tp] = asyncio.create_task(writer.run(), name=f"writer {writer.partition}")
            self._running[tp].add_done_callback(self._note_end)
        metrics.WORKER_PARTITIONS.set(len(writers))
        return dict(zip(writers, positions, strict=True))

    def refuse(self, error: BaseException) -> None:
        """Nothing can be opened: the worker stops."""
        self._on_failure(error)

    def has_room(self, tp: TP) -> bool:
        """Whether the partition's writer takes more now; one without a writer is not this worker's any more."""
        writer = self._writers.get(tp)
        return writer is not None and writer.has_room

    def put(self, event: EventT) -> None:
        """Hand the records of one poll to their partition's writer.

        Those of a revoked partition are dropped: its next owner reads them. The event is acknowledged with its last.
        """
        message = event.message
        writer = self._writers.get(message.tp)
        if writer is not None:
            records: Sequence[ConsumerRecord] = message.value
            last = len(records) - 1
            writer.put(
                Pending(
                    LogRecord(record.offset, record.key, record.value),
                    record.timestamp / 1000,
                    event.ack if place == last else None,
                )
                for place, record in enumerate(records)
            )

    async def close(self, partitions: Iterable[TP], *, finish: bool) -> None:
        """Close the writers of these partitions, at once or after what is pending is written."""
        closing = [tp for tp in partitions if tp in self._writers]
        await asyncio.gather(*(self._close_one(tp, finish) for tp in closing))
        metrics.WORKER_PARTITIONS.set(len(self._writers))

    def measure_lag(self, highwater: Callable[[TP], int | None], now: float) -> None:
        """Set each partition's gauges; `highwater` gives the log's end where it is known, `now` is in seconds."""
        for tp, writer in self._writers.items():
            records = max((highwater(tp) or 0) - writer.position, 0)
            oldest = writer.oldest_pending
            seconds = 0.0 if oldest is None else max(now - oldest, 0.0)
            metrics.WORKER_LAG_RECORDS.labels(tp.topic, str(tp.partition)).set(records)
            metrics.WORKER_LAG_SECONDS.labels(tp.topic, str(tp.partition)).set(seconds)
            metrics.WORKER_PAUSED_PARTITIONS.labels(tp.topic, str(tp.partition)).set(writer.paused)

    async def _close_one(self, tp: TP, finish: bool) -> None:
        writer = self._writers.pop(tp)
        for gauge in _GAUGES:
            with contextlib.suppress(KeyError):  # it was not measured yet
                gauge.remove(tp.topic, str(tp.partition))
        running = self._running.pop(tp)
        await writer.close()
        await asyncio.gather(running, return_exceptions=True)
        if finish and not running.cancelled() and running.exception() is None:
            await writer.write_rest()
        await writer.end()

    def _note_end(self, running: "asyncio.Task[None]") -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            self._on_failure(error)
