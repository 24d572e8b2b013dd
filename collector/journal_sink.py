"""Records to the journal on local disk and from there to the log: always, or only while the log is away."""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from collector.forwarder import Forwarder, Stored
from collector.journal import Journal
from collector.journal_format import Frame
from collector.kafka_sink import KafkaSink, encode_record
from collector.log_client import LogClient
from collector.sink import Outgoing, SinkUnavailable
from schemas import metrics
from schemas.codec import Codec

_log = structlog.get_logger(__name__)


class JournalSink:
    """A sink that loses nothing when the log does.

    With `stored` (the log may lose what it acknowledged): every record is numbered and fsynced in the journal, which is
    the acknowledgement, and a segment is kept until `stored` says that ClickHouse has its records.

    Without (the log keeps what it acknowledged): records go straight to the log. When it does not acknowledge in time,
    they and all that follow go to the journal, here called the spool, until that has been sent again, in order.

    Call `start` before the first `send`. `poll_seconds` is how often `stored` is asked; `close_seconds` bounds how long
    `close` tries to forward what is left, the rest stays on disk for the next start.
    """

    def __init__(
        self,
        journal: Journal,
        log: LogClient,
        codec: Codec,
        stored: Stored | None = None,
        *,
        poll_seconds: float = 2.0,
        close_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._client, self._codec, self._clock = journal, log, codec, clock
        self._direct = None if stored else KafkaSink(log, codec)
        self._spooling = self._closed = False
        self._poll_seconds, self._close_seconds = poll_seconds, close_seconds
        self._forwarder = Forwarder(journal, log, stored, caught_up=self._end_spooling, lost=self._begin_spooling)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to forward; first of all what an earlier process left."""
        self._spooling = self._journal.segments.records > 0
        metrics.COLLECTOR_SPOOL_RECORDS.set_function(lambda: self.unforwarded)
        self._tasks = [asyncio.create_task(self._forwarder.run()), asyncio.create_task(self._tend())]

    @property
    def accepted_events(self) -> int:
        """Events of all records ever taken into the journal, by earlier processes too."""
        return self._journal.accepted_events

    @property
    def retained(self) -> int:
        """Records that are on local disk."""
        return self._journal.segments.records

    @property
    def unforwarded(self) -> int:
        """Records on local disk that the log has not acknowledged."""
        return self._forwarder.unforwarded

    async def send(self, records: Sequence[Outgoing]) -> None:
        """As in Sink; raises RecordTooLarge too, before anything is sent."""
        if self._closed:
            raise SinkUnavailable("The collector is stopping.", retry_after=5)
        if self._direct is not None and not self._spooling:
            try:
                await self._direct.send(records)
                return
            except SinkUnavailable:
                self._spooling = True
        await self._put_in_journal(records)

    def ready(self) -> bool:
        """Whether the journal can be written or the log acknowledges what goes straight to it."""
        straight = self._direct is not None and not self._spooling and self._direct.ready()
        return not self._closed and (straight or self._journal.writable)

    async def close(self) -> None:
        """Take nothing more, forward for at most `close_seconds`, let go of the journal and the log."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self._close_seconds
        await self._forwarder.drained(self._close_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close(max(0.0, end - loop.time()) if self._direct else 0.0)
        await self._journal.close()

    async def _put_in_journal(self, records: Sequence[Outgoing]) -> None:
        if not records:
            return
        frames = []
        for sequence, outgoing in enumerate(records, self._journal.next_sequence):
            key, value = encode_record(self._codec, outgoing, self._journal.id, sequence)
            topic = self._journal.topics.index(outgoing.topic)
            frames.append(Frame(topic, outgoing.events, sequence, key, value))
        await self._journal.append(frames)

    def _begin_spooling(self) -> None:
        self._spooling = True

    def _end_spooling(self) -> None:
        if self._client.available:
            self._spooling = False

    async def _tend(self) -> None:
        while True:
            try:
                await self._journal.end_aged_segment()
                await self._forwarder.delete_needless()
            except OSError as error:
                _log.error("journal_not_tended", error=str(error))  # a file left behind is sent again, no more
            self._publish()
            await asyncio.sleep(self._poll_seconds)

    def _publish(self) -> None:
        oldest = self._journal.segments.oldest_after(self._forwarder.acknowledged)
        metrics.COLLECTOR_SPOOL_BYTES.set(self._journal.bytes)
        metrics.COLLECTOR_SPOOL_AGE_SECONDS.set(self._clock() - oldest if oldest else 0)
        metrics.COLLECTOR_LOG_AVAILABLE.set(self._client.available)
