"""Records on local disk, numbered and fsynced: a journal of append-only segments in one directory.

The numbers rise by one a record and go on after a restart; readers of the log drop what they have seen by them. So a
number that may have left this machine is never given to another record: nothing is read back before it is fsynced, and
after damage the numbers that the damaged bytes could have held are skipped.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import structlog

from collector.fresh_frames import FreshFrames
from collector.journal_directory import journal_id, lock_directory, recover_segments
from collector.journal_format import Frame, Header, encode_frame
from collector.segment_file import SegmentFile
from collector.segment_list import SegmentList
from collector.sink import SinkUnavailable
from schemas.metrics import COLLECTOR_JOURNAL_SYNC_SECONDS

RETRY_AFTER: Final = 5  # seconds; a full journal empties by segments

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True)
class _Group:
    """The frames of one sender and their bytes."""

    frames: Sequence[Frame]
    data: list[bytes]
    size: int
    safe: asyncio.Future[None]


def sync_timed(fd: int) -> None:
    """fdatasync, its time observed by the metric."""
    started = time.perf_counter()
    try:
        os.fdatasync(fd)
    finally:
        COLLECTOR_JOURNAL_SYNC_SECONDS.observe(time.perf_counter() - started)


class Journal:
    """The journal of one directory, of one process; get it from `Journal.open`.

    `grown` is set whenever there is more to read. Senders at the same time share one write and one fsync, done in a
    thread.
    """

    def __init__(
        self,
        directory: Path,
        identity: UUID,
        lock: int,
        topics: Sequence[str],
        *,
        max_bytes: int,
        segment_bytes: int,
        segment_seconds: float,
        clock: Callable[[], float],
        sync: Callable[[int], None],
    ) -> None:
        self.directory, self.id, self.topics = directory, str(identity), tuple(topics)
        self.grown, self.segments = asyncio.Event(), SegmentList()
        self.next_sequence, self.accepted_events = 1, 0
        self._uuid, self._lock, self._clock, self._sync = identity, lock, clock, sync
        self._max_bytes, self._segment_bytes, self._segment_seconds = max_bytes, segment_bytes, segment_seconds
        self._pending: list[_Group] = []
        self._pending_bytes = 0
        self._fresh = FreshFrames()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._commit: asyncio.Task[None] | None = None
        self._roll = self._failed = self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        topics: Sequence[str],
        *,
        max_bytes: int = 1 << 30,
        segment_bytes: int = 8 << 20,
        segment_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        sync: Callable[[int], None] = sync_timed,
    ) -> "Journal":
        """Open or make the journal of a directory; blocks while it reads what is there.

        A segment ends at `segment_bytes`, or once it is `segment_seconds` old and not empty; all together hold no
        more than `max_bytes`. Raises OSError, JournalInUse and JournalDamaged.
        """
        directory.mkdir(parents=True, exist_ok=True)
        lock = lock_directory(directory)
        journal = cls(
            directory,
            journal_id(directory),
            lock,
            topics,
            max_bytes=max_bytes,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            clock=clock,
            sync=sync,
        )
        try:
            journal._recover()
        except BaseException:
            journal._let_go()
            raise
        return journal

    def _recover(self) -> None:
        for segment, cut in recover_segments(self.directory):
            self.segments.add(segment)
            # A frame has more than one byte, so as many numbers as bytes are more than enough to skip.
            self.next_sequence = segment.last_sequence + 1 + cut
            self.accepted_events = segment.header.accepted_before + segment.events
        self.segments.add(SegmentFile.create(self.directory, self._header(self.next_sequence)))

    @property
    def bytes(self) -> int:
        """Bytes on disk and on the way there."""
        return self.segments.bytes + self._pending_bytes

    @property
    def writable(self) -> bool:
        """Whether a record would have been taken just now."""
        return not self._closed and not self._failed and self.bytes < self._max_bytes

    async def append(self, frames: Sequence[Frame]) -> None:
        """Return once all frames are fsynced; they carry the numbers from `next_sequence` on.

        Raises SinkUnavailable when the journal is full or cannot be written, and then none of them is in it.
        """
        if frames[0].sequence != self.next_sequence:
            raise ValueError(f"The record is numbered {frames[0].sequence}; the journal is at {self.next_sequence}.")
        data = [encode_frame(frame) for frame in frames]
        size = sum(map(len, data))
        if self._closed or self.bytes + size > self._max_bytes:
            state = "closed" if self._closed else f"full: {self.bytes} bytes wait for the log"
            raise SinkUnavailable(f"The journal in {self.directory} is {state}.", RETRY_AFTER)
        safe = asyncio.get_running_loop().create_future()
        self._pending.append(_Group(frames, data, size, safe))
        self._pending_bytes += size
        self.next_sequence += len(frames)
        self._start_commit()
        await safe

    def read(self, segment: SegmentFile, at: int, limit: int) -> list[tuple[Frame, int]]:
        """Whole frames from byte `at` of a segment on, about `limit` bytes, each with where it ends."""
        return self._fresh.take(segment, at) or segment.read(at, limit)

    async def end_aged_segment(self) -> None:
        """Begin a new segment if the active one is old, so that it can be deleted, or after a failed write."""
        aged = (
            self.segments.active.records > 0 and self._clock() - self.segments.active.filled_at >= self._segment_seconds
        )
        if aged or self._failed:
            self._roll = True
            await asyncio.shield(self._start_commit())

    async def delete_first(self) -> None:
        """Delete the oldest segment; not the active one."""
        await self._in_thread(self.segments.take_first().delete)

    async def close(self) -> None:
        """Finish the writes under way and let go of the directory."""
        if self._closed:
            return
        self._closed = True
        if self._commit is not None:
            await asyncio.shield(self._commit)
        self._let_go()

    def _let_go(self) -> None:
        self._thread.shutdown()
        self.segments.close()
        os.close(self._lock)

    def _start_commit(self) -> asyncio.Task[None]:
        if self._commit is None or self._commit.done():
            self._commit = asyncio.create_task(self._commit_pending())
        return self._commit

    async def _commit_pending(self) -> None:
        while self._pending or self._roll:
            groups, self._pending = self._pending, []
            try:
                await self._write(groups)
            except Exception as error:  # whatever it is, who waits for these records must be told
                self._fail(groups + self._pending, error)
                self._pending = []
            self._pending_bytes = sum(group.size for group in self._pending)
            self._roll = False

    async def _write(self, groups: list[_Group]) -> None:
        if self._failed or self._roll or self.segments.active.size >= self._segment_bytes:
            header = self._header(self.segments.active.last_sequence + 1)
            self.segments.add(await self._in_thread(SegmentFile.create, self.directory, header))
            self._failed = False
        if not groups:
            return
        active = self.segments.active
        pieces = [piece for group in groups for piece in group.data]
        frames = [frame for group in groups for frame in group.frames]
        data = b"".join(pieces)
        await self._in_thread(active.append, data, self._sync)
        events = sum(frame.events for frame in frames)
        self._fresh.put(active, zip(frames, map(len, pieces), strict=True))
        active.grow(len(data), len(frames), events, frames[-1].sequence, self._clock())
        self.accepted_events += events
        for group in groups:
            if not group.safe.done():
                group.safe.set_result(None)
        self.grown.set()

    def _fail(self, groups: list[_Group], error: Exception) -> None:
        # After a failed fsync nobody knows what of the file is on disk: its last records end it, a new one follows.
        if not self._failed:
            _log.error("journal_write_failed", directory=str(self.directory), error=str(error))
        self._failed = True
        self.next_sequence = self.segments.active.last_sequence + 1
        why = (error.strerror if isinstance(error, OSError) else None) or repr(error)
        for group in groups:
            if not group.safe.done():
                message = f"The journal in {self.directory} cannot be written: {why}."
                group.safe.set_exception(SinkUnavailable(message, RETRY_AFTER))

    def _header(self, first_sequence: int) -> Header:
        return Header(self._uuid, first_sequence, self.accepted_events, int(self._clock() * 1000), self.topics)

    async def _in_thread(self, call: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
