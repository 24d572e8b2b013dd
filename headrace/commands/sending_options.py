"""Options of the commands that send: where to, how many requests at a time, and for how long to try."""

from typing import Annotated

import typer

StackPortBase = Annotated[
    int | None,
    typer.Option(
        "--port-base", help="The stack to send to. Default: HEADRACE_PORT_BASE, else 8700.", show_default=False
    ),
]
CollectorUrl = Annotated[
    str | None, typer.Option("--url", help="The collector. Default: that of the stack.", show_default=False)
]
GivenWriteKey = Annotated[
    str | None,
    typer.Option("--write-key", help="The tenant's write key. Default: the stack's first.", show_default=False),
]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Requests on their way at a time.")]
GiveUp = Annotated[float, typer.Option("--give-up-after", min=0, help="Seconds to try again a request that fails.")]
