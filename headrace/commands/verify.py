"""`headrace verify`: whether what is stored agrees with itself and with what was accepted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import starmap
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.balance import Stack, await_balance
from headrace.commands.options import AsJson, StackAt
from headrace.commands.shown_letters import wide_console
from headrace.connections import clickhouse_at, log_that_keeps, tenants_file_at
from headrace.endpoints import Endpoints
from headrace.registered import registered_codec
from schemas.settings import BrokerSettings, ClickHouseSettings
from schemas.tenants import load_tenants
from streams.core.identity import Alias, Link, link_or_alias, persons
from streams.core.sessions import recompute
from streams.settings import WorkerSettings
from warehouse.client import ClickHouse
from warehouse.verification.checks import CHECKS, run_checks
from warehouse.verification.findings import FIRST, Difference, Findings
from warehouse.verification.scope import Recomputation, Retention, Scope

UNKNOWN: Final = "unknown"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(verify)


def verify(
    port_base: StackAt = None,
    as_json: AsJson = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is in flight.", min=0)] = 30.0,
    accepted: Annotated[
        str,
        typer.Option(
            help="Events accepted in all, where the collector's own count does not reach back to the first; "
            f"`{UNKNOWN}` leaves that check out.",
            show_default="what the collector counted",
        ),
    ] = "",
) -> None:
    """Check that nothing is lost, nothing counts twice, and every number equals a recount. Changes nothing.

    accepted = stored + duplicate + dead + in flight; the ledger's blocks and the rows they stored; each event once;
    every rollup, session and person as recomputed from `events`.

    Exit 0 when all agrees; 1 when something differs, with the first differences.
    """
    if accepted and accepted != UNKNOWN and not accepted.isdecimal():
        raise typer.BadParameter(f"--accepted takes a number or `{UNKNOWN}`, not {accepted!r}.")
    endpoints = Endpoints.found(port_base)
    every: list[Findings] = []
    figures: Mapping[str, int] = {}
    with clickhouse_at(endpoints) as client, _progress() as progress:
        if accepted != UNKNOWN:
            task = progress.add_task("accepted", total=None)
            codec = registered_codec(BrokerSettings())
            log = log_that_keeps(endpoints, port_base)
            stack = Stack(client, codec, endpoints, port_base, int(accepted) if accepted else None, log)
            balance, findings = await_balance(stack, wait)
            every, figures = [findings], balance.as_json()
            progress.update(task, total=1.0, completed=1.0)
        tasks = {name: progress.add_task(name, total=1.0) for name in CHECKS}
        scope = new_scope(client, port_base)
        every += run_checks(scope, lambda name, done: progress.update(tasks[name], completed=done))
    _print(every, figures, as_json)
    if not all(findings.agrees for findings in every):
        raise typer.Exit(1)


def new_scope(client: ClickHouse, port_base: int | None) -> Scope:
    """What to verify by: the session gap of the worker's settings, retention with what tenants have of their own."""
    tenants_file = tenants_file_at(port_base)
    tenants = load_tenants(tenants_file).by_company.values() if tenants_file.exists() else ()
    own = {tenant.company_id: tenant.retention_months for tenant in tenants if tenant.retention_months}
    retention = Retention(ClickHouseSettings().retention_months, datetime.now(UTC).date(), own)
    return Scope(client, retention, recomputation(int(WorkerSettings().session_gap_minutes * 60_000)))


def recomputation(gap: int) -> Recomputation:
    """The core's rules, for a session gap in ms."""
    return Recomputation(
        gap=gap,
        sessions=recompute,
        identity=_identity,
        persons=lambda links, aliases: persons(starmap(Link, links), starmap(Alias, aliases)),
    )


def _identity(kind: str, anonymous_id: str, user_id: str, previous_id: str) -> str:
    said = link_or_alias(kind, anonymous_id, user_id, previous_id, 0)
    return "" if said is None else "link" if isinstance(said, Link) else "alias"


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def document(every: Sequence[Findings], figures: Mapping[str, int]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "agrees": all(findings.agrees for findings in every),
        **figures,
        "checks": [
            {"check": f.check, "compared": f.compared, "differing": f.differing, "notes": f.notes} for f in every
        ],
        "differences": [asdict(difference) for findings in every for difference in findings.first],
    }


def _print(every: Sequence[Findings], figures: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document(every, figures)))
        return
    console = wide_console()
    console.print(_checks_table(every))
    if figures:
        console.print("  ".join(f"{name} {figure:,}" for name, figure in figures.items()))
    if first := [difference for findings in every for difference in findings.first][:FIRST]:
        console.print(_differences_table(first))


def _checks_table(every: Sequence[Findings]) -> Table:
    table = Table("check", "compared", "result", "notes")
    for findings in every:
        result = "agrees" if findings.agrees else f"[red]{findings.differing:,} differences[/red]"
        table.add_row(findings.check, f"{findings.compared:,}", result, escape("; ".join(findings.notes)))
    return table


def _differences_table(differences: Sequence[Difference]) -> Table:
    names = ("check", "row", "figure", "expected", "found")
    table = Table(*names, title=f"The first {len(differences)} differences")
    for each in differences:
        table.add_row(*map(escape, (each.check, each.key, each.field, each.expected, each.found)))
    return table
