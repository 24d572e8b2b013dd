"""The bytes of a journal segment: a header, then frames, each with a checksum. Pure; `collector.journal` does the I/O.

A process or machine may die in the middle of a write, so a reader takes frames up to the first that is not whole:
whatever was cut off or changed, what it reads is a prefix of what was written. Numbers are little-endian.

header  magic "HRJ1", body length, CRC-32 of the body; body: journal id (16 bytes), first sequence, events accepted
        before, time of creation (ms), topic names (a count byte, then a length byte and UTF-8 each)
frame   length of the rest after the checksum, CRC-32 of that rest begun from the length; the rest: topic index, events,
        sequence, length of the key, key, value
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

MAGIC: Final = b"HRJ1"
_START: Final = struct.Struct("<4sII")
_HEADER: Final = struct.Struct("<16sQQQB")
_LENGTH: Final = struct.Struct("<II")
_FRAME: Final = struct.Struct("<BIQH")


class BadHeader(ValueError):
    """The bytes do not begin with a whole header of a segment."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says about itself; `accepted_before` counts the events of all earlier records of the journal."""

    journal: UUID
    first_sequence: int
    accepted_before: int
    created_ms: int
    topics: tuple[str, ...]


class Frame(NamedTuple):
    """One record in a segment: `topic` is an index into the header's, `events` those accepted with the record."""

    topic: int
    events: int
    sequence: int
    key: bytes
    value: bytes


def encode_header(header: Header) -> bytes:
    """The first bytes of a segment."""
    names = [name.encode() for name in header.topics]
    body = _HEADER.pack(
        header.journal.bytes, header.first_sequence, header.accepted_before, header.created_ms, len(names)
    ) + b"".join(bytes((len(name),)) + name for name in names)
    return _START.pack(MAGIC, len(body), zlib.crc32(body)) + body


def decode_header(data: bytes) -> tuple[Header, int]:
    """The header and where the first frame begins; raises BadHeader."""
    if len(data) < _START.size:
        raise BadHeader("The segment is shorter than a header.")
    magic, length, checksum = _START.unpack_from(data)
    body = data[_START.size : _START.size + length]
    if magic != MAGIC or len(body) != length or zlib.crc32(body) != checksum:
        raise BadHeader("The segment's header is cut short or its checksum is wrong.")
    journal, first, accepted, created, count = _HEADER.unpack_from(body)
    return Header(UUID(bytes=journal), first, accepted, created, _names(body, count)), _START.size + length


def _names(body: bytes, count: int) -> tuple[str, ...]:
    names, at = [], _HEADER.size
    for _ in range(count):
        names.append(body[at + 1 : at + 1 + body[at]].decode())
        at += 1 + body[at]
    return tuple(names)


def encode_frame(frame: Frame) -> bytes:
    """The bytes of one frame."""
    head = _FRAME.pack(frame.topic, frame.events, frame.sequence, len(frame.key)) + frame.key
    length = len(head) + len(frame.value)
    return _LENGTH.pack(length, zlib.crc32(frame.value, zlib.crc32(head, length))) + head + frame.value


def frames_in(data: bytes, at: int = 0) -> Iterator[tuple[Frame, int]]:
    """The whole frames from `at` on, each with where it ends; stops at the first that is cut short or changed."""
    while at + _LENGTH.size + _FRAME.size <= len(data):
        length, checksum = _LENGTH.unpack_from(data, at)
        begin, end = at + _LENGTH.size, at + _LENGTH.size + length
        body = data[begin:end]
        if length < _FRAME.size or len(body) != length or zlib.crc32(body, length) != checksum:
            return
        topic, events, sequence, key_length = _FRAME.unpack_from(body)
        value_at = _FRAME.size + key_length
        yield Frame(topic, events, sequence, body[_FRAME.size : value_at], body[value_at:]), end
        at = end
