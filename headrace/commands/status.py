"""`headrace status`: the figures of the running stack, or waiting until there are any."""

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace.commands.options import AsJson, PortBase
from headrace.status import Status, read_status


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(status)


def status(
    port_base: PortBase = 8700,
    as_json: AsJson = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return only when the stack is ready.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at the most; then exit 1.")] = 60.0,
) -> None:
    """Show what the running stack has accepted, stored and refused, and where its parts are.

    Embedded, `accepted` counts every event that the collector ever took. On a Kafka of yours the log itself is counted:
    `inFlight` is records that are on it, or spooled, and not stored, and `accepted` is that and what is accounted for.

    Exit 0 when it is ready, 1 when it is not.
    """
    deadline = time.monotonic() + (timeout if wait else 0)
    current = read_status(port_base)
    while not current.ready and time.monotonic() < deadline:
        time.sleep(0.25)
        current = read_status(port_base)
    if as_json:
        print(json.dumps(current.as_json()))
    else:
        Console().print(_table(current))
    if current.paused:
        Console(stderr=True).print(
            f"{current.paused} partitions are paused: too many of their events would become dead letters. Look for "
            "partition_paused in the workers' logs; it says which and what to do."
        )
    if not current.ready:
        Console(stderr=True).print(
            f"The stack at port base {port_base} is not ready; start it with `headrace up --port-base {port_base}`."
        )
        raise typer.Exit(1)


def _table(current: Status) -> Table:
    table = Table("", "", show_header=False)
    for name, figure in current.as_json().items():
        if isinstance(figure, dict):
            figure = "  ".join(f"{key} {value}" for key, value in figure.items())
        table.add_row(name, str(figure))
    return table
