"""`headrace migrate`: ClickHouse's tables and the broker's topics as this version needs them."""

import asyncio
from typing import Annotated

import typer

from headrace.log_topics import ensure_set_topics, grow_set_topics
from headrace.waiting import read_positions
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from schemas.tenants import load_tenants
from warehouse.client import ClickHouse
from warehouse.migrate import Target, apply_migrations, set_retention


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(migrate)


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
