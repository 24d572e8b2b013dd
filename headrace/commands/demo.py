"""`headrace demo`: believable traffic of which is known what has to become of it."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace.commands.options import AsJson
from headrace.commands.sending_options import CollectorUrl, Concurrency, GivenWriteKey, GiveUp, StackPortBase
from headrace.demo_run import DemoRun, paced, run_demo
from headrace.posting import CollectorClient
from headrace.sending import BatchSender, Patience
from headrace.targets import NoWriteKey, Target, find_target
from headrace.traffic import TrafficBatch, generate, pack_requests


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    events: Annotated[int, typer.Option(min=1, help="Events to send, bad ones and second copies included.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as they are taken.")] = 0,
    visitors: Annotated[int, typer.Option(min=1, help="Browsers and installations.")] = 500,
    seed: Annotated[int, typer.Option(help="The same seed makes the same visitors do the same things.")] = 1,
    days: Annotated[float, typer.Option(min=0.01, max=365, help="Days before now over which they do it.")] = 7,
    until: Annotated[
        datetime | None,
        typer.Option(help="When the traffic ends, UTC, to send the very same events again. Default: now."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Events in a request.")] = 100,
    expect: Annotated[
        Path | None,
        typer.Option(help="Write there what ClickHouse has to say, if the tenant had no events.", show_default=False),
    ] = None,
    write_key: GivenWriteKey = None,
    url: CollectorUrl = None,
    port_base: StackPortBase = None,
    concurrency: Concurrency = 8,
    give_up_after: GiveUp = 60.0,
    as_json: AsJson = False,
) -> None:
    """Send traffic as people make it: sessions, logins, aliases, late and duplicate events, a few bad ones.

    Exit 0 when the collector's answers are those that the events were made for, 1 when they are not or some events
    could not be delivered.
    """
    now = int((until.replace(tzinfo=UTC).timestamp() if until else time.time()) * 1000)
    started = time.monotonic()
    try:
        target = find_target(url, write_key, port_base)
        batches = pack_requests(generate(seed, events, visitors, now, days), batch)
        with _bar(events) as show:
            run = uvloop.run(_send(target, batches, rate, concurrency, Patience(seconds=give_up_after), show))
    except NoWriteKey as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise typer.Exit(130) from None
    if expect:
        document = {**run.expected.accounting(), "aggregates": run.expected.aggregates()}
        expect.write_text(json.dumps(document, indent=1) + "\n")
    _report(run, events, time.monotonic() - started, as_json)
    if run.unexpected or run.undelivered:
        raise typer.Exit(1)


async def _send(
    target: Target,
    batches: Iterator[TrafficBatch],
    rate: float,
    concurrency: int,
    patience: Patience,
    show: Callable[[DemoRun], None],
) -> DemoRun:
    async with CollectorClient(target.url, target.write_key, "headrace-demo", concurrency) as client:
        return await run_demo(paced(batches, rate), BatchSender(client.post, {}, patience), concurrency, show)


@contextmanager
def _bar(events: int) -> Iterator[Callable[[DemoRun], None]]:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("events"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Sending", total=events)
        yield lambda run: bar.update(task, completed=run.answered)


def _report(run: DemoRun, events: int, seconds: float, as_json: bool) -> None:
    missing = events - run.answered
    pace = {"seconds": round(seconds, 2), "eventsPerSecond": round(run.answered / seconds)}
    summary: dict[str, Any] = {**run.as_json(), "undelivered": missing, **pace}
    if as_json:
        print(json.dumps(summary))
    else:
        names = ("accepted", "stored", "duplicate", "dead", "rejected")
        counts = ", ".join(f"{summary[name]:,} {name}" for name in names)
        print(f"{run.answered:,} events sent in {seconds:.1f} s, {pace['eventsPerSecond']:,} a second.")
        print(f"That has to make {counts}.")
    if run.unexpected:
        print(f"{run.unexpected:,} verdicts are not the ones expected; the collector differs.", file=sys.stderr)
    if run.undelivered:
        print(f"{missing:,} events were not delivered. {run.undelivered}", file=sys.stderr)
