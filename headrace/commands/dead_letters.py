"""`headrace dead-letters`: what could not be stored, and sending it again."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from headrace.commands.options import AsJson, Company, StackAt
from headrace.commands.shown_letters import facts_of, payload_of, print_letter, wide_console
from headrace.connections import clickhouse_at, fail, tenants_at
from headrace.endpoints import Endpoints
from headrace.registered import registered_codec
from headrace.replay import BadPatch, Replayed, parse_patch
from headrace.replaying import Job, Tally, replayable
from headrace.sending import Patience
from headrace.times import parse_time, show_time
from schemas.reasons import Reason
from schemas.settings import BrokerSettings
from warehouse.letters import Wanted, count_letters, list_letters, read_letters

_Reason = Annotated[
    Reason | None, typer.Option("--reason", help="Only with this reason.", show_default=False, case_sensitive=False)
]
_Since = Annotated[str, typer.Option(help="Only failed since: ISO 8601, or 2h, 7d ago.", show_default=False)]
_Until = Annotated[str, typer.Option(help="Only failed before: ISO 8601, or 2h, 7d ago.", show_default=False)]
_Keys = Annotated[list[str] | None, typer.Argument(help="Keys of single dead letters.", show_default=False)]

letters_app = typer.Typer(help="Events that could not be stored: list, show, replay.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(letters_app, name="dead-letters")


@letters_app.command("list")
def list_command(
    reason: _Reason = None,
    company: Company = "",
    since: _Since = "",
    until: _Until = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest so many.")] = 50,
    port_base: StackAt = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    wanted = _wanted(None, reason, company, since, until)
    with clickhouse_at(Endpoints.found(port_base)) as client:
        letters, total = list_letters(client, wanted, limit), sum(count_letters(client, wanted).values())
    if as_json:
        typer.echo(json.dumps({"total": total, "deadLetters": [facts_of(letter) for letter in letters]}))
        return
    table = Table()
    table.add_column("key", no_wrap=True, min_width=max((len(letter.key) for letter in letters), default=0))
    for name in ("failed at", "tenant", "reason", "field", "event id", "message"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        shown = (letter.key, show_time(letter.failed_at), letter.company_id, letter.reason, letter.field)
        table.add_row(*map(escape, (*shown, letter.event_id, letter.message)))
    console = wide_console()
    console.print(table)
    console.print(f"{len(letters):,} of {total:,} dead letters.")


@letters_app.command("show")
def show_command(
    key: Annotated[str, typer.Argument(help="The dead letter's key.", show_default=False)],
    company: Company = "",
    port_base: StackAt = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its payload; a record of the log is decoded."""
    with clickhouse_at(Endpoints.found(port_base)) as client:
        letters = list(read_letters(client, Wanted(keys=(key,), company=company)))
        codec = registered_codec(BrokerSettings())
    if not letters:
        raise fail(f"There is no dead letter {key}.")
    for letter in letters:
        facts = {**facts_of(letter), **payload_of(letter, codec)}
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            print_letter(facts)


@letters_app.command("replay")
def replay_command(
    keys: _Keys = None,
    reason: _Reason = None,
    company: Company = "",
    since: _Since = "",
    until: _Until = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many letters.", show_default=False)] = None,
    fix: Annotated[
        str, typer.Option(help="JSON patch (RFC 6902) for each event, or @FILE that holds it.", show_default=False)
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the events, one JSON object a line, and send none.")
    ] = False,
    write_key: Annotated[
        str, typer.Option(help="The tenant's write key. Default: the tenants file's.", show_default=False)
    ] = "",
    give_up_after: Annotated[float, typer.Option(min=0, help="Seconds to try again a request that fails.")] = 60.0,
    port_base: StackAt = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to the collector again, fixed where --fix says how.

    Safe to repeat: every event keeps its eventId, and one without gets an id that follows from the letter's key, so
    what was stored before is a duplicate. The letters stay.

    Exit 0 when every event was accepted, 1 when some were rejected again or cannot be replayed.
    """
    wanted, patch = _wanted(keys, reason, company, since, until), _patch(fix)
    endpoints, tally = Endpoints.found(port_base), Tally()
    events: list[Replayed] = []
    with clickhouse_at(endpoints) as client:
        counts = count_letters(client, wanted)
        codec = registered_codec(BrokerSettings())
        if keys and not counts:
            raise fail(f"There is no dead letter {' or '.join(keys)}.")
        if dry_run:
            events = list(replayable(read_letters(client, wanted, limit), codec, patch, tally))
        else:
            write_keys = _write_keys(counts, write_key, port_base)
            job = Job(client, wanted, codec, patch, endpoints.collector_url, Patience(seconds=give_up_after))
            total = min(sum(counts.values()), limit or sum(counts.values()))
            with _bar(tally, total) as show:
                asyncio.run(job.run(write_keys, limit, tally, show))
    _report(tally, events, dry_run, as_json)
    if not tally.complete:
        raise typer.Exit(1)


def _wanted(keys: list[str] | None, reason: Reason | None, company: str, since: str, until: str) -> Wanted:
    now = time.time_ns() // 1_000_000
    try:
        first, last = (parse_time(text, now) if text else 0 for text in (since, until))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return Wanted(tuple(keys or ()), reason.value if reason else "", company, since=first, until=last)


def _patch(fix: str) -> Any:
    try:
        return parse_patch(Path(fix[1:]).read_text() if fix.startswith("@") else fix) if fix else None
    except (BadPatch, UnicodeDecodeError) as error:
        raise typer.BadParameter(str(error)) from error
    except OSError as error:
        raise typer.BadParameter(f"The fix {fix[1:]} cannot be read: {error.strerror}.") from error


def _write_keys(companies: Mapping[str, int], write_key: str, port_base: int | None) -> dict[str, str]:
    """The key of each tenant that has letters."""
    if write_key:
        if len(companies) > 1:
            raise typer.BadParameter(f"--write-key is one tenant's; name the --company: {', '.join(companies)}.")
        return dict.fromkeys(companies, write_key)
    known = tenants_at(port_base).by_company if companies else {}
    found = {company: known[company].write_keys for company in companies if company in known}
    without = [company or "''" for company in companies if not found.get(company)]
    if without:
        raise fail(
            f"The tenants file has no write key of {', '.join(without)}; give --write-key, or another --company."
        )
    return {company: keys[0] for company, keys in found.items()}


@contextmanager
def _bar(tally: Tally, total: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Replaying", total=total)
        yield lambda: progress.update(task, completed=tally.letters, description=f"{tally.accepted:,} accepted")


def _report(tally: Tally, events: list[Replayed], dry_run: bool, as_json: bool) -> None:
    if as_json:
        counts = {"letters": tally.letters, "events": tally.events, "accepted": tally.accepted}
        lists = {"rejected": tally.rejected, "notReplayable": tally.not_replayable, "undelivered": tally.undelivered}
        would = {"wouldSend": [json.loads(item.text) for item in events]} if dry_run else {}
        typer.echo(json.dumps({**counts, **lists, **would}))
        return
    for item in events:
        typer.echo(item.text)
    typer.echo(_summary(tally, dry_run), err=dry_run)
    for fault in (*tally.rejected, *tally.not_replayable):
        typer.echo(f"{fault['key']}: {fault['reason']}: {fault['message']}", err=True)
    if tally.undelivered:
        typer.echo(
            f"Stopped: {tally.undelivered} The same command sends all of it again, which changes nothing.", err=True
        )


def _summary(tally: Tally, dry_run: bool) -> str:
    rest = f"{len(tally.not_replayable):,} letters are not replayable"
    if dry_run:
        return f"{tally.letters:,} letters, {tally.events:,} events to send, {rest}."
    return (
        f"{tally.letters:,} letters, {tally.accepted:,} events accepted, "
        f"{len(tally.rejected):,} rejected again, {rest}."
    )
