"""Options that several commands share."""

from typing import Annotated

import typer

PortBase = Annotated[
    int, typer.Option("--port-base", envvar="HEADRACE_PORT_BASE", help="First of the stack's five ports.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
StackAt = Annotated[
    int | None,
    typer.Option(
        "--port-base",
        help="First of the stack's five ports. Not given: the addresses in HEADRACE_CLICKHOUSE_URL, "
        "HEADRACE_COLLECTOR_URL … where set, else HEADRACE_PORT_BASE, else 8700.",
        show_default=False,
    ),
]
Company = Annotated[str, typer.Option("--company", help="Only this tenant, by companyId.", show_default=False)]
