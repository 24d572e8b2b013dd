"""Sends a file of events: opens it, goes on where an earlier run stopped, writes down what was not taken."""

import asyncio
import gzip
import io
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from headrace.import_progress import Mark, Progress, ProgressError, load_progress, mark_of, save_progress
from headrace.importing import ImportBatch, Line, Position, pack, read_ndjson
from headrace.importing_csv import read_csv, read_header
from headrace.sending import BatchSender, deliver

_GZIP: Final = b"\x1f\x8b"
_SAVE_SECONDS: Final = 1.0


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

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = cast(io.BufferedReader, raw)
        packed = self.raw.peek(2)[:2] == _GZIP
        self.content = cast(IO[bytes], gzip.GzipFile(fileobj=self.raw)) if packed else raw

    def lines(self, is_csv: bool, start: Position) -> Iterator[Line]:
        """The events from `start` on. Raises HeaderError."""
        if not is_csv:
            self._skip(start.offset)
            return read_ndjson(self.content, start)
        names, first = read_header(self.content)
        self._skip(start.offset - first.offset)
        return read_csv(self.content, names, max(start, first))

    def _skip(self, size: int) -> None:
        while size > 0:
            passed = len(self.content.read(min(size, 1 << 20)))
            if not passed:
                raise ImportFailed("The file ends before the place up to which an earlier run sent it.")
            size -= passed


async def import_file(
    job: ImportJob, standard_input: IO[bytes], sender: BatchSender, show: Callable[[Progress, int], None]
) -> ImportResult:
    """Send all of it, or up to the first batch that could not be delivered; what was answered is noted either way.

    `show` is told of the progress, and of the bytes read of the file as it lies on disk. Raises ImportFailed,
    ProgressError, HeaderError and OSError.
    """
    mark = mark_of(job.source) if job.source else Mark(0, "")
    progress = load_progress(job.progress_file, job.source) if job.progress_file else Progress()
    resumed_at = progress.position.line
    with ExitStack() as stack:
        source = _Source(stack.enter_context(job.source.open("rb")) if job.source else standard_input)
        rejects = _Rejects(job.rejects_file, progress.rejects_size)
        stack.callback(rejects.close)
        batches = pack(source.lines(job.is_csv, progress.position), job.batch)
        note = _Notes(job.progress_file, mark)
        try:
            async with aclosing(deliver(_reader(batches), sender.send, job.concurrency)) as outcomes:
                async for batch, outcome in outcomes:
                    if outcome.undelivered:
                        return ImportResult(progress, resumed_at, outcome.undelivered)
                    progress, text = progress.after(batch, outcome)
                    rejects.write(text)
                    note.sometimes(progress)
                    show(progress, source.raw.tell() if job.source else progress.position.offset)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ImportFailed(f"The file is damaged after line {progress.position.line}: {error}.") from error
        finally:
            note.now(progress)
    if job.progress_file:
        job.progress_file.unlink(missing_ok=True)
    return ImportResult(progress, resumed_at, "")


def _reader(batches: Iterator[ImportBatch]) -> Any:
    """Reads in a thread: a file that is a pipe keeps nobody waiting but its own batch."""

    async def next_batch() -> ImportBatch | None:
        return await asyncio.to_thread(next, batches, None)

    return next_batch


class _Rejects:
    """The rejects file, there from the first reject on; what a run after the saved progress added is taken back."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._file = path, cast(IO[bytes] | None, None)
        if size == 0:
            path.unlink(missing_ok=True)
            return
        try:
            self._file = path.open("r+b")
        except FileNotFoundError as error:
            raise ProgressError(
                f"The rejects file {path} of the run to go on with is gone; remove the progress file to begin anew."
            ) from error
        self._file.truncate(size)
        self._file.seek(size)

    def write(self, text: bytes) -> None:
        if text:
            self._file = self._file or self._path.open("wb")
            self._file.write(text)
            self._file.flush()  # before the progress that counts it is saved

    def close(self) -> None:
        if self._file:
            self._file.close()


class _Notes:
    """Saves the progress, about once a second."""

    def __init__(self, path: Path | None, mark: Mark) -> None:
        self._path, self._mark, self._at = path, mark, time.monotonic()

    def sometimes(self, progress: Progress) -> None:
        if time.monotonic() - self._at >= _SAVE_SECONDS:
            self.now(progress)

    def now(self, progress: Progress) -> None:
        if self._path:
            save_progress(self._path, self._mark, progress)
            self._at = time.monotonic()
