"""The segments of a journal that are kept, and what they hold together."""

from collector.segment_file import SegmentFile


class SegmentList:
    """The segments from the oldest to the one that is written to."""

    def __init__(self) -> None:
        self._segments: list[SegmentFile] = []
        self._older_bytes = 0  # of all but the active one, whose sizes are final

    @property
    def first(self) -> SegmentFile:
        """The oldest."""
        return self._segments[0]

    @property
    def active(self) -> SegmentFile:
        """The one that is written to; it is never deleted, for it holds the counts of all before it."""
        return self._segments[-1]

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._older_bytes + self.active.size

    @property
    def records(self) -> int:
        """Records in all of them."""
        return sum(segment.records for segment in self._segments)

    def add(self, segment: SegmentFile) -> None:
        """Write to a new segment from now on; the one before it goes if it is empty, for then it had the same name."""
        if self._segments and not self.active.records:
            self._segments.pop().close()
        elif self._segments:
            self._older_bytes += self.active.size
        self._segments.append(segment)

    def take_first(self) -> SegmentFile:
        """Give up the oldest, so that it can be deleted; raises ValueError where it is the active one."""
        if self.first is self.active:
            raise ValueError(f"{self.first.path} is written to and must stay.")
        first = self._segments.pop(0)
        self._older_bytes -= first.size
        return first

    def after(self, segment: SegmentFile) -> SegmentFile | None:
        """The one that follows."""
        later = (s for s in self._segments if s.header.first_sequence > segment.last_sequence and s is not segment)
        return next(later, None)

    def bytes_before(self, segment: SegmentFile) -> int:
        """Bytes of the ones that are older."""
        first = segment.header.first_sequence
        return sum(older.size for older in self._segments if older.header.first_sequence < first)

    def records_after(self, sequence: int) -> int:
        """How many records have a higher sequence."""
        return sum(min(s.records, max(0, s.last_sequence - sequence)) for s in self._segments)

    def oldest_after(self, sequence: int) -> float | None:
        """When, in seconds since the epoch, the oldest segment with a higher sequence got its first record."""
        return next((s.filled_at for s in self._segments if s.records and s.last_sequence > sequence), None)

    def close(self) -> None:
        """Let go of the files."""
        for segment in self._segments:
            segment.close()
