"""`headrace event`: the receipt of one event."""

import json
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from headrace.commands.options import AsJson, Company, StackAt
from headrace.commands.shown_letters import facts_of, wide_console
from headrace.connections import clickhouse_at
from headrace.endpoints import Endpoints
from headrace.published import PartUnavailable, read_accepting, read_lag, worker_urls
from headrace.times import show_time
from warehouse.letters import StoredLetter
from warehouse.receipts import Receipt, StoredEvent, find_receipt

EXIT_CODES: Final = {"stored": 0, "dead": 3, "not_found": 4}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(event)


def event(
    event_id: Annotated[str, typer.Argument(help="The event's eventId.", show_default=False)],
    company: Company = "",
    port_base: StackAt = None,
    as_json: AsJson = False,
) -> None:
    """Show where an event is, and when it passed each step; or why it did not.

    Exit 0 when it is stored, 3 when it is a dead letter, 4 when it is neither (it may be in flight).
    """
    endpoints = Endpoints.found(port_base)
    with clickhouse_at(endpoints) as client:
        receipt = find_receipt(client, event_id, company)
        unseen = [] if receipt.state != "not_found" else _look_further(endpoints, port_base, company)
    if as_json:
        typer.echo(json.dumps(document(receipt, unseen)))
    else:
        _print(receipt, unseen)
    raise typer.Exit(EXIT_CODES[receipt.state])


def _look_further(endpoints: Endpoints, port_base: int | None, company: str) -> list[str]:
    """What was looked at without finding the event, and where it may still be."""
    tenant = f"of {company}" if company else "of every tenant"
    looked = [f"It is neither among the stored events {tenant} nor among the dead letters."]
    try:
        lag = read_lag(worker_urls(endpoints, port_base))
        rest = f"all but {lag.records} records, the oldest {lag.seconds:.1f} s old" if lag.records else "all"
        looked.append(f"Of the log the workers have stored {rest}.")
    except PartUnavailable as error:
        looked.append(str(error))
    try:
        looked.append(f"The collector's disk has {read_accepting(endpoints.collector_url).spooled} records waiting.")
    except PartUnavailable as error:
        looked.append(str(error))
    return looked


def document(receipt: Receipt, looked_at: list[str]) -> dict[str, Any]:
    """What `--json` prints; times are ISO 8601."""
    return {
        "eventId": receipt.event_id,
        "state": receipt.state,
        "stored": [_stored_document(stored) for stored in receipt.stored],
        "deadLetters": [_letter_document(letter) for letter in receipt.letters],
        "lookedAt": looked_at,
    }


def _stored_document(stored: StoredEvent) -> dict[str, Any]:
    facts = dict(stored.event)
    where = {name: facts.pop(name) for name in ("logId", "partition", "offset")}
    session = {"sessionId": facts.pop("sessionId"), **stored.session}
    person = facts.pop("person")
    del facts["user"]
    rollups = {view: {name: str(value) for name, value in key.items()} for view, key in stored.rollups.items()}
    parts = {"block": _with_times({**where, **stored.block}), "session": _with_times(session)}
    return {**_with_times(facts), "finished": bool(stored.block), **parts, "person": person, "rollups": rollups}


def _letter_document(letter: StoredLetter) -> dict[str, Any]:
    return {**facts_of(letter), "replay": f"headrace dead-letters replay {letter.key}"}


def _with_times(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: show_time(value) if name.endswith("At") or name == "timestamp" else value for name, value in facts.items()
    }


def _print(receipt: Receipt, looked_at: list[str]) -> None:
    console = wide_console()
    for stored in receipt.stored:
        console.print(_stored_table(_stored_document(stored)))
    for letter in receipt.letters:
        console.print(_table(f"dead letter: {letter.reason}", _letter_document(letter)))
    if receipt.state == "not_found":
        console.print(f"No event {receipt.event_id} is stored, and none has died.", markup=False)
        for sentence in looked_at:
            console.print(sentence, markup=False)


def _stored_table(facts: dict[str, Any]) -> Table:
    state = "stored" if facts["finished"] else "stored; its block is not in the ledger yet"
    if not facts["rollups"]:
        facts["rollups"] = "none: bots are left out" if facts["bot"] else "none"
    return _table(state, facts)


def _table(title: str, facts: dict[str, Any]) -> Table:
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        if isinstance(value, dict):
            for part, inner in value.items():
                table.add_row(f"{name} {part}", escape(_line(inner)))
        else:
            table.add_row(name, escape(str(value)))
    return table


def _line(value: object) -> str:
    return "  ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
