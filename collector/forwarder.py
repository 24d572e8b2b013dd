"""Sends what the journal holds to the log, in order, and deletes the segments that are no longer needed.

Each pass begins at the oldest record that is kept and names the log client's session with every record. When that
session ends (a connection was lost, a batch refused) the pass ends, also while there is nothing to send, and the next
one begins at the oldest record again: the broker may have lost what it acknowledged. So on any log, a record is
preceded in its partition by every kept record before it, and a reader that drops numbers not above the last it saw
misses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from collector.journal import Journal
from collector.journal_format import Frame
from collector.log_client import LogClient
from collector.partition_queue import LogUnavailable, Position
from collector.segment_file import SegmentFile

#: For each (topic, partition), the highest sequence of this journal that ClickHouse has.
Stored = Callable[[], Awaitable[Mapping[tuple[str, int], int]]]

RETRY_SECONDS: Final = 0.5
#: With `stored`: how much, in bytes, the log is given to hold at a time. What the embedded broker drops beyond what it
#: keeps would be missed only when records after it are stored, and then be taken for stored too.
WINDOW: Final = 48 << 20
CHUNK: Final = 2 << 20  # bytes; more than the largest frame
GATHER: Final = 0.02  # seconds; with `stored` nobody waits for the log, and to send less often costs less

_log = structlog.get_logger(__name__)
_Frames = list[tuple[Frame, int]]
#: For each partition of a chunk: its topic, its last sequence, and the future that is done when it has all up to that.
_Acknowledged = list[tuple[str, int, asyncio.Future[Position]]]
_Sent = tuple[SegmentFile, int, _Acknowledged]


class Forwarder:
    """Forwards one journal for as long as `run` runs.

    A segment is needed until ClickHouse has its records by `stored`, or, without `stored`, until the log has them.
    `caught_up` is called when the client was given, or the log acknowledged, all that is in the journal; `lost` when a
    pass ends early.
    """

    def __init__(
        self,
        journal: Journal,
        log: LogClient,
        stored: Stored | None,
        *,
        caught_up: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.acknowledged = 0  # of the current pass: the log acknowledged every kept record up to this number
        self._journal, self._client, self._stored = journal, log, stored
        self._caught_up, self._lost = caught_up, lost
        self._progress = asyncio.Event()
        self._deleted = asyncio.Event()

    @property
    def unforwarded(self) -> int:
        """Records in the journal that the log has not acknowledged, or may have lost."""
        return self._journal.segments.records_after(self.acknowledged)

    async def run(self) -> None:
        """Forward until cancelled."""
        while True:
            try:
                await self._pass()
            except LogUnavailable as error:
                _log.warning("forwarding_interrupted", reason=str(error))
            except Exception:
                _log.exception("forwarding_failed")
            self._lost()
            await asyncio.sleep(RETRY_SECONDS)

    async def drained(self, seconds: float) -> None:
        """Wait, for at most `seconds`, until the log has acknowledged all that is in the journal."""
        try:
            async with asyncio.timeout(seconds):
                while self.unforwarded:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return

    async def delete_needless(self) -> None:
        """Delete the segments from the oldest on that nobody needs any more.

        When `stored` raises, nothing is deleted and the error is logged.
        """
        segments, stored = self._journal.segments, dict[tuple[str, int], int]()
        if self._stored is not None and segments.first is not segments.active:
            try:
                stored.update(await self._stored())
            except Exception as error:
                _log.warning("stored_unknown", error=repr(error))
                return
        while segments.first is not segments.active and self._needless(segments.first, stored):
            await self._journal.delete_first()
            self._deleted.set()

    def _needless(self, segment: SegmentFile, stored: Mapping[tuple[str, int], int]) -> bool:
        if segment.last_sequence > self.acknowledged:
            return False
        return self._stored is None or all(stored.get(at, 0) >= last for at, last in segment.highest.items())

    async def _pass(self) -> None:
        session = self._client.session
        self.acknowledged = self._journal.segments.first.header.first_sequence - 1
        sent: asyncio.Queue[_Sent] = asyncio.Queue()
        work = [self._send(session, sent), self._settle(sent)]
        if self._stored is not None:
            work.append(self._watch(session))
        tasks = [asyncio.create_task(part) for part in work]
        # No TaskGroup: one that fails in the moment it is cancelled forgets that it was, and `run` would go on.
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, session: int, sent: asyncio.Queue[_Sent]) -> None:
        segment, at = self._enter(self._journal.segments.first)
        while True:
            self._journal.grown.clear()
            chunk = self._journal.read(segment, at, CHUNK)
            if chunk:
                last, at = chunk[-1]
                sent.put_nowait((segment, last.sequence, await self._append(segment, chunk, session)))
                continue
            if following := self._journal.segments.after(segment):
                if at < segment.size:
                    _log.error("segment_damaged", segment=str(segment.path), bytes_unread=segment.size - at)
                await self._room_before(following)
                segment, at = self._enter(following)
            else:
                self._caught_up()
                await self._journal.grown.wait()
                if self._stored is not None:
                    await asyncio.sleep(GATHER)

    async def _append(self, segment: SegmentFile, chunk: _Frames, session: int) -> _Acknowledged:
        by_topic: dict[int, list[Frame]] = {}
        for frame, _ in chunk:
            by_topic.setdefault(frame.topic, []).append(frame)
        acknowledged: _Acknowledged = []
        for number, frames in by_topic.items():
            topic = segment.header.topics[number]
            last = await self._client.append_all(topic, [(frame.key, frame.value) for frame in frames], session)
            acknowledged += [(topic, frames[place].sequence, future) for place, future in last]
        return acknowledged

    async def _watch(self, session: int) -> None:
        await self._client.session_over(session)
        raise LogUnavailable("The connection to the log was lost.")

    async def _room_before(self, segment: SegmentFile) -> None:
        """With `stored`: wait while the log is given more than WINDOW that is not stored."""
        while self._stored is not None and self._journal.segments.bytes_before(segment) > WINDOW:
            self._deleted.clear()
            await self._deleted.wait()

    def _enter(self, segment: SegmentFile) -> tuple[SegmentFile, int]:
        segment.highest.clear()  # partitions may have changed since an earlier pass
        return segment, segment.start

    async def _settle(self, sent: asyncio.Queue[_Sent]) -> None:
        while True:
            segment, last, acknowledged = await sent.get()
            for topic, sequence, future in acknowledged:
                position = await future
                segment.highest[topic, position.partition] = sequence
            self.acknowledged = last
            self._progress.set()
            if last == self._journal.segments.active.last_sequence:
                self._caught_up()
