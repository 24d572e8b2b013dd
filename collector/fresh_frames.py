"""The frames written last, kept in memory so that a reader that keeps up has nothing read back from disk."""

from collections.abc import Iterable
from typing import Final

from collector.journal_format import Frame
from collector.segment_file import SegmentFile

_MOST: Final = 4 << 20  # bytes; a reader that is further behind reads the file


class FreshFrames:
    """Frames at the end of one segment, of at most 4 MiB, each with the byte where it ends. They are given out once."""

    def __init__(self) -> None:
        self._segment: SegmentFile | None = None
        self._begin = self._end = 0
        self._frames: list[tuple[Frame, int]] = []

    def put(self, segment: SegmentFile, frames: Iterable[tuple[Frame, int]]) -> None:
        """Keep frames, each with its length, that were just written and synced at the end of the segment."""
        if segment is not self._segment or self._end - self._begin > _MOST or not self._frames:
            self._segment, self._frames, self._begin = segment, [], segment.size
        end = segment.size
        for frame, length in frames:
            end += length
            self._frames.append((frame, end))
        self._end = end

    def take(self, segment: SegmentFile, at: int) -> list[tuple[Frame, int]]:
        """All that is kept, where it begins at byte `at` of the segment; else nothing."""
        if segment is not self._segment or at != self._begin:
            return []
        frames, self._frames = self._frames, []
        return frames
