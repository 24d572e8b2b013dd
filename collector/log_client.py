"""Appends records to partitions of the log, in order, and says when each is acknowledged.

aiokafka's producer reconnects and retries by itself. Against a broker that died and came back without its memory that
would put record 11 on the empty log before the lost 6 to 10 are sent again, and readers, who drop what is not newer
than the last they saw, would lose them. So this client owns its connections and counts sessions: a session is a
stretch of time in which no connection was lost and no batch refused. A caller who names the session with a record has
it fail, rather than go out, in a later one. An idempotent producer would add nothing: at most one batch of a partition
is in flight, and readers recognise what comes twice.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.produce import ProduceRequest

from collector.broker_connections import BrokerConnections
from collector.partition_queue import (
    RETRY_SECONDS,
    LogUnavailable,
    PartitionQueue,
    Position,
    QueuedRecord,
    Unacknowledged,
)
from collector.record_batch import encode_batch, partition_of
from schemas.topics import MAX_RECORD_BYTES, RECORD_OVERHEAD

METADATA_SECONDS: Final = 60.0
_ALL_REPLICAS: Final = -1
_UNKNOWN_ERROR: Final = -1

_log = structlog.get_logger(__name__)
_Batches = dict[PartitionQueue, list[QueuedRecord]]


class RecordTooLarge(ValueError):
    """The record is larger than a broker with default limits takes; sending it again is of no use."""


class LogClient:
    """Appends with acks=all; at most one batch of a partition, and one request to a broker, in flight.

    `options` are those of `BrokerSettings.client_options()`. A record without a session is tried again for
    `ack_seconds` and then fails with LogUnavailable; one with a session fails as soon as that session is over.
    `linger_seconds` gathers records into a batch; `max_bytes` bounds what waits for an acknowledgement.
    `available` says whether the last batch was acknowledged.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        ack_seconds: float = 5.0,
        linger_seconds: float = 0.005,
        max_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.session = 0
        self.available = False
        self.ack_seconds = ack_seconds
        self._linger, self._clock = linger_seconds, clock
        self._brokers = BrokerConnections(options, ack_seconds, on_drop=self._end_session)
        self._unacknowledged = Unacknowledged(max_bytes)
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._busy: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshed_at = 0.0
        self._closed = False
        self._session_over = asyncio.Event()

    async def append(
        self, topic: str, key: bytes, value: bytes, session: int | None = None
    ) -> asyncio.Future[Position]:
        """Queue a record for the partition of its key; the future resolves when the log has acknowledged it.

        Waits while too much is unacknowledged or the topic is unknown. Records of one partition keep the order of the
        calls. Raises RecordTooLarge, and LogUnavailable where there is no room or no such topic in time; the future
        raises LogUnavailable too.
        """
        size = _size_of(topic, key, value)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.ack_seconds if session is None else math.inf
        partitions = await self._open(topic, deadline, session)
        acknowledged: asyncio.Future[Position] = loop.create_future()
        record = QueuedRecord(key, value, size, session, deadline, acknowledged)
        self._queue(topic, partition_of(key, partitions)).put(record)
        self._arm()
        return acknowledged

    async def append_all(
        self, topic: str, records: Sequence[tuple[bytes, bytes]], session: int
    ) -> list[tuple[int, asyncio.Future[Position]]]:
        """Queue many records, (key, value), of a session; one future for each partition that they belong to.

        It stands beside the place among `records` of the partition's last one, and when it resolves, those before it
        are acknowledged too: a partition is acknowledged in order, and one record that fails ends the session for all.
        Waits and raises as `append` does, with what was queued before going out or failing unseen.
        """
        partitions = await self._open(topic, math.inf, session)
        last: dict[PartitionQueue, tuple[int, QueuedRecord]] = {}
        for place, (key, value) in enumerate(records):
            record = QueuedRecord(key, value, _size_of(topic, key, value), session, math.inf)
            queue = self._queue(topic, partition_of(key, partitions))
            queue.put(record)
            last[queue] = (place, record)
        self._arm()
        new_future = asyncio.get_running_loop().create_future
        for _, record in last.values():
            record.acknowledged = new_future()
        return [(place, record.acknowledged) for place, record in last.values() if record.acknowledged]

    async def _open(self, topic: str, deadline: float, session: int | None) -> int:
        """Wait until records of the topic can be queued; its number of partitions."""
        await self._unacknowledged.room(deadline)
        partitions = self._brokers.partitions(topic) or await self._learn(topic, deadline, session)
        if self._closed:
            raise LogUnavailable("The client of the log is closed.")
        return partitions

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as far as is known; 0 where it is not."""
        return self._brokers.partitions(topic)

    async def session_over(self, session: int) -> None:
        """Return once this session is over: what was acknowledged in it may be lost."""
        while self.session == session:
            await self._session_over.wait()

    async def close(self, seconds: float = 0.0) -> None:
        """Refuse new records, wait up to `seconds` for what is queued, fail the rest, close the connections."""
        self._closed = True
        await self._unacknowledged.settled(seconds)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues.values():
            queue.fail(list(queue.records), "The client of the log was closed.")
            queue.records.clear()
        self.available = False
        await self._brokers.close()

    def _queue(self, topic: str, number: int) -> PartitionQueue:
        queue = self._queues.get((topic, number))
        if queue is None:
            queue = self._queues[topic, number] = PartitionQueue(topic, number, self._unacknowledged)
        return queue

    async def _learn(self, topic: str, deadline: float, session: int | None) -> int:
        while not self._closed:
            reason = f"The log has no topic {topic}."
            try:
                await self._brokers.refresh(topic)
            except (KafkaError, OSError, TimeoutError) as error:
                reason = str(error)
            if partitions := self._brokers.partitions(topic):
                return partitions
            self.available = False
            if session is not None or asyncio.get_running_loop().time() >= deadline:
                raise LogUnavailable(reason)
            await asyncio.sleep(RETRY_SECONDS)
        raise LogUnavailable("The client of the log is closed.")

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._dispatch)

    def _dispatch(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        by_leader: dict[int, list[PartitionQueue]] = {}
        for queue in self._queues.values():
            if queue.records and not queue.busy and queue.not_before <= now:
                by_leader.setdefault(self._brokers.leader(queue.topic, queue.number), []).append(queue)
        for leader, queues in by_leader.items():
            if leader not in self._busy:
                self._occupy(leader, queues, True)
                self._start(self._serve(leader, queues))
        if now - self._refreshed_at > METADATA_SECONDS:
            self._refreshed_at = now
            self._start(self._refresh())

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _occupy(self, leader: int, queues: list[PartitionQueue], busy: bool) -> None:
        (self._busy.add if busy else self._busy.discard)(leader)
        for queue in queues:
            queue.busy = busy

    async def _serve(self, leader: int, queues: list[PartitionQueue]) -> None:
        try:
            await self._send(leader, queues)
            if not self.available:
                await self._refresh()
        finally:
            self._occupy(leader, queues, False)
            self._arm()

    async def _send(self, leader: int, queues: list[PartitionQueue]) -> None:
        batches: _Batches = {}
        try:
            async with asyncio.timeout(self._patience(queues)):
                connection = await self._brokers.connection(leader)
                # From here to the socket nothing awaits: what is taken goes out over this connection or not at all.
                batches = {queue: batch for queue in queues if (batch := queue.take(self.session))}
                response = await connection.send(self._request(batches)) if batches else None
        except Exception as error:  # whatever it was, nothing is acknowledged
            self._brokers.drop(leader)
            for queue in queues:
                self._refuse(queue, batches.get(queue, []), error)
        except asyncio.CancelledError:
            for queue, batch in batches.items():
                queue.fail(batch, "The client of the log was closed.")
            raise
        else:
            self._read_answer(response.topics if response else [], batches)

    def _patience(self, queues: list[PartitionQueue]) -> float:
        first = min((queue.records[0].deadline for queue in queues if queue.records), default=math.inf)
        return max(min(self.ack_seconds, first - asyncio.get_running_loop().time()), 0.05)

    def _request(self, batches: _Batches) -> ProduceRequest:
        now_ms = int(self._clock() * 1000)
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for queue, batch in batches.items():
            encoded = encode_batch(((record.key, record.value) for record in batch), now_ms)
            topics.setdefault(queue.topic, []).append((queue.number, encoded))
        return ProduceRequest(
            transactional_id=None,
            required_acks=_ALL_REPLICAS,
            timeout=int(self.ack_seconds * 1000),
            topics=list(topics.items()),
        )

    def _read_answer(self, topics: Any, batches: _Batches) -> None:
        answers = {(topic, number): (code, offset) for topic, parts in topics for number, code, offset, *_ in parts}
        for queue, batch in batches.items():
            code, offset = answers.get((queue.topic, queue.number), (_UNKNOWN_ERROR, -1))
            if code == 0:
                self.available = True
                queue.acknowledge(batch, offset)
            else:
                self._refuse(queue, batch, for_code(code)())

    def _refuse(self, queue: PartitionQueue, batch: list[QueuedRecord], error: Exception) -> None:
        _log.warning("log_refused", topic=queue.topic, partition=queue.number, error=repr(error))
        self._end_session()
        self.available = False
        loop = asyncio.get_running_loop()
        queue.refuse(batch, error, loop.time())
        loop.call_later(RETRY_SECONDS, self._arm)

    def _end_session(self) -> None:
        self.session += 1
        self._session_over.set()
        self._session_over = asyncio.Event()

    async def _refresh(self) -> None:
        try:
            await self._brokers.refresh()
        except (KafkaError, OSError, TimeoutError) as error:
            _log.warning("log_metadata_unavailable", error=str(error))


def _size_of(topic: str, key: bytes, value: bytes) -> int:
    """Bytes in a batch, at most; raises RecordTooLarge."""
    size = len(key) + len(value) + RECORD_OVERHEAD
    if size > MAX_RECORD_BYTES:
        raise RecordTooLarge(f"A record for {topic} has {len(value)} bytes; the log takes {MAX_RECORD_BYTES}.")
    return size
