import io
import json
import tracemalloc
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, cast, get_type_hints

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.avro_code import NoCode, compile_reader, compile_writer
from schemas.codec import (
    FILE_IDS,
    Codec,
    UndecodableRecord,
    parsed_schema,
    schema_text,
    versions,
    without_logical_types,
)
from schemas.context import CONTEXT_FIELDS
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.avro_values import values_of

CODEC = Codec()
NEWEST: Mapping[str, Any] = {
    topic: json.loads(schema_text(topic, versions(topic)[-1])) for topic in (COLLECTED, DEAD_LETTER)
}
RECORDS = cast("st.SearchStrategy[CollectedRecord]", values_of(NEWEST[COLLECTED]))
LETTERS = cast("st.SearchStrategy[DeadLetter]", values_of(NEWEST[DEAD_LETTER]))
PYTHON_TYPES = {
    "null": type(None),
    "string": str,
    "int": int,
    "long": int,
    "double": float,
    "boolean": bool,
    "bytes": bytes,
}


def type_of(avro: Any) -> Any:
    """The annotation that a TypedDict has to have for an Avro type; records by their name."""
    if isinstance(avro, list):
        return frozenset(type_of(branch) for branch in avro)
    kind = avro["type"] if isinstance(avro, dict) else avro
    match kind:
        case "record":
            return avro["name"]
        case "enum":
            return Literal[tuple(avro["symbols"])]
        case "array":
            return (list, type_of(avro["items"]))
        case "map":
            return (dict, str, type_of(avro["values"]))
        case _:
            return PYTHON_TYPES[kind]


def form_of(annotation: Any) -> Any:
    """A TypedDict's annotation in the form that `type_of` gives."""
    if isinstance(annotation, UnionType):
        return frozenset(form_of(branch) for branch in annotation.__args__)
    if typing.is_typeddict(annotation):
        return annotation.__name__
    if typing.get_origin(annotation) in (list, dict):
        return (typing.get_origin(annotation), *map(form_of, typing.get_args(annotation)))
    return annotation


def fields_of(schema: Any) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


@pytest.mark.parametrize(
    ("typed_dict", "schema"),
    [
        (CollectedRecord, NEWEST[COLLECTED]),
        (CollectedEvent, fields_of(NEWEST[COLLECTED])["events"]["items"]),
        (DeadLetter, NEWEST[DEAD_LETTER]),
    ],
    ids=["CollectedRecord", "CollectedEvent", "DeadLetter"],
)
def test_a_typed_dict_has_the_fields_of_its_avro_file_in_order(typed_dict: type, schema: Any) -> None:
    expected = {name: type_of(avro) for name, avro in fields_of(schema).items()}
    if "Context" in expected.values():  # a record in Avro, where it costs less; a dict in Python
        expected["context"] = (dict, str, str)
    actual = {name: form_of(annotation) for name, annotation in get_type_hints(typed_dict).items()}
    assert list(actual.items()) == list(expected.items())


def test_the_avro_context_has_the_context_fields_in_order() -> None:
    context = fields_of(NEWEST[COLLECTED])["context"]
    assert fields_of(context) == dict.fromkeys(CONTEXT_FIELDS, "string")
    assert list(fields_of(context)) == list(CONTEXT_FIELDS)
    assert {field["default"] for field in context["fields"]} == {""}


@settings(deadline=None)
@given(RECORDS)
def test_a_collected_record_comes_back_as_it_was(record: CollectedRecord) -> None:
    assert CODEC.decode_collected(CODEC.encode_collected(record)) == record


@settings(deadline=None)
@given(LETTERS)
def test_a_dead_letter_comes_back_as_it_was(letter: DeadLetter) -> None:
    assert CODEC.decode_dead_letter(CODEC.encode_dead_letter(letter)) == letter


def test_times_are_milliseconds_on_both_sides() -> None:
    record = CODEC.decode_collected(CODEC.encode_collected({**RECORD, "receivedAt": 1_795_510_800_123}))
    assert record["receivedAt"] == 1_795_510_800_123
    assert type(record["receivedAt"]) is int


def test_a_record_begins_with_zero_and_its_schemas_id() -> None:
    assert CODEC.encode_collected(RECORD)[:5] == b"\x00" + FILE_IDS[COLLECTED, 1].to_bytes(4, "big")
    registered = Codec({(COLLECTED, 1): 70_000, (DEAD_LETTER, 1): 3})
    data = registered.encode_collected(RECORD)
    assert data[:5] == b"\x00\x00\x01\x11\x70"
    assert registered.decode_collected(data) == RECORD


RECORD: CollectedRecord = {
    "companyId": "acme",
    "anonymousId": "a-1",
    "receivedAt": 1,
    "sentAt": None,
    "journal": "",
    "sequence": 0,
    "context": dict.fromkeys(CONTEXT_FIELDS, ""),
    "events": [
        {
            "eventId": "e-1",
            "timestamp": 1,
            "type": "track",
            "userId": "",
            "previousId": "",
            "eventCategory": "feature",
            "eventAction": "use",
            "eventLabel": "",
            "value": None,
            "properties": "{}",
            "context": {},
        }
    ],
}
WHOLE = CODEC.encode_collected(RECORD)
HEADER = WHOLE[:5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with the Confluent header"),
        (b"\x00\x00\x00", "does not begin with the Confluent header"),
        (b'{"companyId": "acme"}', "does not begin with the Confluent header"),
        (b"\x00\x00\x00\x00\x63" + WHOLE[5:], "names schema id 99"),
        (b"\x00" + FILE_IDS[DEAD_LETTER, 1].to_bytes(4, "big") + WHOLE[5:], "which is not one of events.collected"),
        (WHOLE + b"\x00", "has 1 bytes after its end"),
        (HEADER + b"\x02\xff", "does not fit events.collected version 1"),
    ],
)
def test_what_is_no_record_is_undecodable_with_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableRecord, match=message):
        CODEC.decode_collected(data)


def test_every_truncation_is_undecodable() -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(UndecodableRecord):
            CODEC.decode_collected(WHOLE[:length])


def zigzag(number: int) -> bytes:
    """An Avro long, of any 64 bits."""
    bits = (number << 1 ^ number >> 63) & (1 << 64) - 1
    out = bytearray()
    while bits > 0x7F:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*out, bits])


HUGE = [2**31, 2**40, 2**62, 2**63 - 1, -1, -2, -(2**31), -(2**63)]


@pytest.mark.parametrize("number", HUGE)
def test_a_length_or_count_beyond_the_data_is_undecodable_and_costs_no_memory(number: int) -> None:
    before_events = CODEC.encode_collected({**RECORD, "events": []})[:-1]
    bodies = [HEADER + zigzag(number) + b"abc", before_events + zigzag(number) + zigzag(3) + b"abc"]
    tracemalloc.start()
    try:
        for body in bodies:
            with pytest.raises(UndecodableRecord):
                CODEC.decode_collected(body)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_number_that_never_ends_is_undecodable() -> None:
    with pytest.raises(UndecodableRecord):
        CODEC.decode_collected(HEADER + b"\x02a\x02b" + b"\xff" * 100_000)


def decode_or_refuse(data: bytes) -> None:
    """Bytes are a record that can be encoded again, or undecodable; anything else that is raised fails the test."""
    try:
        record = CODEC.decode_collected(data)
    except UndecodableRecord:
        return
    CODEC.encode_collected(record)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x00" * 200)
def test_garbage_is_undecodable_and_nothing_else(garbage: bytes) -> None:
    decode_or_refuse(garbage)
    decode_or_refuse(HEADER + garbage)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(5, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_damaged_record_is_undecodable_and_nothing_else(damages: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for place, byte in damages:
        damaged[place] = byte
    decode_or_refuse(bytes(damaged))


REFERENCE = parsed_schema(COLLECTED, 1)
READ = compile_reader(without_logical_types(NEWEST[COLLECTED]))
WRITE = compile_writer(without_logical_types(NEWEST[COLLECTED]))


def reference_bytes(record: CollectedRecord) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, REFERENCE, record)
    return HEADER + out.getvalue()


@settings(deadline=None)
@given(RECORDS)
def test_straight_code_writes_the_bytes_that_fastavro_writes(record: CollectedRecord) -> None:
    assert CODEC.encode_collected(record) == reference_bytes(record)


#: Around each number of bytes that a length or a number can take.
EDGES = sorted({side * (1 << 7 * size - 1) + step for size in range(1, 10) for side in (-1, 1) for step in (-1, 0, 1)})
LENGTHS = [0, 1, 62, 63, 64, 65, 127, 128, 129, 255, 256, 8191, 8192, 8193]
TEXTS = st.builds(
    lambda text, length: (text * length)[:length], st.sampled_from(["a", "é", "aé", "☃"]), st.sampled_from(LENGTHS)
)
NUMBERS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1) | st.integers(2**40, 2**41)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS, st.sampled_from([0, 1, 2, 63, 64, 65]))
def test_straight_code_reads_and_writes_every_length_and_number_as_fastavro_does(
    first: str, second: str, third: str, at: int, sent_at: int, count: int
) -> None:
    one: Any = {**RECORD["events"][0], "eventLabel": second, "timestamp": at, "context": {first: third, third: second}}
    shared = {**RECORD["context"], "app": second, "url": first, "library": third}
    record: Any = {**RECORD, "companyId": first, "sentAt": sent_at, "context": shared, "events": [one] * count}
    data = reference_bytes(record)
    for _ in range(2):  # the second time by what was remembered
        assert CODEC.encode_collected(record) == data
        assert CODEC.decode_collected(data) == record


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 2**42), st.integers(0, 20))
def test_what_is_usual_is_left_to_nobody(first: str, second: str, at: int, count: int) -> None:
    one: Any = {**RECORD["events"][0], "userId": first, "timestamp": at, "context": {first: second}}
    record: Any = {**RECORD, "companyId": second, "receivedAt": at, "sentAt": at, "events": [one] * count}
    if max(len(first.encode()), len(second.encode())) < 1 << 13:
        assert WRITE(record) == reference_bytes(record)[5:]
    assert READ(reference_bytes(record), 5)[0] == record


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9])
def test_a_number_longer_than_it_has_to_be_is_read_as_fastavro_reads_it(size: int) -> None:
    before_events = len(CODEC.encode_collected({**RECORD, "events": []})) - 1
    for place in (5, 14, before_events, len(WHOLE) - 2, len(WHOLE) - 1):  # a length, a time, counts, the end of a block
        number = bytes([WHOLE[place] | 0x80]) + b"\x80" * (size - 1) + b"\x00"
        data = WHOLE[:place] + number + WHOLE[place + 1 :]
        assert outcome_of(CODEC.decode_collected, data) == decode_as_fastavro(data) == RECORD
        for more in (b"\x00", b"\x00\x00"):
            assert outcome_of(CODEC.decode_collected, data + more) is None


NO_STRINGS = [None, 0, 1.5, True, [], ["a"], (), ("a",), {}, {"a": "b"}, b"", b"a", bytearray(b"a")]


@pytest.mark.parametrize("value", NO_STRINGS, ids=repr)
@pytest.mark.parametrize(
    "place", ["companyId", "sentAt", "sequence", "userId", "timestamp", "type", "value", "context", "app"]
)
def test_what_is_not_of_its_type_is_written_or_refused_as_by_fastavro(place: str, value: Any) -> None:
    one: Any = {**RECORD["events"][0]}
    record: Any = {**RECORD, "context": {**RECORD["context"]}, "events": [one]}
    holder = one if place in one else record if place in record else record["context"]
    holder[place] = value
    assert outcome_of(CODEC.encode_collected, record) == outcome_of(reference_bytes, record)


def outcome_of(function: Any, value: Any) -> Any:
    """What the function answers, None where it raises."""
    try:
        return function(value)
    except Exception:
        return None


def decode_as_fastavro(data: bytes) -> Any:
    body = io.BytesIO(data[5:])
    record = fastavro.schemaless_reader(body, REFERENCE, None)
    return record if body.tell() == len(data) - 5 else None


@settings(max_examples=300, deadline=None)
@given(RECORDS, st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=3))
def test_straight_code_reads_nothing_that_fastavro_reads_otherwise(
    record: CollectedRecord, damages: list[tuple[int, int]]
) -> None:
    damaged = bytearray(reference_bytes(record)[5:])
    for place, byte in damages:
        damaged[place % len(damaged)] = byte
    data = bytes(damaged)
    try:
        read, end = READ(data, 0)
    except Exception:  # then fastavro is asked
        return
    if end == len(data):
        assert repr(read) == repr(fastavro.schemaless_reader(io.BytesIO(data), REFERENCE, None))


def test_what_another_writer_may_write_in_another_form_is_read_too() -> None:
    one = RECORD["events"][0]
    whole = CODEC.encode_collected({**RECORD, "events": [one, one]})
    start = len(CODEC.encode_collected({**RECORD, "events": []})) - 1
    event = whole[start + 1 : -1][: (len(whole) - start - 2) // 2]
    two_blocks = b"\x02" + event + b"\x02" + event + b"\x00"
    sized_block = zigzag(-2) + zigzag(2 * len(event)) + event * 2 + b"\x00"
    for events in (two_blocks, sized_block):
        assert CODEC.decode_collected(whole[:start] + events) == CODEC.decode_collected(whole)


def test_a_member_that_is_left_out_has_its_default_and_a_number_too_large_is_refused() -> None:
    without = {name: value for name, value in RECORD.items() if name != "journal"}
    assert CODEC.decode_collected(CODEC.encode_collected(cast(CollectedRecord, without))) == RECORD
    with pytest.raises(Exception, match=r"."):
        CODEC.encode_collected({**RECORD, "receivedAt": 2**63})


@pytest.mark.parametrize("schema", ["float", ["string", "null"], {"type": "fixed", "name": "F", "size": 2}])
def test_there_is_no_code_for_types_that_no_hot_topic_has(schema: Any) -> None:
    for compile_code in (compile_reader, compile_writer):
        with pytest.raises(NoCode):
            compile_code(schema)
