"""Sends a file of events: opens it, goes on where an earlier run stopped, writes down what was not taken."""

import asyncio
import gzip
import io
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, Self, cast

from headrace.import_progress import Mark, Progress, ProgressError, load_progress, mark_of, save_progress
from headrace.importing import ImportBatch, Line, Position, pack, read_ndjson
from headrace.importing_csv import read_csv, read_header
from headrace.sending import BatchSender, Outcome, deliver

_GZIP: Final = b"\x1f\x8b"
_DAMAGE: Final = (EOFError, zlib.error, gzip.BadGzipFile)
_SAVE_SECONDS: Final = 1.0
#: Bytes to read at a time: a line has about a thousand.
_BUFFER: Final = 256 << 10


class ImportFailed(Exception):
    """The file cannot be read any further; one sentence."""


@dataclass(frozen=True, slots=True)
class ImportJob:
    """What to import and how: `source` None is standard input, `progress_file` None remembers nothing."""

    source: Path | None
    is_csv: bool
    progress_file: Path | None
    rejects_file: Path
    batch: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class ImportResult:
    """How an import ended: `undelivered` is "" at the end of the file, else why it stopped before."""

    progress: Progress
    resumed_at: int
    undelivered: str


class _Source:
    """A file, plain or gzip, that is read from the front or from an offset of its content."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = cast(io.BufferedReader, raw)
        packed = self.raw.peek(2)[:2] == _GZIP
        self.content: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if packed else self.raw
        self.damage = ""

    def lines(self, is_csv: bool, start: Position) -> Iterator[Line]:
        """The events from `start` on, to the end or to where gzip data are damaged: then `damage` says how.

        Raises HeaderError.
        """
        if not is_csv:
            self._skip(start.offset)
            return self._until_damage(read_ndjson(self.content, start))
        names, first = read_header(self.content)
        self._skip(start.offset - first.offset)
        return self._until_damage(read_csv(self.content, names, max(start, first)))

    def _until_damage(self, lines: Iterator[Line]) -> Iterator[Line]:
        try:
            yield from lines
        except _DAMAGE as error:
            self.damage = str(error).rstrip(".")

    def _skip(self, size: int) -> None:
        while size > 0:
            passed = len(self.content.read(min(size, 1 << 20)))
            if not passed:
                raise ImportFailed("The file ends before the place up to which an earlier run sent it.")
            size -= passed


async def import_file(
    job: ImportJob, standard_input: BinaryIO, sender: BatchSender, show: Callable[[Progress, int], None]
) -> ImportResult:
    """Send all of it, or up to the first batch that could not be delivered; what was answered is noted either way.

    `show` is told of the progress, and of the bytes read of the file as it lies on disk. Raises ImportFailed,
    ProgressError, HeaderError, OSError, and what gzip raises where not even the first lines can be read.
    """
    progress = load_progress(job.progress_file, job.source) if job.progress_file else Progress()
    resumed_at = progress.position.line
    with ExitStack() as stack:
        source = _Source(stack.enter_context(job.source.open("rb", _BUFFER)) if job.source else standard_input)
        batches = pack(source.lines(job.is_csv, progress.position), job.batch)
        notes = stack.enter_context(_Notes(job, progress))
        async with aclosing(deliver(_reader(batches), sender.send, job.concurrency)) as outcomes:
            async for batch, outcome in outcomes:
                if outcome.undelivered:
                    return ImportResult(notes.progress, resumed_at, outcome.undelivered)
                notes.settle(batch, outcome)
                show(notes.progress, source.raw.tell() if job.source else 0)
        if source.damage:
            line = notes.progress.position.line
            raise ImportFailed(f"The file is damaged after line {line}, up to which it was sent: {source.damage}.")
        notes.forget()
    return ImportResult(notes.progress, resumed_at, "")


def _reader(batches: Iterator[ImportBatch]) -> Callable[[], Awaitable[ImportBatch | None]]:
    """Reads in a thread: a file that is a pipe keeps nobody waiting but its own batch."""

    async def next_batch() -> ImportBatch | None:
        return await asyncio.to_thread(next, batches, None)

    return next_batch


class _Notes:
    """Keeps the progress file, about once a second and at the end, and the rejects file, there from the first one on.

    Rejects that were written after the progress was last saved are taken back: their lines are sent again.
    """

    def __init__(self, job: ImportJob, progress: Progress) -> None:
        self.progress = progress
        self._job, self._saved_at = job, time.monotonic()
        self._path = job.progress_file
        self._mark = mark_of(job.source) if job.source else Mark(0, "")
        self._rejects = _reopen(job.rejects_file, progress.rejects_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._save()
        if self._rejects:
            self._rejects.close()

    def settle(self, batch: ImportBatch, outcome: Outcome) -> None:
        """Note one more batch that was answered."""
        self.progress, rejects = self.progress.after(batch, outcome)
        if rejects:
            self._rejects = self._rejects or self._job.rejects_file.open("wb")
            self._rejects.write(rejects)
            self._rejects.flush()  # before the progress that counts them is saved
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self._save()

    def forget(self) -> None:
        """All is sent: there is nothing to go on with."""
        if self._path:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _save(self) -> None:
        if self._path:
            save_progress(self._path, self._mark, self.progress)
            self._saved_at = time.monotonic()


def _reopen(path: Path, size: int) -> IO[bytes] | None:
    """The rejects file, cut to the size that the progress knows; None where it is to begin anew."""
    if size == 0:
        path.unlink(missing_ok=True)
        return None
    try:
        file = path.open("r+b")
    except FileNotFoundError as error:
        raise ProgressError(
            f"The rejects file {path} of the run to go on with is gone; remove the progress file to begin anew."
        ) from error
    file.truncate(size)
    file.seek(size)
    return file
