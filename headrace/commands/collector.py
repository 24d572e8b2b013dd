"""`headrace collector`: the server that producers send to."""

import typer
import uvloop

from collector.settings import CollectorSettings
from headrace.collector import JournalSettings, run_collector
from headrace.memory_tuning import tune_memory
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(collector)


def collector() -> None:
    """Serve the collector: HTTP in, the log out. Settings by environment: `headrace settings`."""
    tune_memory()
    run = run_collector(
        CommonSettings(), BrokerSettings(), ClickHouseSettings(), CollectorSettings(), JournalSettings()
    )
    raise typer.Exit(uvloop.run(run))
