"""A dead letter as a command shows it."""

import json
from base64 import b64encode
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.replay import NotReplayable, events_of
from headrace.times import show_time
from schemas.codec import Codec
from warehouse.letters import StoredLetter


def wide_console() -> Console:
    """Standard output; where it is no terminal, wide enough that no key is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=240)


def facts_of(letter: StoredLetter) -> dict[str, Any]:
    """Everything but the payload, by the names that every layer has."""
    return {
        "key": letter.key,
        "companyId": letter.company_id,
        "source": letter.source,
        "reason": letter.reason,
        "field": letter.field,
        "message": letter.message,
        "eventId": letter.event_id,
        "logId": letter.log_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "position": letter.position,
        "receivedAt": show_time(letter.received_at),
        "failedAt": show_time(letter.failed_at),
        "contentType": letter.content_type,
        "truncated": letter.truncated,
    }


def payload_of(letter: StoredLetter, codec: Codec) -> dict[str, Any]:
    """The payload as JSON values where it is events, as text where it is text, else as base64."""
    try:
        return {"events": events_of(letter, codec)}
    except NotReplayable as error:
        why = str(error)
    try:
        return {"notReplayable": why, "text": letter.payload.decode()}
    except UnicodeDecodeError:
        return {"notReplayable": why, "base64": b64encode(letter.payload).decode()}


def print_letter(facts: dict[str, Any]) -> None:
    """A table of the facts, then the events as indented JSON."""
    console = wide_console()
    events = facts.pop("events", None)
    table = Table("", "", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    for each in events or ():
        console.print_json(json.dumps(each))
