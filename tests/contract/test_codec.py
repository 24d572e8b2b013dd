import io
import json
import runpy
import sys
import tracemalloc
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, cast, get_type_hints

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from headrace import registered
from schemas import codec as codec_module
from schemas.codec import (
    FILE_IDS,
    Codec,
    Read,
    UndecodableRecord,
    Write,
    parsed_schema,
    schema_text,
    versions,
    without_logical_types,
)
from schemas.context import CONTEXT_FIELDS
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.avro_values import values_of

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


@pytest.fixture(scope="module", params=["kernel", "fastavro"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """Both must do the same: the compiled kernel with fastavro behind it, and fastavro alone."""
    if request.param == "kernel":
        _kernel()
    return Codec(kernel=request.param == "kernel")


@pytest.fixture(scope="module")
def read() -> Read:
    """The kernel's reader of `events.collected`."""
    reader: Read = _kernel().compile_reader(without_logical_types(NEWEST[COLLECTED]))
    return reader


@pytest.fixture(scope="module")
def write() -> Write:
    """The kernel's writer of `events.collected`."""
    writer: Write = _kernel().compile_writer(without_logical_types(NEWEST[COLLECTED]))
    return writer


def _kernel() -> Any:
    return pytest.importorskip("schemas.avro_kernel", reason="the kernel is not compiled here")


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
def test_a_collected_record_comes_back_as_it_was(codec: Codec, record: CollectedRecord) -> None:
    assert codec.decode_collected(codec.encode_collected(record)) == record


@settings(deadline=None)
@given(LETTERS)
def test_a_dead_letter_comes_back_as_it_was(codec: Codec, letter: DeadLetter) -> None:
    assert codec.decode_dead_letter(codec.encode_dead_letter(letter)) == letter


def test_times_are_milliseconds_on_both_sides(codec: Codec) -> None:
    record = codec.decode_collected(codec.encode_collected({**RECORD, "receivedAt": 1_795_510_800_123}))
    assert record["receivedAt"] == 1_795_510_800_123
    assert type(record["receivedAt"]) is int


def test_a_record_begins_with_zero_and_its_schemas_id(codec: Codec) -> None:
    assert codec.encode_collected(RECORD)[:5] == b"\x00" + FILE_IDS[COLLECTED, 1].to_bytes(4, "big")
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
FASTAVRO = Codec(kernel=False)
WHOLE = FASTAVRO.encode_collected(RECORD)
HEADER = WHOLE[:5]
COUNT_OF_EVENTS = len(FASTAVRO.encode_collected({**RECORD, "events": []})) - 1


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
def test_what_is_no_record_is_undecodable_with_a_sentence(codec: Codec, data: bytes, message: str) -> None:
    with pytest.raises(UndecodableRecord, match=message):
        codec.decode_collected(data)


def test_every_truncation_is_undecodable(codec: Codec) -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(UndecodableRecord):
            codec.decode_collected(WHOLE[:length])


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
def test_a_length_or_count_beyond_the_data_is_undecodable_and_costs_no_memory(codec: Codec, number: int) -> None:
    before_events = codec.encode_collected({**RECORD, "events": []})[:-1]
    bodies = [HEADER + zigzag(number) + b"abc", before_events + zigzag(number) + zigzag(3) + b"abc"]
    tracemalloc.start()
    try:
        for body in bodies:
            with pytest.raises(UndecodableRecord):
                codec.decode_collected(body)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_number_that_never_ends_is_undecodable(codec: Codec) -> None:
    with pytest.raises(UndecodableRecord):
        codec.decode_collected(HEADER + b"\x02a\x02b" + b"\xff" * 100_000)


def decode_or_refuse(codec: Codec, data: bytes) -> None:
    """Bytes are a record that can be encoded again, or undecodable; anything else that is raised fails the test."""
    try:
        record = codec.decode_collected(data)
    except UndecodableRecord:
        return
    codec.encode_collected(record)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x00" * 200)
def test_garbage_is_undecodable_and_nothing_else(codec: Codec, garbage: bytes) -> None:
    decode_or_refuse(codec, garbage)
    decode_or_refuse(codec, HEADER + garbage)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(5, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_damaged_record_is_undecodable_and_nothing_else(codec: Codec, damages: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for place, byte in damages:
        damaged[place] = byte
    decode_or_refuse(codec, bytes(damaged))


REFERENCE = parsed_schema(COLLECTED, 1)


def reference_bytes(record: CollectedRecord) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, REFERENCE, record)
    return HEADER + out.getvalue()


@settings(deadline=None)
@given(RECORDS)
def test_it_writes_the_bytes_that_fastavro_writes(codec: Codec, record: CollectedRecord) -> None:
    assert codec.encode_collected(record) == reference_bytes(record)


#: Around each number of bytes that a length or a number can take.
EDGES = sorted({side * (1 << 7 * size - 1) + step for size in range(1, 10) for side in (-1, 1) for step in (-1, 0, 1)})
LENGTHS = [0, 1, 62, 63, 64, 65, 127, 128, 129, 255, 256, 8191, 8192, 8193]
TEXTS = st.builds(
    lambda text, length: (text * length)[:length], st.sampled_from(["a", "é", "aé", "☃"]), st.sampled_from(LENGTHS)
)
DOUBLES = st.none() | st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
NUMBERS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1) | st.integers(2**40, 2**41)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS, st.sampled_from([0, 1, 2, 63, 64, 65]))
def test_it_reads_and_writes_every_length_and_number_as_fastavro_does(
    codec: Codec, first: str, second: str, third: str, at: int, sent_at: int, count: int
) -> None:
    one: Any = {**RECORD["events"][0], "eventLabel": second, "timestamp": at, "context": {first: third, third: second}}
    shared = {**RECORD["context"], "app": second, "url": first, "library": third}
    record: Any = {**RECORD, "companyId": first, "sentAt": sent_at, "context": shared, "events": [one] * count}
    data = reference_bytes(record)
    assert codec.encode_collected(record) == data
    assert codec.decode_collected(data) == record


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, NUMBERS, DOUBLES, st.integers(0, 20))
def test_the_kernel_leaves_what_is_usual_to_nobody(
    read: Read, write: Write, first: str, second: str, at: int, value: float | None, count: int
) -> None:
    one: Any = {**RECORD["events"][0], "userId": first, "timestamp": at, "value": value, "context": {first: second}}
    record: Any = {**RECORD, "companyId": second, "receivedAt": at, "sentAt": at, "events": [one] * count}
    data = reference_bytes(record)
    assert write(record) == data[5:]
    assert read(data, 5) == (record, len(data))


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9])
def test_a_number_longer_than_it_has_to_be_is_read_as_fastavro_reads_it(codec: Codec, size: int) -> None:
    for place in (5, 14, COUNT_OF_EVENTS, len(WHOLE) - 2, len(WHOLE) - 1):  # length, time, counts, the end of a block
        number = bytes([WHOLE[place] | 0x80]) + b"\x80" * (size - 1) + b"\x00"
        data = WHOLE[:place] + number + WHOLE[place + 1 :]
        assert outcome_of(codec.decode_collected, data) == decode_as_fastavro(data) == RECORD
        for more in (b"\x00", b"\x00\x00"):
            assert outcome_of(codec.decode_collected, data + more) is None


NO_STRINGS = [None, 0, 1.5, True, [], ["a"], (), ("a",), {}, {"a": "b"}, b"", b"a", bytearray(b"a")]


@pytest.mark.parametrize("value", NO_STRINGS, ids=repr)
@pytest.mark.parametrize(
    "place", ["companyId", "sentAt", "sequence", "userId", "timestamp", "type", "value", "context", "app"]
)
def test_what_is_not_of_its_type_is_written_or_refused_as_by_fastavro(codec: Codec, place: str, value: Any) -> None:
    one: Any = {**RECORD["events"][0]}
    record: Any = {**RECORD, "context": {**RECORD["context"]}, "events": [one]}
    holder = one if place in one else record if place in record else record["context"]
    holder[place] = value
    assert outcome_of(codec.encode_collected, record) == outcome_of(reference_bytes, record)


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
def test_the_kernel_reads_nothing_that_fastavro_reads_otherwise(
    read: Read, record: CollectedRecord, damages: list[tuple[int, int]]
) -> None:
    damaged = bytearray(reference_bytes(record)[5:])
    for place, byte in damages:
        damaged[place % len(damaged)] = byte
    data = bytes(damaged)
    try:
        value, end = read(data, 0)
    except ValueError:  # then fastavro is asked
        return
    if end == len(data):
        assert repr(value) == repr(fastavro.schemaless_reader(io.BytesIO(data), REFERENCE, None))


def test_the_kernel_reads_nothing_beyond_the_data(read: Read) -> None:
    for length in range(5, len(WHOLE)):
        with pytest.raises(ValueError, match=r"The data ends in|beyond the data"):
            read(WHOLE[:length], 5)
    for at in (-1, len(WHOLE) + 1, 2**62):
        with pytest.raises(ValueError, match="outside of the data"):
            read(WHOLE, at)


@pytest.mark.parametrize("place", [5, COUNT_OF_EVENTS, len(WHOLE) - 2], ids=["string", "array", "map"])
@pytest.mark.parametrize("number", [*HUGE, len(WHOLE)])
def test_the_kernel_refuses_a_length_or_count_beyond_the_data_before_anything_is_made(
    read: Read, place: int, number: int
) -> None:
    with pytest.raises(ValueError, match="A length is negative or beyond the data"):
        read(WHOLE[:place] + zigzag(number) + WHOLE[place + 1 :], 5)


@pytest.mark.parametrize(
    "number", [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x00", b"\x80" * 10 + b"\x00", b"\xff" * 11]
)
def test_the_kernel_refuses_a_number_of_more_than_64_bits(read: Read, number: bytes) -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        read(number + WHOLE, 0)


def test_the_kernel_shares_the_names_of_fields_and_symbols(read: Read) -> None:
    first, second = read(WHOLE, 5)[0], read(WHOLE, 5)[0]
    assert list(map(id, first)) == list(map(id, second)) == list(map(id, RECORD))
    assert first["events"][0]["type"] is second["events"][0]["type"]
    assert first["context"] is not second["context"]


class Meddler:
    """A name that is found where a field is looked for, and changes the record then."""

    def __init__(self, record: dict[Any, Any]) -> None:
        self._record = record

    def __hash__(self) -> int:
        return hash("eventId")

    def __eq__(self, other: object) -> bool:
        self._record.clear()
        return other == "eventId"


def test_the_kernel_runs_no_code_of_a_name(write: Write) -> None:
    one: dict[Any, Any] = {}
    one |= {name: value for name, value in RECORD["events"][0].items() if name != "eventId"}
    one[Meddler(one)] = "e-1"
    with pytest.raises(ValueError, match="A name is no string"):
        write({**RECORD, "events": [one]})
    assert len(one) == len(RECORD["events"][0])


def test_what_another_writer_may_write_in_another_form_is_read_too(codec: Codec) -> None:
    one = RECORD["events"][0]
    whole = codec.encode_collected({**RECORD, "events": [one, one]})
    start = len(codec.encode_collected({**RECORD, "events": []})) - 1
    event = whole[start + 1 : -1][: (len(whole) - start - 2) // 2]
    two_blocks = b"\x02" + event + b"\x02" + event + b"\x00"
    sized_block = zigzag(-2) + zigzag(2 * len(event)) + event * 2 + b"\x00"
    for events in (two_blocks, sized_block):
        assert codec.decode_collected(whole[:start] + events) == codec.decode_collected(whole)


def test_a_member_that_is_left_out_has_its_default_and_a_number_too_large_is_refused(codec: Codec) -> None:
    without = {name: value for name, value in RECORD.items() if name != "journal"}
    assert codec.decode_collected(codec.encode_collected(cast(CollectedRecord, without))) == RECORD
    with pytest.raises(Exception, match=r"."):
        codec.encode_collected({**RECORD, "receivedAt": 2**63})


NESTED = {
    "type": "record",
    "name": "Nested",
    "fields": [
        {"name": "lists", "type": {"type": "array", "items": {"type": "array", "items": "string"}}},
        {"name": "maps", "type": {"type": "map", "values": {"type": "map", "values": ["null", "double"]}}},
        {"name": "some", "type": ["null", {"type": "array", "items": ["null", "long"]}]},
        {"name": "ints", "type": {"type": "array", "items": "int"}},
        {"name": "flags", "type": {"type": "map", "values": "boolean"}},
        {"name": "raw", "type": {"type": "array", "items": ["null", "bytes"]}},
        {
            "name": "records",
            "type": {
                "type": "map",
                "values": {
                    "type": "record",
                    "name": "Inner",
                    "fields": [
                        {
                            "name": "number",
                            "type": {"type": "enum", "name": "Many", "symbols": [f"n{i}" for i in range(130)]},
                        },
                        {"name": "doubles", "type": {"type": "array", "items": "double"}},
                    ],
                },
            },
        },
    ],
}
PARSED = fastavro.parse_schema(cast(dict[str, Any], without_logical_types(NESTED)))


@settings(max_examples=300, deadline=None)
@given(values_of(NESTED))
def test_the_kernel_reads_and_writes_every_type_in_every_other_as_fastavro_does(value: Any) -> None:
    kernel, out = _kernel(), io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, value)
    data = out.getvalue()
    assert kernel.compile_writer(NESTED)(value) == data
    assert kernel.compile_reader(NESTED)(data, 0) == (value, len(data))


@pytest.mark.parametrize(
    ("schema", "data", "value"),
    [
        ("int", b"\x80\x80\x80\x80\x10", 2**31),
        ("int", b"\x81\x80\x80\x80\x10", -(2**31) - 1),
        ("int", b"\x00", True),
        ("boolean", b"\x02", 1),
        ("boolean", b"", None),
        ("bytes", b"\x04a", bytearray(b"a")),
        ("bytes", b"\x01", "a"),
    ],
)
def test_the_kernel_leaves_a_letters_odd_members_to_fastavro(schema: str, data: bytes, value: object) -> None:
    kernel = _kernel()
    with pytest.raises(ValueError, match=r"."):
        kernel.compile_writer(schema)(value)
    if schema != "int" or value is not True:
        with pytest.raises(ValueError, match=r"."):
            kernel.compile_reader(schema)(data, 0)


@pytest.mark.parametrize(
    "schema",
    [
        "float",
        ["string", "null"],
        ["null", {"type": "map", "values": "string"}],
        {"type": "fixed", "name": "F", "size": 2},
        {"type": {"type": "long"}},
        {"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}},
    ],
    ids=str,
)
def test_the_kernel_has_no_code_for_types_that_no_hot_topic_has(schema: Any) -> None:
    kernel = _kernel()
    for compile_code in (kernel.compile_reader, kernel.compile_writer):
        with pytest.raises(kernel.NoCode):
            compile_code(schema)


def test_without_the_kernel_the_codec_is_there_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schemas.avro_kernel", None)  # as if it had not been compiled
    names = runpy.run_path(codec_module.__file__)
    assert names["HAS_KERNEL"] is False
    codec = names["Codec"]()
    assert codec.encode_collected(RECORD) == WHOLE
    assert codec.decode_collected(WHOLE) == RECORD


def test_a_start_without_the_kernel_says_so_once_and_one_with_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_kernel, expected in ((True, []), (False, ["avro_kernel_not_compiled"])):
        monkeypatch.setattr(registered, "HAS_KERNEL", has_kernel)
        with capture_logs() as logs:
            registered.warn_without_kernel()
        assert [line["event"] for line in logs] == expected
