"""The command line: `headrace --help` lists what there is."""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Final

import typer
from pydantic import ValidationError

from headrace.logs import configure_logs
from schemas.settings import CommonSettings

#: Each is registered by the module of its name in `headrace.commands`.
COMMANDS: Final = (
    "up",
    "status",
    "send",
    "demo",
    "tail",
    "event",
    "dead-letters",
    "verify",
    "repair",
    "settings",
    "schemas",
    "collector",
    "worker",
    "migrate",
)


def new_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with these commands. To import what one needs takes half as long as to import what all need."""
    app = typer.Typer(
        help="Product usage events, from an HTTP request to numbers that agree.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(configure)
    for name in names:
        import_module(f"headrace.commands.{name.replace('-', '_')}").register(app)
    return app


def configure() -> None:
    """Read the settings that all commands share."""
    common = CommonSettings()
    configure_logs(common.log_format, common.log_level)


def _told() -> tuple[type[Exception], ...]:
    """What goes wrong outside of the program, told in one sentence and exit 1. Imported where something does."""
    from collector.journal_directory import JournalInUse
    from collector.segment_file import JournalDamaged
    from headrace.log_identity import BrokerUnavailable
    from schemas.registry import RegistryError
    from schemas.tenants import TenantsError
    from schemas.topics import TopicError
    from warehouse.client import ClickHouseUnavailable

    return (
        BrokerUnavailable,
        ClickHouseUnavailable,
        JournalDamaged,
        JournalInUse,
        RegistryError,
        TenantsError,
        TopicError,
        OSError,
    )


def main() -> None:
    """Run the command line; what is wrong outside of the program is one sentence on stderr and exit 1."""
    asked = [name for name in sys.argv[1:2] if name in COMMANDS]
    try:
        new_app(asked or COMMANDS)()
    except ValidationError as error:
        for fault in error.errors():
            name = "HEADRACE_" + "_".join(map(str, fault["loc"])).upper()
            print(f"The setting {name} cannot be {fault['input']!r}: {fault['msg']}.", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not isinstance(error, _told()):
            raise
        print(error, file=sys.stderr)
        sys.exit(1)
