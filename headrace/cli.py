"""The command line: `headrace --help` lists what there is."""

import asyncio
import ctypes
import gc
import sys
from typing import Annotated, Final

import typer
import uvloop
from pydantic import ValidationError

from collector.journal_directory import JournalInUse
from collector.segment_file import JournalDamaged
from headrace.commands import dead_letters, demo, event, repair, schemas, send, settings, status, tail, up, verify
from headrace.log_identity import BrokerUnavailable
from headrace.log_topics import ensure_set_topics, grow_set_topics
from headrace.logs import configure_logs
from headrace.waiting import read_positions
from schemas.registry import RegistryError
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from schemas.tenants import TenantsError, load_tenants
from schemas.topics import TopicError
from warehouse.client import ClickHouse, ClickHouseUnavailable
from warehouse.migrate import Target, apply_migrations, set_retention

app = typer.Typer(
    help="Product usage events, from an HTTP request to numbers that agree.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, status, send, demo, tail, event, dead_letters, verify, repair, settings, schemas):
    command.register(app)

#: What goes wrong outside of the program, told in one sentence and exit 1.
_SENTENCES = (
    BrokerUnavailable,
    ClickHouseUnavailable,
    JournalDamaged,
    JournalInUse,
    RegistryError,
    TenantsError,
    TopicError,
    OSError,
)


_M_ARENA_MAX: Final = -8  # of malloc.h


@app.callback()
def configure() -> None:
    """Read the settings that all commands share."""
    common = CommonSettings()
    configure_logs(common.log_format, common.log_level)


def tune_memory() -> None:
    """Look for cycles rarely: the servers make many short-lived objects and hardly any cycles (docs: Python's gc).

    One heap for all threads where the C library is glibc, which gives each its own: the same megabytes of a block
    would be kept in every one of them (`man mallopt`, M_ARENA_MAX; a third of a busy worker's memory).
    """
    gc.set_threshold(200_000, 50, 1_000)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)


# The two servers import what the other commands would wait half a second for.
@app.command()
def collector() -> None:
    """Serve the collector: HTTP in, the log out. Settings by environment: `headrace settings`."""
    from collector.settings import CollectorSettings
    from headrace.collector import JournalSettings, run_collector

    tune_memory()
    run = run_collector(
        CommonSettings(), BrokerSettings(), ClickHouseSettings(), CollectorSettings(), JournalSettings()
    )
    raise typer.Exit(uvloop.run(run))


@app.command()
def worker() -> None:
    """Run one worker of the group: the log in, ClickHouse out. Settings by environment: `headrace settings`."""
    from headrace.worker import run_worker
    from streams.settings import WorkerSettings

    tune_memory()
    broker, settings = BrokerSettings(), WorkerSettings()
    raise typer.Exit(uvloop.run(run_worker(CommonSettings(), broker, ClickHouseSettings(), settings)))


@app.command()
def migrate(
    topics: Annotated[bool, typer.Option(help="Also create the topics that are missing on the broker.")] = True,
    grow: Annotated[
        bool,
        typer.Option(
            "--grow",
            help="Also give topics with fewer partitions than HEADRACE_PARTITIONS so many. Before it, stop the "
            "collectors, then the workers once all is stored.",
        ),
    ] = False,
) -> None:
    """Bring ClickHouse's tables and the broker's topics up to date; safe to repeat."""
    settings, broker = ClickHouseSettings(), BrokerSettings()
    client = ClickHouse(settings)
    target = Target(
        database=settings.clickhouse_database,
        cluster=settings.clickhouse_cluster,
        retention_months=settings.retention_months,
        username=settings.clickhouse_username,
        password=settings.clickhouse_password.get_secret_value(),
    )
    for name in apply_migrations(client, target):
        print(f"applied {name}")
    tenants_file = CommonSettings().tenants_file
    if tenants_file.exists():
        set_retention(client, target, load_tenants(tenants_file).retention_months)
    else:
        print(f"no tenants file at {tenants_file}: retention is left as it is")
    if topics:
        counts = asyncio.run(ensure_set_topics(broker, 60))
        if grow:
            counts = asyncio.run(grow_set_topics(broker, read_positions(client), 60))
        for name, partitions in counts.items():
            print(f"topic {name} has {partitions} partitions")


def main() -> None:
    """Run the command line; what is wrong outside of the program is one sentence on stderr and exit 1."""
    try:
        app()
    except ValidationError as error:
        for fault in error.errors():
            name = "HEADRACE_" + "_".join(map(str, fault["loc"])).upper()
            print(f"The setting {name} cannot be {fault['input']!r}: {fault['msg']}.", file=sys.stderr)
        sys.exit(1)
    except _SENTENCES as error:
        print(error, file=sys.stderr)
        sys.exit(1)
