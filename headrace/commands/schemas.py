"""`headrace schemas`: the contract of the log, proved and listed."""

import json
import sys

import typer

from headrace.commands.options import AsJson
from headrace.reasons_table import reasons_markdown
from schemas.codec import versions
from schemas.compatibility import Incompatibility, check_compatibility
from schemas.topics import SPECS

schemas_app = typer.Typer(help="The Avro schemas of the log and the closed list of reasons.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(schemas_app, name="schemas")


@schemas_app.command()
def check(as_json: AsJson = False) -> None:
    """Prove that every version of a topic's schema reads what every other one wrote; exit 1 where one cannot."""
    found = check_compatibility()
    if as_json:
        faults = [fault._asdict() for fault in found]
        print(json.dumps({"topics": {topic: versions(topic) for topic in SPECS}, "incompatible": faults}))
    else:
        for topic in SPECS:
            numbers = ", ".join(map(str, versions(topic)))
            broken = any(fault.topic == topic for fault in found)
            print(f"{topic}: versions {numbers}; {'not compatible' if broken else 'each reads what each other wrote'}.")
    for fault in found:
        print(_sentence(fault), file=sys.stderr)
    if found:
        raise typer.Exit(1)


@schemas_app.command()
def reasons() -> None:
    """Print the page docs/guide/reasons.md: why events are refused."""
    print(reasons_markdown(), end="")


def _sentence(fault: Incompatibility) -> str:
    where = f" at {fault.path}" if fault.path else ""
    return f"{fault.topic}: version {fault.reader} cannot read version {fault.writer}{where}: {fault.message}"
