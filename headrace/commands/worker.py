"""`headrace worker`: one member of the group that stores what collectors took."""

import typer
import uvloop

from headrace.memory_tuning import tune_memory
from headrace.worker import run_worker
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from streams.settings import WorkerSettings


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(worker)


def worker() -> None:
    """Run one worker of the group: the log in, ClickHouse out. Settings by environment: `headrace settings`."""
    tune_memory()
    broker, settings = BrokerSettings(), WorkerSettings()
    raise typer.Exit(uvloop.run(run_worker(CommonSettings(), broker, ClickHouseSettings(), settings)))
