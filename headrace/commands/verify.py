"""`headrace verify`: whether what is stored agrees with itself and with what was accepted."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import starmap
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.balance import AcceptedUnknown, Lag, PartUnavailable, read_accepting, read_lag, worker_urls
from headrace.commands.options import AsJson, StackAt
from headrace.connections import clickhouse_at, fail, tenants_file_at
from headrace.endpoints import Endpoints
from headrace.registered import registered_codec
from schemas.settings import BrokerSettings, ClickHouseSettings
from schemas.tenants import load_tenants
from schemas.topics import COLLECTED
from streams.core.identity import Alias, Link, link_or_alias, persons
from streams.core.sessions import recompute
from streams.settings import WorkerSettings
from warehouse.client import ClickHouse
from warehouse.verification.balance import Accounted, read_accounted
from warehouse.verification.checks import CHECKS, run_checks
from warehouse.verification.findings import FIRST, Findings
from warehouse.verification.scope import Recomputation, Retention, Scope

UNKNOWN: Final = "unknown"
_POLL_SECONDS: Final = 0.5
#: A collector publishes its journal's count every two seconds, so that the ledger may be ahead of it for as long.
_PUBLISHED_SECONDS: Final = 3.0


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
            help="Events accepted in all, where the collector's own figure does not reach back to the first; "
            f"`{UNKNOWN}` leaves that check out.",
            show_default="what the collector counted",
        ),
    ] = "",
) -> None:
    """Check that nothing is lost, nothing counted twice, and every number equals a recount. Changes nothing.

    accepted = stored + duplicate + dead + in flight; the ledger's blocks and the rows they stored; each event once;
    every rollup, session and person equals a recomputation from `events`.

    Exit 0 when all agrees; 1 when something differs, with the first differences.
    """
    if accepted and accepted != UNKNOWN and not accepted.isdecimal():
        raise typer.BadParameter(f"--accepted takes a number or `{UNKNOWN}`, not {accepted!r}.")
    endpoints = Endpoints.found(port_base)
    with clickhouse_at(endpoints) as client, _progress() as progress:
        scope = new_scope(client, port_base)
        balance: Mapping[str, int] = {}
        every: list[Findings] = []
        if accepted != UNKNOWN:
            progress.add_task("accepted", total=None)
            every.append(await_balance(client, endpoints, port_base, int(accepted) if accepted else None, wait))
        tasks = {name: progress.add_task(name, total=1.0) for name in CHECKS}
        every += run_checks(scope, lambda name, done: progress.update(tasks[name], completed=done))
        balance = figures(read_accounted(client, registered_codec(BrokerSettings())))
    _print(every, balance, as_json)
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


def await_balance(
    client: ClickHouse, endpoints: Endpoints, port_base: int | None, accepted: int | None, wait: float
) -> Findings:
    """Whether accepted = stored + duplicate + dead, once nothing is in flight or `wait` seconds are over."""
    codec = registered_codec(BrokerSettings())
    findings, began = Findings("accepted", compared=1), time.monotonic()
    while True:
        counted = _accepted(endpoints, accepted, client)
        accounted = read_accounted(client, codec)
        in_flight = counted - accounted.events
        limit = max(wait, _PUBLISHED_SECONDS) if in_flight < 0 and accepted is None else wait
        if in_flight == 0 or time.monotonic() - began >= limit:
            break
        time.sleep(_POLL_SECONDS)
    if in_flight < 0:
        findings.differ(COLLECTED, "doubled: stored + duplicate + dead", counted, accounted.events)
    elif in_flight > 0:
        _judge_in_flight(findings, endpoints, port_base, counted, accounted)
    return findings


def _accepted(endpoints: Endpoints, accepted: int | None, client: ClickHouse) -> int:
    if accepted is not None:
        return accepted
    first = read_accounted(client, registered_codec(BrokerSettings())).first_received_at
    try:
        return read_accepting(endpoints.collector_url).accepted_since(first / 1000)
    except AcceptedUnknown as error:
        raise fail(str(error)) from error


def _judge_in_flight(
    findings: Findings, endpoints: Endpoints, port_base: int | None, accepted: int, accounted: Accounted
) -> None:
    """In flight while the log or the spool has records that are not stored; lost when neither has any."""
    in_flight = accepted - accounted.events
    try:
        lag, spooled = read_lag(worker_urls(endpoints, port_base)), read_accepting(endpoints.collector_url).spooled
    except PartUnavailable as error:
        findings.differ(
            COLLECTED, "stored + duplicate + dead; whether the rest comes is not known", accepted, accounted.events
        )
        findings.notes.append(f"{in_flight} events are in flight. {error}")
        return
    if lag.records or spooled:
        findings.notes.append(_describe(in_flight, lag, spooled))
    else:
        findings.differ(COLLECTED, "lost: stored + duplicate + dead", accepted, accounted.events)


def _describe(in_flight: int, lag: Lag, spooled: int) -> str:
    return (
        f"{in_flight} events are in flight: {lag.records} records on the log, the oldest {lag.seconds:.1f} s old, "
        f"and {spooled} on the collector's disk"
    )


def figures(accounted: Accounted) -> dict[str, int]:
    """The ledger's totals as every output names them."""
    return {"stored": accounted.stored, "duplicate": accounted.duplicate, "dead": accounted.dead}


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print(every: list[Findings], balance: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document(every, balance)))
        return
    console = Console()
    checks = Table("check", "compared", "result", "notes")
    for findings in every:
        result = "agrees" if findings.agrees else f"[red]{findings.differing:,} differences[/red]"
        checks.add_row(findings.check, f"{findings.compared:,}", result, "; ".join(findings.notes))
    console.print(checks)
    console.print("  ".join(f"{name} {figure:,}" for name, figure in balance.items()))
    first = [difference for findings in every for difference in findings.first][:FIRST]
    if first:
        table = Table("check", "row", "figure", "expected", "found", title=f"The first {len(first)} differences")
        for difference in first:
            table.add_row(
                *map(escape, (difference.check, difference.key, difference.field)),
                escape(difference.expected),
                escape(difference.found),
            )
        console.print(table)


def document(every: list[Findings], balance: Mapping[str, int]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "agrees": all(findings.agrees for findings in every),
        **balance,
        "checks": [
            {"check": f.check, "compared": f.compared, "differing": f.differing, "notes": f.notes} for f in every
        ],
        "differences": [asdict(difference) for findings in every for difference in findings.first],
    }
