import copy
import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import fastavro
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from schemas.codec import AVRO_DIR, FILE_IDS, schema_text
from schemas.compatibility import check_compatibility, compare_versions, find_mismatches
from schemas.topics import COLLECTED
from tests.avro_values import records, values_of

Schema = Any
UNSHRUNK = settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate])
FIRST: Schema = json.loads(schema_text(COLLECTED, 1))


def fields_of(schema: Schema) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = schema["fields"]
    return fields


def event_fields(schema: Schema) -> list[dict[str, Any]]:
    return fields_of(fields_of(schema)[-1]["type"]["items"])


def named(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(field for field in fields if field["name"] == name)


def changed(change: Callable[[Schema], object]) -> Schema:
    schema = copy.deepcopy(FIRST)
    change(schema)
    return schema


def without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: without_logical_types(value) for name, value in node.items() if name != "logicalType"}
    return [without_logical_types(item) for item in node] if isinstance(node, list) else node


def reread(writer: Schema, reader: Schema, value: Any) -> Any:
    """The value after being written by one schema and read by the other."""
    writer, reader = without_logical_types(writer), without_logical_types(reader)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(writer), value)
    body.seek(0)
    return fastavro.schemaless_reader(body, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


def is_lost(writer: Schema, reader: Schema, value: Any) -> bool:
    try:
        read = reread(writer, reader, value)
    except Exception:  # whatever kind: the record cannot be read
        return True
    return not fastavro.validate(read, fastavro.parse_schema(without_logical_types(reader)), raise_errors=False)


def test_every_version_of_every_topic_reads_every_other() -> None:
    assert check_compatibility() == []


def test_every_avro_file_has_an_id_and_every_id_a_file() -> None:
    assert {path.name for path in AVRO_DIR.iterdir()} == {f"{topic}.v{version}.avsc" for topic, version in FILE_IDS}
    assert len(set(FILE_IDS.values())) == len(FILE_IDS)


def test_a_new_field_with_a_default_is_compatible_both_ways() -> None:
    second = changed(lambda s: event_fields(s).append({"name": "groupId", "type": "string", "default": ""}))
    assert compare_versions("t", {1: FIRST, 2: second}) == []


class BrokenVersion(NamedTuple):
    """A second version of a schema, and who loses records: the first that reads the second, or the other way."""

    second: Schema
    path: str
    first_loses: bool
    second_loses: bool

    def pairs(self, *, broken: bool) -> list[tuple[Schema, Schema]]:
        both = [((self.second, FIRST), self.first_loses), ((FIRST, self.second), self.second_loses)]
        return [pair for pair, loses in both if loses is broken]


BROKEN = {
    "a new field without a default": BrokenVersion(
        changed(lambda s: event_fields(s).append({"name": "groupId", "type": "string"})),
        "events[].groupId",
        first_loses=False,
        second_loses=True,
    ),
    "a field without a default is gone": BrokenVersion(
        changed(lambda s: event_fields(s).remove(named(event_fields(s), "eventId"))),
        "events[].eventId",
        first_loses=True,
        second_loses=False,
    ),
    "a type is another": BrokenVersion(
        changed(lambda s: named(event_fields(s), "eventLabel").update(type="long", default=0)),
        "events[].eventLabel",
        first_loses=True,
        second_loses=True,
    ),
    "a type is promoted": BrokenVersion(
        changed(lambda s: named(fields_of(s), "sequence").update(type="double")),
        "sequence",
        first_loses=True,
        second_loses=False,
    ),
    "an enum has a symbol less": BrokenVersion(
        changed(lambda s: named(event_fields(s), "type")["type"]["symbols"].remove("alias")),
        "events[].type",
        first_loses=False,
        second_loses=True,
    ),
    "an enum has a symbol more": BrokenVersion(
        changed(lambda s: named(event_fields(s), "type")["type"]["symbols"].append("screen")),
        "events[].type",
        first_loses=True,
        second_loses=False,
    ),
    "a field became optional": BrokenVersion(
        changed(lambda s: named(event_fields(s), "userId").update(type=["string", "null"])),
        "events[].userId",
        first_loses=True,
        second_loses=False,
    ),
    "an optional field became required": BrokenVersion(
        changed(lambda s: named(event_fields(s), "value").update(type="double", default=0)),
        "events[].value",
        first_loses=False,
        second_loses=True,
    ),
    "a map holds another type": BrokenVersion(
        changed(lambda s: named(event_fields(s), "context")["type"].update(values="long")),
        "events[].context{}",
        first_loses=True,
        second_loses=True,
    ),
    "an array holds another record": BrokenVersion(
        changed(lambda s: named(fields_of(s), "events")["type"]["items"].update(name="OtherEvent")),
        "events[]",
        first_loses=True,
        second_loses=True,
    ),
    "an array became a map": BrokenVersion(
        changed(lambda s: named(fields_of(s), "events").update(type={"type": "map", "values": "string"})),
        "events",
        first_loses=True,
        second_loses=True,
    ),
}
broken_versions = pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())


@broken_versions
def test_what_breaks_a_version_is_found_at_its_place(case: BrokenVersion) -> None:
    found = {(i.writer, i.reader, i.path) for i in compare_versions("t", {1: FIRST, 2: case.second})}
    expected = {(2, 1, case.path): case.first_loses, (1, 2, case.path): case.second_loses}
    assert found == {key for key, broken in expected.items() if broken}


@broken_versions
def test_what_breaks_a_version_really_loses_records(case: BrokenVersion) -> None:
    for writer, reader in case.pairs(broken=True):
        find(values_of(writer), partial(is_lost, writer, reader), settings=UNSHRUNK)  # raises NoSuchExample


@broken_versions
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_direction_that_is_not_broken_loses_nothing(data: st.DataObject, case: BrokenVersion) -> None:
    for writer, reader in case.pairs(broken=False):
        assert not is_lost(writer, reader, data.draw(values_of(writer)))


@settings(max_examples=200, deadline=None)
@given(records(), records(), st.data())
def test_schemas_that_are_called_compatible_read_each_others_records(
    writer: Schema, reader: Schema, data: st.DataObject
) -> None:
    value = data.draw(values_of(writer))
    if is_lost(writer, reader, value):
        assert find_mismatches(writer, reader)


@settings(deadline=None)
@given(records())
def test_a_schema_reads_itself(schema: Schema) -> None:
    assert find_mismatches(schema, schema) == []


def test_an_enum_with_a_default_symbol_takes_unknown_symbols() -> None:
    writer = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
    reader = {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}
    assert find_mismatches(writer, reader) == []
    assert reread(writer, reader, "B") == "A"


def test_a_schema_that_holds_itself_is_compared_to_its_end() -> None:
    def chain(label: str) -> Schema:
        fields = [{"name": "next", "type": ["null", "ns.Node"]}, {"name": "label", "type": label}]
        return {"type": "record", "name": "Node", "namespace": "ns", "fields": fields}

    assert find_mismatches(chain("string"), chain("string")) == []
    assert [mismatch.path for mismatch in find_mismatches(chain("string"), chain("long"))] == ["label"]
