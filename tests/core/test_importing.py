import gzip
import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.import_progress import Progress, ProgressError, load_progress, mark_of, save_progress
from headrace.importing import MAX_LINE, ImportBatch, Line, Position, pack, read_ndjson, stable_id
from headrace.importing_csv import HeaderError, build_event, read_csv, read_header
from headrace.sending import Outcome, Refusal

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "headrace:send")
START = Position()


def read(text: bytes, start: Position = START) -> list[Line]:
    file = io.BytesIO(text)
    file.seek(start.offset)
    return list(read_ndjson(file, start))


def test_a_line_with_an_id_goes_out_as_it_is() -> None:
    lines = [b'{"eventId": "a",  "x": 1.50}', b'{"messageId":"b"}', b'{ "eventId" : 7 }']
    assert [line.event for line in read(b"\n".join(lines))] == lines


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"page"}',
        b"{}",
        b'{"eventId":null,"messageId":"m"}',
        b'{"eventId":""}',
        b'{"messageId":""}',
        b'{"context":{"eventId":"inner"} }',
    ],
)
def test_an_event_without_an_id_gets_the_uuid5_of_its_line(text: bytes) -> None:
    [line] = read(text + b"\r\n")
    event = json.loads(line.event)
    assert event == {**json.loads(text), "eventId": str(uuid.uuid5(NAMESPACE, f"1:{text.decode()}"))}
    assert not line.fault


def test_the_same_text_in_two_lines_is_two_events_and_the_same_ones_whenever_it_is_read() -> None:
    text = b'{"type":"page"}\n{"type":"page"}\n'
    once, again = read(text), read(text.replace(b"\n", b"\r\n"))
    assert [line.event for line in once] == [line.event for line in again]
    assert once[0].event != once[1].event


@given(st.integers(1, 1 << 40), st.text())
def test_the_stable_id_is_a_uuid5(number: int, text: str) -> None:
    encoded = text.encode(errors="replace")
    assert stable_id(number, encoded) == str(uuid.uuid5(NAMESPACE, f"{number}:{encoded.decode()}"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"hello", "The line is not JSON"),
        (b'{"a":nonsense}', "The line is not JSON"),
        (b'{"a":1', "The line is not JSON"),
        (b'{"a":1}{"b":2}', "The line is not JSON"),
        (b'{"a":"\xff"}', "The line is not JSON"),
        (b'[{"type":"page"}]', "The line is not a JSON object."),
        (b"7", "The line is not a JSON object."),
        (b"[" * 100_000, "The line is not JSON"),
        (b" " * (MAX_LINE + 10) + b"{}", f"The line is over {MAX_LINE} bytes."),
    ],
)
def test_a_line_that_is_no_event_is_told_with_its_number_and_the_next_one_is_read(text: bytes, fault: str) -> None:
    _, bad, good = read(b'{"eventId":"a"}\n' + text + b'\n{"eventId":"b"}')
    assert bad.fault.startswith(fault)
    assert (bad.number, good.number, good.event, good.fault) == (2, 3, b'{"eventId":"b"}', "")


def test_an_escape_that_no_text_can_hold_is_replaced_as_the_collector_does() -> None:
    [line] = read(b'{"label":"\\ud83d"}')
    assert json.loads(line.event)["label"] == "�"
    assert json.loads(line.event)["eventId"]


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    lines = read(b'\xef\xbb\xbf{"eventId":"a"}\n\n  \r\n{"eventId":"b"}')
    assert [(line.number, line.event) for line in lines] == [(1, b'{"eventId":"a"}'), (4, b'{"eventId":"b"}')]


@given(st.lists(st.sampled_from([b'{"a":1}\n', b"\n", b"no\n", b'{"eventId":"x"}\r\n', b" " * MAX_LINE + b"  \n"])))
def test_reading_on_from_the_end_of_any_line_gives_the_lines_after_it(parts: list[bytes]) -> None:
    text = b"".join(parts)
    lines = read(text)
    for at, line in enumerate(lines):
        assert read(text, Position(line.end, line.last)) == lines[at + 1 :]


def test_batches_hold_all_lines_in_order_within_both_limits() -> None:
    lines = read(b"".join(b'{"eventId":"%d"}\n' % number if number % 5 else b"bad\n" for number in range(103)))
    batches = list(pack(lines, events=10))
    assert [line for batch in batches for line in batch.lines] == lines
    assert [len(batch.lines) for batch in batches] == [10] * 10 + [3]
    assert [event for batch in batches for event in batch.events] == [line.event for line in lines if not line.fault]
    assert all(sum(map(len, batch.events)) <= 100 for batch in pack(lines, events=10, size=100))
    assert [len(batch.lines) for batch in pack(lines[1:3], events=10, size=1)] == [1, 1]


def csv_lines(text: str, start: Position | None = None) -> list[Line]:
    file = io.BytesIO(text.encode())
    names, first = read_header(file)
    if start:
        file.seek(start.offset)
    return list(read_csv(file, names, start or first))


def test_csv_columns_become_fields_objects_and_numbers_where_the_schema_has_numbers() -> None:
    [line] = csv_lines(
        "\ufeffeventId,type,anonymousId,eventCategory,eventAction,value,properties.term,properties.results,"
        "properties.page,context.app,context.page.url\n"
        'e-1,track,a,search,search,2.5,"brake, ""fluid""\nfront",12,3,portal,https://x.example/\n'
    )
    assert json.loads(line.event) == {
        "eventId": "e-1",
        "type": "track",
        "anonymousId": "a",
        "eventCategory": "search",
        "eventAction": "search",
        "value": 2.5,
        "properties": {"term": 'brake, "fluid"\nfront', "results": 12, "page": "3"},
        "context": {"app": "portal", "page": {"url": "https://x.example/"}},
    }
    assert (line.number, line.last) == (2, 3)


@pytest.mark.parametrize(
    ("cells", "event"),
    [
        ({"userId": "7", "type": "page", "event": ""}, {"userId": "7", "type": "page"}),
        ({"timestamp": "1795000000000"}, {"timestamp": 1795000000000}),
        ({"timestamp": "20261124"}, {"timestamp": "20261124"}),
        ({"timestamp": "2026-11-24T10:00:00Z"}, {"timestamp": "2026-11-24T10:00:00Z"}),
        ({"value": "1,5"}, {"value": "1,5"}),
        ({"value": "1_000"}, {"value": "1_000"}),
        ({"value": "NaN"}, {"value": "NaN"}),
        ({"value": "-3e2"}, {"value": -300.0}),
        (
            {"type": "track", "event": "Search Result Clicked", "properties.rank": "2.0", "properties.term": "7"},
            {"type": "track", "event": "Search Result Clicked", "properties": {"rank": 2, "term": "7"}},
        ),
        (
            {"eventCategory": "content", "eventAction": "feedback", "properties.helpful": "TRUE"},
            {"eventCategory": "content", "eventAction": "feedback", "properties": {"helpful": True}},
        ),
        (
            {"eventCategory": "content", "eventAction": "feedback", "properties.helpful": "perhaps"},
            {"eventCategory": "content", "eventAction": "feedback", "properties": {"helpful": "perhaps"}},
        ),
    ],
)
def test_a_cell_is_changed_only_where_the_schema_has_no_text_and_only_if_it_can_be(
    cells: dict[str, str], event: dict[str, Any]
) -> None:
    assert build_event(cells) == event


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("", "The file is empty"),
        ("eventId,wrong", "The column 'wrong' is no field"),
        ("eventId,properties", "The column 'properties' is no field"),
        ("eventId,eventId", "The column 'eventId' is there twice"),
        ("properties.a,properties.a.b", "The column 'properties.a' is there twice"),
        ("type.x", "The column 'type.x' is no field"),
    ],
)
def test_a_header_that_names_no_event_is_refused_before_anything_is_sent(header: str, sentence: str) -> None:
    with pytest.raises(HeaderError, match=f"^{sentence}"):
        read_header(io.BytesIO(header.encode()))


def test_a_csv_record_that_does_not_fit_the_header_is_told_and_the_next_one_is_read() -> None:
    short, long, good = csv_lines("type,userId\npage\npage,u,more\npage,u\n")
    assert short.fault == "The record has 1 cells, the header 2."
    assert long.fault == "The record has 3 cells, the header 2."
    assert (good.fault, good.number) == ("", 4)
    names, first = read_header(io.BytesIO(b"type,userId\n"))
    [bad] = read_csv(io.BytesIO(b"page,\xff\n"), names, first)
    assert bad.fault == "The record is not UTF-8."


def test_csv_can_be_read_on_after_any_record() -> None:
    text = 'type,userId,properties.note\npage,u,"two\nlines"\n\npage,v,\npage,w,"a ""b"""\n'
    lines = csv_lines(text)
    assert [line.number for line in lines] == [2, 5, 6]
    for at, line in enumerate(lines):
        assert csv_lines(text, Position(line.end, line.last)) == lines[at + 1 :]


def test_a_record_without_an_id_gets_a_stable_one() -> None:
    text = "type,userId\npage,u\npage,u\n"
    ids = [json.loads(line.event)["eventId"] for line in csv_lines(text)]
    assert ids == [json.loads(line.event)["eventId"] for line in csv_lines(text)]
    assert len(set(ids)) == 2


def batch_of(text: bytes) -> ImportBatch:
    [batch] = pack(read(text), events=100)
    return batch


def test_progress_counts_what_was_answered_and_tells_what_was_not_taken() -> None:
    batch = batch_of(b'{"eventId":"a"}\nbad\n{"eventId":"b"}\n{"eventId":"c"}\n')
    outcome = Outcome(2, (Refusal(1, "missing_field", "type", "type is missing."),))
    progress, rejects = Progress(rejected={"missing_field": 3}).after(batch, outcome)
    assert progress == Progress(Position(52, 4), 2, {"missing_field": 4, "unreadable_line": 1}, len(rejects))
    assert progress.rejections == 5
    bad, refused = map(json.loads, rejects.splitlines())
    assert (bad["line"], bad["reason"], bad["event"]) == (2, "unreadable_line", "bad")
    assert refused == {
        "line": 3,
        "reason": "missing_field",
        "field": "type",
        "message": "type is missing.",
        "event": {"eventId": "b"},
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b'{"eventId":"a"}\n')
    return path


def test_progress_is_read_as_it_was_saved_also_when_the_file_has_grown(source: Path, tmp_path: Path) -> None:
    noted = tmp_path / "progress"
    assert load_progress(noted, source) == Progress()
    progress = Progress(Position(16, 1), 1, {"missing_id": 2}, 90)
    save_progress(noted, mark_of(source), progress)
    with source.open("ab") as file:
        file.write(b'{"eventId":"b"}\n')
    assert load_progress(noted, source) == progress


def test_the_progress_of_another_file_or_no_progress_at_all_is_a_sentence(source: Path, tmp_path: Path) -> None:
    noted = tmp_path / "progress"
    save_progress(noted, mark_of(source), Progress(Position(16, 1)))
    source.write_bytes(gzip.compress(b"another"))
    with pytest.raises(ProgressError, match="is the progress of another file"):
        load_progress(noted, source)
    noted.write_text("{}")
    with pytest.raises(ProgressError, match="cannot be read"):
        load_progress(noted, source)
