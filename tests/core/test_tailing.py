import json

from headrace.tailing import ReadRecord, lines_of, read_record
from schemas.codec import Codec
from schemas.records import CollectedRecord, DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.contract.outgoing import collected, dead_letter

CODEC = Codec()


def read_collected() -> ReadRecord:
    record: CollectedRecord = collected("visitor-1", "e-1").record  # type: ignore[assignment]
    record["events"][0] |= {"properties": '{"term":"oil"}', "eventLabel": "Oil\n filter"}
    return read_record(CODEC, COLLECTED, 3, 41, b"acme:visitor-1", CODEC.encode_collected(record))


def test_an_event_is_a_line_that_says_when_who_and_what() -> None:
    [(style, text)] = lines_of(read_collected())
    assert style == ""
    assert text == '2025-10-09 08:53:20.000  acme  visitor-1  track  test/sent  e-1  Oil filter {"term":"oil"}'


def test_a_record_as_json_has_its_place_and_its_properties_as_an_object() -> None:
    document = json.loads(read_collected().as_json())
    assert (document["partition"], document["offset"], document["key"]) == (3, 41, "acme:visitor-1")
    assert document["record"]["events"][0]["properties"] == {"term": "oil"}
    assert read_collected().company_id == "acme"


def test_a_dead_letter_is_a_line_with_its_reason_and_the_beginning_of_its_payload() -> None:
    letter: DeadLetter = dead_letter("v", "e-2", b'{"a":\n"' + b"x" * 500).record  # type: ignore[assignment]
    record = read_record(CODEC, DEAD_LETTER, 0, 1, None, CODEC.encode_dead_letter(letter))
    [(_, text)] = lines_of(record)
    assert text.startswith('2025-10-09 08:53:20.000  acme  invalid_type  -  e-2    {"a": "xxx')
    assert text.endswith("x…")
    assert json.loads(record.as_json())["record"]["payload"].startswith('{"a":\n"xxx')


def test_what_cannot_be_read_is_told_and_no_tenants() -> None:
    for value in (b"\x00\x00\x00\x00\x07\xff", b"", None):
        record = read_record(CODEC, COLLECTED, 2, 5, b"\xff", value)
        [(style, text)] = lines_of(record)
        assert (style, record.company_id) == ("red", "")
        assert text.startswith("partition 2 offset 5 cannot be read: The record")
        document = json.loads(record.as_json())
        assert (document["value"], bool(document["error"])) == ((value or b"").hex(), True)


def test_a_dead_letter_on_the_other_topic_cannot_be_read() -> None:
    letter: DeadLetter = dead_letter("v", "e-2").record  # type: ignore[assignment]
    assert read_record(CODEC, COLLECTED, 0, 0, None, CODEC.encode_dead_letter(letter)).content is None
