import gzip
import json
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.answers import RequestRefused
from collector.auth import find_write_key
from collector.batch import parse_batch, parse_json
from collector.body import inflate, inflate_declared
from collector.times import epoch_ms, epoch_ms_or_none
from schemas.reasons import Reason

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(0, 3))
def test_gzip_of_several_members_inflates_to_all_of_them(parts: list[bytes], padding: int) -> None:
    body = b"".join(map(gzip.compress, parts)) + b"\0" * padding
    assert inflate(body) == b"".join(parts)


def test_inflating_stops_at_the_limit() -> None:
    bomb = gzip.compress(b"0" * 1_000)
    assert len(inflate(bomb, limit=1_000)) == 1_000
    with pytest.raises(RequestRefused) as refused:
        inflate(bomb, limit=999)
    assert refused.value.reason is Reason.BODY_TOO_LARGE
    assert refused.value.letter is None


def test_members_together_may_not_pass_the_limit() -> None:
    with pytest.raises(RequestRefused) as refused:
        inflate(gzip.compress(b"0" * 600) * 2, limit=1_000)
    assert refused.value.reason is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"\x1f\x8b",
        b"\x1f\x8bgarbage",
        gzip.compress(b"whole", mtime=0)[:-1],
        gzip.compress(b"whole", mtime=0) + b"rest",
        gzip.compress(b"", mtime=0) * 101,
        gzip.compress(b"x", mtime=0)[:-8] + b"\0" * 8,
    ],
)
def test_what_is_not_whole_gzip_is_refused_and_kept(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        inflate_declared(body, b"")
    assert refused.value.reason is Reason.INVALID_GZIP
    assert refused.value.letter == body


def test_gzip_is_known_by_its_first_bytes_and_a_false_declaration_is_refused() -> None:
    assert inflate_declared(gzip.compress(b"{}"), b"") == b"{}"
    assert inflate_declared(gzip.compress(b"{}"), b"GZIP") == b"{}"
    assert inflate_declared(b"{}", b"identity") == b"{}"
    for body in (b"{}", b"", zlib.compress(b"{}")):
        with pytest.raises(RequestRefused, match="does not begin as gzip"):
            inflate_declared(body, b"gzip")


@given(json_values)
def test_json_is_read_as_it_is(value: Any) -> None:
    text = json.dumps(value).encode()
    assert parse_json(text)[0] == orjson.loads(orjson.dumps(json.loads(text.replace(b"\\u0000", b"\\ufffd"))))


@given(st.text(st.characters(codec=None, categories=None), max_size=20))
def test_any_text_that_javascript_can_send_becomes_text_that_can_be_stored(text: str) -> None:
    value, _ = parse_json(json.dumps(text).encode())
    assert b"\0" not in value.encode()
    if "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text):
        assert value == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"\ud83d"', "�"),
        (rb'"\ude00\ud83d x"', "�� x"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\\ud83d \u0000 \ud83d"', r"\ud83d � �"),
        (b'\xef\xbb\xbf"marked"', "marked"),
    ],
)
def test_halves_of_pairs_and_nul_are_replaced_and_a_byte_order_mark_is_dropped(text: bytes, value: str) -> None:
    assert parse_json(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"{", b"NaN", b"[1e999]", b"{'a':1}", b'"\xff"', b"[" * 100_000, b'{"a":1}x', "{}".encode("utf-16")],
)
def test_what_is_not_json_is_refused_and_kept(text: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_json(text)
    assert refused.value.reason is Reason.INVALID_JSON
    assert refused.value.letter == text


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b'{"batch":[{"a":1},2]}', [{"a": 1}, 2]),
        (b'[{"a":1},2]', [{"a": 1}, 2]),
        (b'{"a":1}', [{"a": 1}]),
        (b'{"batch":{}}', [{"batch": {}}]),
        (b'{"batch":[]}', []),
        (b"[]", []),
        (b"5", [5]),
        (b"null", [None]),
    ],
)
def test_a_body_is_a_batch_an_array_or_one_event(text: bytes, events: list[Any]) -> None:
    assert parse_batch(text, None).events == events


def test_sent_at_comes_from_the_envelope_or_from_the_single_event() -> None:
    assert parse_batch(b'{"batch":[],"sentAt":5}', None).sent_at == 5
    assert parse_batch(b'{"type":"page","sentAt":6}', None).sent_at == 6


def test_over_1000_events_are_refused_and_nothing_is_kept() -> None:
    assert len(parse_batch(b"[" + b",".join([b"1"] * 1_000) + b"]", None).events) == 1_000
    with pytest.raises(RequestRefused) as refused:
        parse_batch(b"[" + b",".join([b"1"] * 1_001) + b"]", None)
    assert refused.value.reason is Reason.TOO_MANY_EVENTS
    assert refused.value.letter is None


def test_a_context_that_the_event_before_or_the_visitor_repeats_is_read_once() -> None:
    sent = [("a", "x"), ("b", "y"), ("a", "x"), ("b", "y"), ("c", "y"), ("b", "x"), ("b", "y")]
    texts = (b'{"type":"page","anonymousId":"%b","context":{"app":"%b"}}' % (v.encode(), c.encode()) for v, c in sent)
    plain = parse_batch(b'{"batch":[%b]}' % b",".join(texts), None).plain
    assert plain is not None
    contexts = [read[1] for read in plain if read]
    assert contexts == [{"app": app} for _, app in sent]
    assert [list(map(id, contexts)).index(id(context)) for context in contexts] == [0, 1, 0, 1, 1, 5, 6]


@given(st.lists(json_values, max_size=5), st.sampled_from(("batch", "array")), st.sampled_from((None, 1)))
def test_payloads_are_the_events_texts_unchanged(values: list[Any], shape: str, indent: int | None) -> None:
    texts = [json.dumps(value, indent=indent).encode() for value in values]
    listed = b"[" + b" , ".join(texts) + b"]"
    body = listed if shape == "array" else b'{"batch": ' + listed + b', "sentAt": 1}'
    assert list(parse_batch(body, None).payloads(range(len(texts))).values()) == [
        text.replace(b"\\u0000", b"\\ufffd") for text in texts
    ]


def test_a_payload_gets_the_type_and_the_context_that_only_the_request_named() -> None:
    batch = parse_batch(
        b'{"context":{"app":"shop"},"batch":[{ "a" : 1.0 }, {}, {"type":"page","context":{}}, 7]}', "track"
    )
    assert list(batch.payloads(range(4)).values()) == [
        b'{ "a" : 1.0,"type":"track","context":{"app":"shop"}}',
        b'{"type":"track","context":{"app":"shop"}}',
        b'{"type":"page","context":{},"type":"track"}',
        b"7",
    ]
    assert [orjson.loads(payload)["type"] for payload in batch.payloads(range(3)).values()] == ["track"] * 3


@pytest.mark.parametrize(
    ("sent", "ms"),
    [
        ("2026-11-24T15:59:01.123Z", 1795535941123),
        ("2026-11-24T16:59:01.1239+01:00", 1795535941123),
        ("2026-11-24T15:59:01", 1795535941000),
        ("2026-11-24", 1795478400000),
        ("1969-12-31T23:59:59.999Z", -1),
        (1795535941123, 1795535941123),
        (1795535941123.9, 1795535941123),
        (0, 0),
    ],
)
def test_times_are_read_as_milliseconds(sent: Any, ms: int) -> None:
    assert epoch_ms(sent) == ms


@given(
    st.text()
    | st.booleans()
    | st.floats()
    | st.lists(st.integers())
    | st.none()
    | st.integers()
    | st.from_regex(r"\d{4}-\d\d-\d\dT.*")
)
def test_what_is_no_time_is_a_value_error_and_nothing_else(sent: Any) -> None:
    ms = epoch_ms_or_none(sent)
    assert ms is None or -(2**62) < ms < 2**62


@pytest.mark.parametrize("sent", [True, "", "yesterday", "2026-13-01", float("nan"), float("inf"), 1e18, [], {}])
def test_what_is_no_time_is_refused(sent: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        epoch_ms(sent)


@pytest.mark.parametrize(
    ("header", "query", "key"),
    [
        (b"Basic d2stYWNtZTo=", b"", "wk-acme"),
        (b"basic d2stYWNtZTpwdw==", b"k=other", "wk-acme"),
        (b"Bearer wk-acme", b"", "wk-acme"),
        (b"", b"a=1&k=wk-acme", "wk-acme"),
        (b"Basic !!!", b"k=wk-acme", "wk-acme"),
        (b"Digest wk-acme", b"", ""),
        (b"Basic \xff", b"", ""),
        (b"", b"k=", ""),
        (b"", b"k=%ff%00", "�\0"),
        (b"", b"&&==\xff;%", ""),
    ],
)
def test_the_write_key_is_found_in_a_header_or_in_the_url(header: bytes, query: bytes, key: str) -> None:
    assert find_write_key({b"authorization": header}, query) == key
