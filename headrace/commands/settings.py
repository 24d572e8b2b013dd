"""`headrace settings`: what can be set, and what it is without."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace.commands.options import AsJson
from headrace.settings_table import all_settings, settings_markdown


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(settings)


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/guide/settings.md.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every setting: its environment variable, its default and what it is."""
    if markdown:
        print(settings_markdown(), end="")
    elif as_json:
        rows = [{"variable": one.variable, "default": one.default, "meaning": one.meaning} for one in all_settings()]
        print(json.dumps(rows))
    else:
        table = Table("variable", "default", "what it is")
        section = ""
        for setting in all_settings():
            if setting.section != section:
                section = setting.section
                table.add_section()
                table.add_row(f"[bold]{section}[/]")
            table.add_row(setting.variable, setting.default, setting.meaning)
        Console().print(table)
