"""The directory of a journal: its lock, its identity, and the segments that were left in it. Everything here blocks."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from collector.segment_file import SegmentFile, put, sync_directory

_log = structlog.get_logger(__name__)


class JournalInUse(Exception):
    """Another process has the journal's directory open."""


def lock_directory(directory: Path) -> int:
    """Hold the directory until the file descriptor that is returned is closed; raises JournalInUse."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise JournalInUse(f"{directory} is the journal of a running process; give each collector its own.") from None
    return fd


def journal_id(directory: Path) -> UUID:
    """The identity of the directory's journal, made once."""
    path = directory / "journal-id"
    if not path.exists():
        partial = path.with_suffix(".partial")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            put(fd, f"{uuid4()}\n".encode(), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        partial.rename(path)
        sync_directory(directory)
    return UUID(path.read_text().strip())


def recover_segments(directory: Path) -> Iterator[tuple[SegmentFile, int]]:
    """The segments, oldest first, each cut after its last whole frame, and the bytes cut off.

    Raises OSError and JournalDamaged.
    """
    paths = sorted(directory.glob("*-*.seg"), key=_first_sequence)
    for place, path in enumerate(paths):
        following = _first_sequence(paths[place + 1]) if place + 1 < len(paths) else None
        segment, cut = SegmentFile.recover(path, following)
        if cut:
            _log.warning("journal_tail_cut", segment=str(path), bytes=cut)
        yield segment, cut


def _first_sequence(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
