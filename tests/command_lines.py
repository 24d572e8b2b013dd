"""Checks that a command line of ours is one that the program takes, without running it."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import typer

from headrace.cli import new_app
from headrace.settings_table import SECTIONS, all_settings

#: With every command.
PROGRAM = new_app()


def find_fault(line: str | Sequence[str], program: typer.Typer = PROGRAM) -> str:
    """What is wrong with the words of a command after `headrace`, or another program; "" for nothing."""
    words = shlex.split(line, comments=True) if isinstance(line, str) else list(line)
    command: Any = typer.main.get_command(program)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    return f"{command.name} has no {', '.join(sorted(given - known))}" if given - known else ""


def check_variables(environment: Mapping[str, Any]) -> None:
    """Every HEADRACE_ variable exists, and its settings class takes the value. Others are passed over."""
    ours = {name: str(value) for name, value in environment.items() if name.startswith("HEADRACE_")}
    assert set(ours) - {setting.variable for setting in all_settings()} == set()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    with patch.dict(os.environ, {**kept, **ours}, clear=True):
        for _, settings in SECTIONS:
            settings()
