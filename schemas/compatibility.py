"""Whether every version of a topic's schema reads what every other wrote, by Avro's rules of schema resolution.

Source: Apache Avro 1.12 specification, "Schema Resolution". Stricter where the rules depend on the data: a reader has
to take every branch of the writer's union and every symbol of its enum. Aliases are not considered, and `fixed`
is refused: no schema here has either.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, Final, NamedTuple

from schemas.codec import schema_text, versions
from schemas.topics import COLLECTED, DEAD_LETTER

AvroSchema = Any  # what json.loads makes of an Avro file: str, list or dict

_PROMOTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class Mismatch(NamedTuple):
    """Why a reader cannot resolve what a writer wrote; `path` leads to the place, fields divided by dots."""

    path: str
    message: str


class Incompatibility(NamedTuple):
    """What stops version `reader` of a topic from reading the records of version `writer`."""

    topic: str
    writer: int
    reader: int
    path: str
    message: str


def check_compatibility() -> list[Incompatibility]:
    """Every version of each topic against every other, backward and forward; empty where all is well."""
    found: list[Incompatibility] = []
    for topic in (COLLECTED, DEAD_LETTER):
        schemas = {version: json.loads(schema_text(topic, version)) for version in versions(topic)}
        found += compare_versions(topic, schemas)
    return found


def compare_versions(topic: str, schemas: Mapping[int, AvroSchema]) -> list[Incompatibility]:
    """Every given version against every other, each as the writer and as the reader."""
    return [
        Incompatibility(topic, writer, reader, *mismatch)
        for writer, reader in permutations(schemas, 2)
        for mismatch in find_mismatches(schemas[writer], schemas[reader])
    ]


def find_mismatches(writer: AvroSchema, reader: AvroSchema) -> list[Mismatch]:
    """What stops `reader` from resolving the records of `writer`; empty where it can."""
    return list(_Resolution(writer, reader).mismatches(writer, reader, ""))


def _definitions(schema: AvroSchema) -> Iterator[tuple[str, AvroSchema]]:
    """Every named type in a schema, by the last part of its name."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield _last_part(schema["name"]), schema
        for inner in (schema["type"], schema.get("items"), schema.get("values")):
            yield from _definitions(inner)
        yield from _definitions([field["type"] for field in schema.get("fields", ())])


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _kind(schema: AvroSchema) -> str:
    """record, enum, array, map or a primitive's name."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    return kind if isinstance(kind, str) else _kind(kind)


class _Resolution:
    """The comparison of one writer's schema with one reader's, through names and recursion."""

    def __init__(self, writer: AvroSchema, reader: AvroSchema) -> None:
        self._writer_types = dict(_definitions(writer))
        self._reader_types = dict(_definitions(reader))
        self._begun: set[tuple[str, str]] = set()

    def mismatches(self, writer: AvroSchema, reader: AvroSchema, path: str) -> Iterator[Mismatch]:
        writer, reader = _defined(writer, self._writer_types), _defined(reader, self._reader_types)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.mismatches(branch, reader, path)
        elif isinstance(reader, list):
            if all(any(self.mismatches(writer, branch, path)) for branch in reader):
                yield Mismatch(path, f"The writer's {_kind(writer)} fits no branch of the reader's union.")
        elif _kind(writer) != _kind(reader):
            if _kind(reader) not in _PROMOTIONS.get(_kind(writer), ()):
                yield Mismatch(path, f"The writer's {_kind(writer)} cannot be read as {_kind(reader)}.")
        else:
            yield from self._same_kind(writer, reader, path)

    def _same_kind(self, writer: AvroSchema, reader: AvroSchema, path: str) -> Iterator[Mismatch]:
        match _kind(writer):
            case "record":
                yield from self._records(writer, reader, path)
            case "enum":
                yield from _names(writer, reader, path)
                yield from _enums(writer, reader, path)
            case "array":
                yield from self.mismatches(writer["items"], reader["items"], f"{path}[]")
            case "map":
                yield from self.mismatches(writer["values"], reader["values"], f"{path}{{}}")
            case kind if kind not in _PRIMITIVES:
                yield Mismatch(path, f"The type {kind} is not one that this check knows.")

    def _records(self, writer: AvroSchema, reader: AvroSchema, path: str) -> Iterator[Mismatch]:
        yield from _names(writer, reader, path)
        if (writer["name"], reader["name"]) in self._begun:
            return
        self._begun.add((writer["name"], reader["name"]))
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            inner = f"{path}.{field['name']}".lstrip(".")
            if field["name"] in written:
                yield from self.mismatches(written[field["name"]]["type"], field["type"], inner)
            elif "default" not in field:
                yield Mismatch(inner, "The writer does not have this field and the reader has no default for it.")


def _defined(schema: AvroSchema, types: Mapping[str, AvroSchema]) -> AvroSchema:
    return types[_last_part(schema)] if isinstance(schema, str) and schema not in _PRIMITIVES else schema


def _names(writer: AvroSchema, reader: AvroSchema, path: str) -> Iterator[Mismatch]:
    if _last_part(writer["name"]) != _last_part(reader["name"]):
        yield Mismatch(path, f"The writer calls this type {writer['name']}, the reader {reader['name']}.")


def _enums(writer: AvroSchema, reader: AvroSchema, path: str) -> Iterator[Mismatch]:
    unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if unknown and "default" not in reader:
        yield Mismatch(path, f"The reader has neither the symbols {', '.join(unknown)} nor a default symbol.")
