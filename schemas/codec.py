"""Bytes of the log <-> records: Avro in the Confluent wire format (a zero byte, the schema's id in four, the body).

Ids come from the schema registry where one is set (`schemas.registry`), else from the files themselves: a file's
number is fixed in `FILE_IDS` and never reused. A reader takes every version it has a file for, and resolves it to the
newest by Avro's rules.

fastavro is the reference. The compiled kernel (`schemas.avro_kernel`) does the same at a fraction of the cost where it
was built and can; whatever it refuses is fastavro's.
"""

import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.types import Schema

from schemas.records import CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER

try:
    from schemas.avro_kernel import NoCode, compile_reader, compile_writer
except ImportError:  # there was no C compiler when this was installed
    HAS_KERNEL = False
else:
    HAS_KERNEL = True

#: Bytes and where the value begins -> the value and where it ends.
Read = Callable[[bytes, int], tuple[Any, int]]
#: The value -> its bytes.
Write = Callable[[Any], bytes]
AVRO_DIR: Final = Path(__file__).parent / "avro"
#: (topic, version) -> the id used where there is no schema registry.
FILE_IDS: Final[Mapping[tuple[str, int], int]] = {(COLLECTED, 1): 1, (DEAD_LETTER, 1): 2}
_HEADER = 5


class UndecodableRecord(ValueError):
    """The bytes are not a record of a known schema; the message says why."""


@cache
def schema_text(topic: str, version: int) -> str:
    """The Avro file of a topic's version."""
    return (AVRO_DIR / f"{topic}.v{version}.avsc").read_text()


def versions(topic: str) -> list[int]:
    """The versions of a topic that have a file, oldest first."""
    return sorted(version for name, version in FILE_IDS if name == topic)


def without_logical_types(node: Any) -> Any:
    """The schema for plain integers: the bytes are the same, and fastavro then builds no datetimes."""
    if isinstance(node, dict):
        return {k: without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    return [without_logical_types(item) for item in node] if isinstance(node, list) else node


@cache
def parsed_schema(topic: str, version: int) -> Schema:
    """A topic's schema ready for fastavro, times as plain integers."""
    return fastavro.parse_schema(without_logical_types(json.loads(schema_text(topic, version))))


@cache
def _compiled(topic: str, version: int) -> tuple[Read, Write] | None:
    """The kernel's functions for a topic's version, None where it has none for its types."""
    schema = without_logical_types(json.loads(schema_text(topic, version)))
    try:
        return compile_reader(schema), compile_writer(schema)
    except NoCode:
        return None


class Codec:
    """Encodes with the newest version of a topic and decodes every known one.

    `ids` maps (topic, version) to the id on the wire; `FILE_IDS` where there is no registry. Without `kernel` fastavro
    does all.
    """

    def __init__(self, ids: Mapping[tuple[str, int], int] = FILE_IDS, *, kernel: bool = HAS_KERNEL) -> None:
        self._newest = {topic: versions(topic)[-1] for topic in (COLLECTED, DEAD_LETTER)}
        self._headers = {
            topic: b"\x00" + ids[topic, version].to_bytes(4, "big") for topic, version in self._newest.items()
        }
        self._schemas = {topic: parsed_schema(topic, version) for topic, version in self._newest.items()}
        self._compiled = {
            topic: _compiled(topic, version) if kernel else None for topic, version in self._newest.items()
        }
        self._by_id = {number: key for key, number in ids.items()}

    def encode_collected(self, record: CollectedRecord) -> bytes:
        """The record's bytes on `events.collected`."""
        return self._encode(COLLECTED, record)

    def encode_dead_letter(self, letter: DeadLetter) -> bytes:
        """The letter's bytes on `events.dead_letter`."""
        return self._encode(DEAD_LETTER, letter)

    def decode_collected(self, data: bytes) -> CollectedRecord:
        """A record of `events.collected`; raises UndecodableRecord."""
        record: CollectedRecord = self._decode(COLLECTED, data)
        return record

    def decode_dead_letter(self, data: bytes) -> DeadLetter:
        """A record of `events.dead_letter`; raises UndecodableRecord."""
        letter: DeadLetter = self._decode(DEAD_LETTER, data)
        return letter

    def _encode(self, topic: str, record: CollectedRecord | DeadLetter) -> bytes:
        if compiled := self._compiled[topic]:
            try:
                return self._headers[topic] + compiled[1](record)
            except Exception:  # whatever the kernel cannot write, fastavro can, or says why not
                pass
        out = io.BytesIO()
        out.write(self._headers[topic])
        fastavro.schemaless_writer(out, self._schemas[topic], record)
        return out.getvalue()

    def _decode(self, topic: str, data: bytes) -> Any:
        compiled = self._compiled[topic]
        if compiled and data.startswith(self._headers[topic]):
            try:
                record, end = compiled[0](data, _HEADER)
                if end == len(data):
                    return record
            except Exception:  # whatever the kernel cannot read, fastavro can, or says why not
                pass
        return self._decode_any(topic, data)

    def _decode_any(self, topic: str, data: bytes) -> Any:
        if len(data) < _HEADER or data[0] != 0:
            raise UndecodableRecord("The record does not begin with the Confluent header: a zero byte and a schema id.")
        number = int.from_bytes(data[1:_HEADER], "big")
        known_topic, version = self._by_id.get(number, ("", 0))
        if known_topic != topic:
            raise UndecodableRecord(f"The record names schema id {number}, which is not one of {topic}.")
        body = io.BytesIO(data)
        body.seek(_HEADER)
        reader = None if version == self._newest[topic] else self._schemas[topic]
        try:
            record = fastavro.schemaless_reader(body, parsed_schema(topic, version), reader)
        except Exception as error:  # fastavro raises many kinds on broken bytes; each means the same here
            raise UndecodableRecord(f"The record's body does not fit {topic} version {version}: {error!r}.") from error
        if body.tell() != len(data):
            raise UndecodableRecord(f"The record has {len(data) - body.tell()} bytes after its end.")
        return record
