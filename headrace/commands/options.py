"""Options that several commands share."""

from typing import Annotated

import typer

PortBase = Annotated[
    int, typer.Option("--port-base", envvar="HEADRACE_PORT_BASE", help="First of the stack's five ports.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
