"""Files of events read line by line: NDJSON whose lines go out as they are, checked and given an id, not rebuilt."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from collector.answers import RequestRefused
from collector.batch import parse_json
from collector.limits import MAX_BODY

#: Bytes of a line at the most: a request may have no more.
MAX_LINE: Final = MAX_BODY
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "headrace:send").bytes
_NO_IDS: Final = frozenset((b"", b"null", b'""'))
_LONGEST_NO_ID: Final = max(map(len, _NO_IDS))
_BOM: Final = b"\xef\xbb\xbf"


class ByteReader(Protocol):
    """A file open for reading bytes."""

    def readline(self, size: int = -1, /) -> bytes: ...


class Line(msgspec.Struct, frozen=True, gc=False):
    """One event of a file, or a line that is none: then `fault` says why, and `event` is the text as it stands there.

    `number` is the line where it begins, the first being 1; `last` the line and `end` the offset where it ends.
    """

    number: int
    event: bytes
    fault: str
    end: int
    last: int


class Position(NamedTuple):
    """How far a file is read: bytes, and lines."""

    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """Lines that are sent, or reported, together."""

    lines: list[Line]
    events: list[bytes]


class _Ids(msgspec.Struct, gc=False):
    eventId: msgspec.Raw = msgspec.Raw()
    messageId: msgspec.Raw = msgspec.Raw()


_IDS: Final = msgspec.json.Decoder(_Ids)


def read_ndjson(file: ByteReader, start: Position) -> Iterator[Line]:
    """The events of NDJSON from `start` on, where `file` already stands; blank lines are passed over."""
    offset, number = start
    while text := file.readline(MAX_LINE + 2):
        offset += len(text)
        number += 1
        if len(text) > MAX_LINE and text[-1:] != b"\n":
            offset += _skip_line(file)
            yield Line(number, text[:1_000], f"The line is over {MAX_LINE} bytes.", offset, number)
        elif event := text.removeprefix(_BOM).strip() if number == 1 else text.strip():
            event, fault = _checked(event, number)
            yield Line(number, event, fault, offset, number)


def _skip_line(file: ByteReader) -> int:
    skipped = 0
    while text := file.readline(MAX_LINE):
        skipped += len(text)
        if text[-1:] == b"\n":
            break
    return skipped


def _checked(event: bytes, number: int) -> tuple[bytes, str]:
    """The event with an id, and why it is none.

    The decoder reads the line to its end and keeps the two ids, which costs a third of reading all of it.
    """
    try:
        ids = _IDS.decode(event)
        if not event.isascii():
            event.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_whole(event, number)
    if _is_id(ids.eventId) or (not ids.eventId and _is_id(ids.messageId)):
        return event, ""
    return put_event_id(event, stable_id(number, event)), ""


def _is_id(text: msgspec.Raw) -> bool:
    return len(text) > _LONGEST_NO_ID or bytes(text) not in _NO_IDS


def _read_whole(event: bytes, number: int) -> tuple[bytes, str]:
    """As `_checked`, for a line that is no JSON, or that only the collector's reading repairs."""
    try:
        value, repaired = parse_json(event)
    except (RequestRefused, RecursionError) as error:
        return event, str(error).replace("The body", "The line")
    if not isinstance(value, dict):
        return event, "The line is not a JSON object."
    if value.get("eventId", value.get("messageId")):
        return repaired, ""
    return put_event_id(repaired, stable_id(number, event)), ""


def stable_id(number: int, text: bytes) -> str:
    """The id of an event that has none: the UUIDv5 (RFC 9562) of its line's number and text.

    So sending the file again sends the same ids. It also means that the same text in the same line of another file is
    the same event: events that have no timestamp of their own need ids of their own.
    """
    digest = hashlib.sha1(_NAMESPACE + b"%d:" % number + text, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def put_event_id(event: bytes, event_id: str) -> bytes:
    """The object with this eventId as its last member, which wins over one that is empty."""
    opened = event[:-1].rstrip()
    comma = b"" if opened == b"{" else b","
    return b'%b%b"eventId":"%b"}' % (opened, comma, event_id.encode())


def pack(lines: Iterable[Line], events: int, size: int = MAX_BODY) -> Iterator[ImportBatch]:
    """Lines in their order, at most `events` of them and about `size` bytes to a batch."""
    batch, length = ImportBatch([], []), 0
    for line in lines:
        if batch.lines and (len(batch.lines) >= events or length + len(line.event) > size):
            yield batch
            batch, length = ImportBatch([], []), 0
        batch.lines.append(line)
        if not line.fault:
            batch.events.append(line.event)
            length += len(line.event) + 1
    if batch.lines:
        yield batch
