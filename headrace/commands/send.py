"""`headrace send`: a file of events to a collector, resumable and safe to repeat."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from headrace.commands.options import AsJson
from headrace.commands.sending_options import CollectorUrl, Concurrency, GivenWriteKey, GiveUp, StackPortBase
from headrace.import_file import ImportFailed, ImportJob, ImportResult, import_file
from headrace.import_progress import Progress, ProgressError
from headrace.importing_csv import HeaderError
from headrace.posting import CollectorClient
from headrace.sending import BatchSender, Patience
from headrace.targets import NoWriteKey, Target, find_target

LIBRARY: Final = "headrace-send"
_INTERRUPTED: Final = 130


class Format(StrEnum):
    """What a file holds."""

    NDJSON = "ndjson"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(send)


def send(
    file: Annotated[Path, typer.Argument(help="NDJSON or CSV, also gzip; - is standard input.", show_default=False)],
    write_key: GivenWriteKey = None,
    url: CollectorUrl = None,
    port_base: StackPortBase = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="What the file holds. Default: by its name.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Events in a request at the most.")] = 500,
    concurrency: Concurrency = 4,
    give_up_after: GiveUp = 60.0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Where the progress is kept. Default: FILE.headrace-progress.", show_default=False),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(help="What was not taken, and why. Default: FILE.rejected.ndjson.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file of events: one JSON object a line, or CSV whose header names the fields.

    Events are in the form of POST /v1/batch, Segment's names included. In CSV, properties.term is a column of the
    property term. When it is stopped, the same command goes on from there; sending all of it again changes nothing, as
    an event without eventId gets one that follows from its line's number and text.

    Exit 0 when every event was accepted, 1 when some were rejected or could not be delivered.
    """
    source = None if file == Path("-") else file
    beside = str(file) if source else "stdin"
    job = ImportJob(
        source=source,
        is_csv=(form or _format_of(file)) is Format.CSV,
        progress_file=checkpoint or (Path(f"{beside}.headrace-progress") if source else None),
        rejects_file=rejects or Path(f"{beside}.rejected.ndjson"),
        batch=batch,
        concurrency=concurrency,
    )
    started = time.monotonic()
    try:
        _check_paths(job)
        target = find_target(url, write_key, port_base)
        with _bar(job) as show:
            result = uvloop.run(_send(job, target, Patience(seconds=give_up_after), show))
    except (HeaderError, ImportFailed, NoWriteKey, ProgressError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    _report(job, result, time.monotonic() - started, as_json)
    if result.undelivered or result.progress.rejections:
        raise typer.Exit(1)


def _format_of(file: Path) -> Format:
    return Format.CSV if file.name.lower().removesuffix(".gz").endswith(".csv") else Format.NDJSON


def _check_paths(job: ImportJob) -> None:
    if job.source is None:
        return
    if not job.source.is_file():
        raise ImportFailed(f"There is no file {job.source}.")
    for written in (job.rejects_file, job.progress_file):
        if written and written.resolve() == job.source.resolve():
            raise ImportFailed(f"{written} is the file to send; it would be overwritten.")


async def _send(
    job: ImportJob, target: Target, patience: Patience, show: Callable[[Progress, int], None]
) -> ImportResult:
    async with CollectorClient(target.url, target.write_key, LIBRARY, job.concurrency) as client:
        # The library tells the collector that a request's address and User-Agent are not the visitors'.
        sender = BatchSender(client.post, {"library": LIBRARY}, patience)
        return await import_file(job, sys.stdin.buffer, sender, show)


@contextmanager
def _bar(job: ImportJob) -> Iterator[Callable[[Progress, int], None]]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Sending", total=job.source.stat().st_size if job.source else None)

        def show(progress: Progress, read: int) -> None:
            rejected = f", {progress.rejections:,} rejected" if progress.rejections else ""
            bar.update(task, completed=read, description=f"{progress.accepted:,} accepted{rejected}")

        yield show


def _report(job: ImportJob, result: ImportResult, seconds: float, as_json: bool) -> None:
    progress = result.progress
    summary: dict[str, Any] = {
        "accepted": progress.accepted,
        "rejected": dict(progress.rejected),
        "lines": progress.position.line,
        "resumedAfterLine": result.resumed_at,
        "undelivered": result.undelivered,
        "rejectsFile": str(job.rejects_file) if progress.rejections else "",
        "seconds": round(seconds, 3),
    }
    if as_json:
        print(json.dumps(summary))
    else:
        print(f"{progress.accepted:,} events accepted, {progress.rejections:,} rejected.")
    if progress.rejections and not as_json:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(progress.rejected.items()))
        print(f"What was rejected, and why, is in {job.rejects_file}: {reasons}.", file=sys.stderr)
    if result.undelivered:
        print(f"Stopped after line {progress.position.line}. {result.undelivered}", file=sys.stderr)
        if job.progress_file:
            print("The same command goes on from there.", file=sys.stderr)
