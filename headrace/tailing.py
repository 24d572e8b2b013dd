"""Records of the log as people and programs read them: one line an event, or one JSON document a record."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from schemas.codec import Codec, UndecodableRecord
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.topics import COLLECTED

_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record and where it lies; `content` is None where the bytes cannot be read, and `fault` says why."""

    partition: int
    offset: int
    key: str
    value: bytes
    content: CollectedRecord | DeadLetter | None
    fault: str = ""

    @property
    def company_id(self) -> str:
        """The tenant, "" where nobody can say."""
        return self.content["companyId"] if self.content else ""

    def as_json(self) -> str:
        """One JSON document; properties are an object, a payload text, what is unreadable hexadecimal."""
        document: dict[str, Any] = {"partition": self.partition, "offset": self.offset, "key": self.key}
        if self.content is None:
            document |= {"error": self.fault, "value": self.value.hex()}
        else:
            document["record"] = {name: _plain(name, value) for name, value in self.content.items()}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def read_record(
    codec: Codec, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None
) -> ReadRecord:
    """Decode what lies at one place of a topic; what cannot be is told, not raised."""
    name, data = (key or b"").decode(errors="replace"), value or b""
    try:
        content = codec.decode_collected(data) if topic == COLLECTED else codec.decode_dead_letter(data)
    except UndecodableRecord as error:
        return ReadRecord(partition, offset, name, data, None, str(error))
    return ReadRecord(partition, offset, name, data, content)


def _plain(name: str, value: Any) -> Any:
    if name == "events":
        return [{**event, "properties": _parsed(event["properties"])} for event in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _parsed(properties: str) -> Any:
    try:
        return json.loads(properties)
    except ValueError:
        return properties


def lines_of(record: ReadRecord) -> Iterator[tuple[str, str]]:
    """(style, text) of each line that people read: an event, a dead letter or something unreadable."""
    content = record.content
    if content is None:
        yield "red", f"partition {record.partition} offset {record.offset} cannot be read: {record.fault}"
    elif "events" in content:
        collected = cast(CollectedRecord, content)
        for event in collected["events"]:
            visitor = collected["anonymousId"] or event["userId"]
            yield "", _event_line(collected["companyId"], visitor, event)
    else:
        yield "yellow", _letter_line(content)


def _letter_line(letter: DeadLetter) -> str:
    payload = letter["payload"].decode(errors="replace")
    return (
        f"{_clock(letter['failedAt'])}  {letter['companyId']}  {letter['reason']}  {letter['field'] or '-'}  "
        f"{letter['eventId'] or '-'}  {letter['message']}  {_cut(payload)}"
    )


def _event_line(company_id: str, visitor: str, event: CollectedEvent) -> str:
    name = f"{event['eventCategory']}/{event['eventAction']}"
    rest = [event["eventLabel"], "" if event["properties"] == "{}" else event["properties"]]
    return (
        f"{_clock(event['timestamp'])}  {company_id}  {visitor}  {event['type']}  {name}  {event['eventId']}  "
        f"{_cut('  '.join(part for part in rest if part))}"
    ).rstrip()


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
