"""One segment of the journal on disk. Everything here blocks; `collector.journal` calls it from its own thread."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from collector.journal_format import BadHeader, Frame, Header, decode_header, encode_header, frames_in


class JournalDamaged(Exception):
    """A segment that may hold records cannot be read, so neither they nor the numbers they used are known."""


@dataclass(slots=True, eq=False)
class SegmentFile:
    """A segment and what is known to be safely in it; `size` is in bytes, `filled_at` in seconds since the epoch.

    `highest` is the forwarder's: for each (topic, partition) the highest sequence that the log acknowledged.
    """

    path: Path
    header: Header
    start: int
    fd: int
    size: int
    records: int = 0
    events: int = 0
    last_sequence: int = 0
    filled_at: float = 0.0
    highest: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def create(cls, directory: Path, header: Header) -> "SegmentFile":
        """A new segment, on disk with its header or not at all. Raises OSError.

        It takes the place of an empty segment of the same first sequence.
        """
        path = directory / f"{header.journal}-{header.first_sequence:020}.seg"
        partial = path.with_suffix(".partial")
        head = encode_header(header)
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            put(fd, head, 0)
            os.fsync(fd)
            partial.rename(path)
            sync_directory(directory)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        return cls(path, header, len(head), fd, len(head), last_sequence=header.first_sequence - 1)

    @classmethod
    def recover(cls, path: Path, before: int | None) -> "tuple[SegmentFile, int]":
        """An existing segment cut after its last whole frame, and the number of bytes cut off.

        Frames numbered `before` or higher belong to the next segment: they are left from a write that failed.
        Raises OSError and JournalDamaged.
        """
        data = path.read_bytes()
        try:
            header, start = decode_header(data)
        except BadHeader as error:
            raise JournalDamaged(
                f"{path} cannot be read: {error} Move the journal's directory away and start with an empty one."
            ) from error
        segment = cls(path, header, start, os.open(path, os.O_RDWR | os.O_CLOEXEC), start)
        segment.last_sequence, segment.filled_at = header.first_sequence - 1, header.created_ms / 1000
        for frame, end in frames_in(data, start):
            if before is not None and frame.sequence >= before:
                break
            segment.grow(end - segment.size, 1, frame.events, frame.sequence)
        # What a killed process wrote may be in memory only; nothing may be forwarded that a power cut can take back.
        os.ftruncate(segment.fd, segment.size)
        os.fsync(segment.fd)
        return segment, len(data) - segment.size

    def append(self, data: bytes, sync: Callable[[int], None]) -> None:
        """Write frames at the end and `sync` the file. On OSError the file ends where it did; call `grow` after."""
        try:
            put(self.fd, data, self.size)
            sync(self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise

    def grow(self, size: int, records: int, events: int, last_sequence: int, now: float | None = None) -> None:
        """Count what `append` wrote: from now on readers see it."""
        if now is not None and not self.records:
            self.filled_at = now
        self.size += size
        self.records += records
        self.events += events
        self.last_sequence = last_sequence

    def read(self, at: int, limit: int) -> list[tuple[Frame, int]]:
        """Whole frames from byte `at` on, up to `limit` bytes, each with where it ends."""
        if at >= self.size:
            return []
        data = os.pread(self.fd, min(limit, self.size - at), at)
        return [(frame, at + end) for frame, end in frames_in(data)]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def delete(self) -> None:
        """Let go of the file and remove it."""
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


def put(fd: int, data: bytes, at: int) -> None:
    """Write all of `data` at byte `at`; raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
