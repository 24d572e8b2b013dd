"""`headrace up`: the whole stack on this machine, until Ctrl-C."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from headrace.commands.options import PortBase
from headrace.stack import Stack, StackError
from headrace.status import Status, read_status


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(up)


def up(
    port_base: PortBase = 8700,
    data: Annotated[Path, typer.Option(help="Folder of everything that is kept.")] = Path("data"),
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers that share the partitions.")] = 1,
    broker: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="A Kafka of yours in place of the embedded broker: bootstrap servers, separated by commas. "
            "HEADRACE_BROKER does not set it; the other HEADRACE_BROKER_… (SASL, TLS) hold for it.",
            show_default="the embedded broker",
        ),
    ] = "",
) -> None:
    """Start broker, ClickHouse, collector and workers on 127.0.0.1 and keep them up until Ctrl-C."""
    raise typer.Exit(asyncio.run(_run(Stack(port_base, data, workers, broker), port_base)))


async def _run(stack: Stack, port_base: int) -> int:
    console, stopping = Console(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    starting = asyncio.create_task(stack.start())
    stop = asyncio.create_task(stopping.wait())
    try:
        with console.status("Starting broker, ClickHouse, collector and worker …"):
            await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _print_welcome(console, stack, await asyncio.to_thread(read_status, port_base))
            await _show_status(console, port_base, stopping)
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if stopping.is_set():
            console.print("Stopping …")
        await stack.stop()
    console.print(f"Stopped. The data stays in {stack.data}.")
    return 0


def _print_welcome(console: Console, stack: Stack, status: Status) -> None:
    urls = status.urls
    event = '{"eventCategory": "ui", "eventAction": "click", "type": "track", "anonymousId": "visitor-1"}'
    query = "SELECT * FROM headrace.aggregated_events FORMAT PrettyCompact"
    console.print(
        f"""
Headrace is ready.

  collector   {urls["collector"]}
  ClickHouse  {urls["clickhouse"]}   user default, no password
  broker      {urls["broker"]}
  worker      {stack.endpoints.worker_url}
  write key   {status.write_key}   tenant {status.company_id}
  data        {stack.data.resolve()}""",
        highlight=False,
        soft_wrap=True,
    )
    if stack.read_token:
        console.print(f"  read token  {stack.read_token}   shown this once", highlight=False, soft_wrap=True)
    console.print(
        f"""
Send an event:

  curl {urls["collector"]}/v1/batch -u {status.write_key}: -H 'content-type: application/json' -d '{event}'

Read it, a second later:

  curl {urls["clickhouse"]} --data-binary '{query}'

Ctrl-C stops everything.
""",
        highlight=False,
        soft_wrap=True,
    )


async def _show_status(console: Console, port_base: int, stopping: asyncio.Event) -> None:
    """A line that lives until the stack is told to stop; where the output is no terminal, nothing."""
    if not console.is_terminal or os.environ.get("TERM") == "dumb":
        await stopping.wait()
        return
    with Live(Text(""), console=console, refresh_per_second=4) as live:
        while not stopping.is_set():
            live.update(_line(await asyncio.to_thread(read_status, port_base)))
            try:
                await asyncio.wait_for(stopping.wait(), 1)
            except TimeoutError:
                continue


def _line(status: Status) -> Text:
    figures = (
        ("accepted", status.accepted),
        ("stored", status.stored),
        ("dead", status.dead),
        ("duplicates", status.duplicate),
    )
    text = "  ".join(f"{name} {figure:,}" for name, figure in figures)
    return Text(f"{text}  lag {status.lag_seconds:.1f} s" + ("" if status.ready else "  (a part is starting again)"))
