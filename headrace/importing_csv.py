"""CSV files as events: the header names the fields, `properties.term` and `context.page.url` the members of objects."""

import csv
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from collector.segment import DEFAULT_NAMES
from headrace.importing import ByteReader, Line, Position, put_event_id, stable_id
from schemas.catalog import FIRST_CLASS, name_to_category_action
from schemas.sent import SentEvent

_OBJECTS: Final = frozenset(("properties", "context", "traits"))
_FIELDS: Final = frozenset({"messageId", *(field.alias or name for name, field in SentEvent.model_fields.items())})
_TRUTH: Final = {"true": True, "false": False}


class HeaderError(Exception):
    """The file has no header that names an event's fields; one sentence."""


class _CountedLines:
    """The lines of a file as text for the csv module, with what it has taken: a record may be several lines."""

    def __init__(self, file: ByteReader, start: Position) -> None:
        self._file = file
        self.offset, self.number = start
        self.taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        while text := self._file.readline():
            self.offset += len(text)
            self.number += 1
            self.taken.append(text)
            yield text.decode(errors="surrogateescape")


def read_header(file: ByteReader) -> tuple[list[str], Position]:
    """The names in the file's first record and where the next one begins. Raises HeaderError."""
    lines = _CountedLines(file, Position())
    names = [name.strip() for name in next(csv.reader(lines), [])]
    if names:
        names[0] = names[0].removeprefix("\ufeff")
    if not names:
        raise HeaderError("The file is empty; its first line has to name the fields.")
    for name in names:
        _check_column(name, names)
    return names, Position(lines.offset, lines.number)


def _check_column(name: str, names: list[str]) -> None:
    top, dot, member = name.partition(".")
    if not (member if top in _OBJECTS else not dot and top in _FIELDS):
        known = ", ".join(sorted(_FIELDS - _OBJECTS))
        raise HeaderError(
            f"The column {name!r} is no field of an event; there are {known}, properties.…, context.… and traits.…."
        )
    if names.count(name) > 1 or any(other.startswith(f"{name}.") for other in names):
        raise HeaderError(f"The column {name!r} is there twice, or once as a value and once as an object.")


def read_csv(file: ByteReader, names: list[str], start: Position) -> Iterator[Line]:
    """The events from `start` on, where `file` already stands; a record of another length than the header is none."""
    lines = _CountedLines(file, start)
    records = csv.reader(lines)
    while True:
        first = lines.number + 1
        lines.taken.clear()
        try:
            cells, fault = next(records, None), ""
        except csv.Error as error:
            cells, fault = [], f"The record is not CSV: {error}."
        if cells is None:
            return
        text = b"".join(lines.taken).strip()
        if not text:
            continue
        if not fault and len(cells) != len(names):
            fault = f"The record has {len(cells)} cells, the header {len(names)}."
        event, fault = (text, fault) if fault else _event_of(dict(zip(names, cells, strict=True)), first, text)
        yield Line(first, event, fault, lines.offset, lines.number)


def _event_of(cells: Mapping[str, str], number: int, text: bytes) -> tuple[bytes, str]:
    event = build_event(cells)
    try:
        line = orjson.dumps(event)
    except TypeError:
        return text, "The record is not UTF-8."
    if event.get("eventId") or event.get("messageId"):
        return line, ""
    return put_event_id(line, stable_id(number, text)), ""


def build_event(cells: Mapping[str, str]) -> dict[str, Any]:
    """The event of a record: empty cells are absent; a cell is a number or a truth value where the schema has one.

    One that should be and is not stays text, so that the event is refused for it and not changed.
    """
    event: dict[str, Any] = {}
    for name, cell in cells.items():
        if cell:
            _put(event, name.split("."), cell)
    if "value" in event:
        event["value"] = _number(event["value"])
    if "timestamp" in event:
        event["timestamp"] = _time(event["timestamp"])
    properties = event.get("properties", {})
    for name, rule in FIRST_CLASS.get(_name_of(event, properties), {}).items():
        if isinstance(properties.get(name), str):
            properties[name] = _READERS.get(rule.type or "", str)(properties[name])
    return event


def _put(event: dict[str, Any], path: list[str], cell: str) -> None:
    for step in path[:-1]:
        event = event.setdefault(step, {})
    event[path[-1]] = cell


def _name_of(event: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[str, str]:
    category, action = event.get("eventCategory", ""), event.get("eventAction") or event.get("event", "")
    if category and action:
        return category, action
    default = DEFAULT_NAMES.get(event.get("type", "")) or name_to_category_action(action, properties.get("category"))
    return category or default[0], event.get("eventAction") or default[1]


def _number(cell: str) -> float | int | str:
    """A number in JSON's notation, which has neither thousands separators nor leading zeros."""
    try:
        number = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
    return number if isinstance(number, int | float) and not isinstance(number, bool) else cell


def _time(cell: str) -> float | int | str:
    """Milliseconds since the epoch; fewer digits are a date in ISO 8601's short form."""
    number = _number(cell)
    return number if isinstance(number, int | float) and len(cell) > len("20261124") else cell


def _integer(cell: str) -> float | int | str:
    number = _number(cell)
    return int(number) if isinstance(number, float) and number.is_integer() else number


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "integer": _integer,
    "number": _number,
    "boolean": lambda cell: _TRUTH.get(cell.strip().lower(), cell),
}
