"""Whatever bytes come in: never a 500, and nothing accepted or rejected that is not among the records sent on."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import orjson
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from collector.request import EVENT_ROUTES
from collector.sink import MemorySink
from schemas.codec import Codec
from schemas.reasons import Reason
from schemas.sent import SentEvent
from schemas.topics import COLLECTED
from tests.collecting import client_of, collector, event, events_of, letters_of

CODEC = Codec()
STATUSES = {200, 400, 401, 404, 405, 413, 204}
FIELDS = sorted(
    {field.alias or name for name, field in SentEvent.model_fields.items()} | {"eventId", "messageId", "sentAt"}
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, categories=None), max_size=10)
    | st.sampled_from(
        ("page", "track", "alias", "null", "acme", "u-1", "2026-11-24T15:59:01Z", "\0", "\ud800", 1795535941123)
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
events = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8) | st.builds(
    lambda base, changes: {**base, **changes},
    st.just(event()),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=2),
)
batches = st.lists(events | values, max_size=6)
shapes = batches | st.builds(
    lambda batch, rest: {**rest, "batch": batch},
    batches,
    st.dictionaries(st.sampled_from(("sentAt", "context")), values),
)
texts = (shapes | events | values).map(lambda value: json.dumps(value).encode())
TWINS = b'[{"type":"page","userId":"u","context":{"a":%}},{"type":"page","userId":"u","context":{"a":%}}]'
deep = st.builds(
    lambda levels, around: around.replace(b"%", b"[" * levels + b"]" * levels),
    st.sampled_from((200, 254, 300, 900, 990, 1_010, 1_024, 50_000)),
    st.sampled_from(
        (b"%", b'{"type":"page","userId":"u","properties":{"a":%}}', b'[{"userId":"u","context":{"a":%}}]', TWINS)
    ),
)
broken = st.builds(
    lambda text, at, junk: text[:at] + junk + text[at:], texts, st.integers(0, 300), st.binary(max_size=4)
)
odd_texts = (
    texts
    | deep
    | broken
    | texts.map(lambda text: text.decode().encode("utf-16"))
    | st.sampled_from((b"1" * 5_000, b'{"type":"page","type":"track","userId":1}', b'{"batch":[1],"batch":[2,3]}', b""))
)
bodies = (
    odd_texts
    | odd_texts.map(gzip.compress)
    | st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda junk: b"\x1f\x8b" + junk)
    | st.builds(lambda text, at: gzip.compress(text)[:at], texts, st.integers(0, 60))
)
header_values = st.binary(max_size=30).filter(lambda value: not set(value) & {0, 10, 13})
headers = st.dictionaries(
    st.sampled_from(
        ("user-agent", "cf-ipcountry", "content-type", "content-encoding", "origin", "authorization", "x-forwarded-for")
    ),
    header_values
    | st.sampled_from((b"gzip", b"br", b"Basic d2stYWNtZTo=", b"Bearer ", b"XX", b"de", b"https://bolt.example")),
)


async def post(sink: MemorySink, path: str, body: bytes, sent: dict[str, bytes]) -> httpx.Response:
    async with client_of(collector(sink), key="") as client:
        fields = [(name.encode(), value) for name, value in sent.items()]
        return await client.post(f"{path}?k=wk-acme", content=body, headers=fields)


@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(list(EVENT_ROUTES)), bodies, headers)
@example("/v1/batch", b"[" * 100_000, {})
@example("/v1/batch", gzip.compress(b"0" * (11 << 20)), {})
@example("/v1/batch", b'{"type":"page","userId":"u","timestamp":"0001-01-01T00:00:00+23:59"}', {})
@example("/v1/batch", b'{"type":"page","userId":"u","timestamp":1e300}', {"authorization": b"Basic a"})
def test_no_bytes_break_the_collector_and_every_verdict_is_true(path: str, body: bytes, sent: dict[str, bytes]) -> None:
    sink = MemorySink()
    answer = asyncio.run(post(sink, path, body, sent))
    assert answer.status_code in STATUSES
    verdicts = answer.json()
    letters = letters_of(sink.records)
    if answer.status_code == 200:
        assert verdicts["accepted"] == len(events_of(sink.records)) == sum(out.events for out in sink.records)
        assert verdicts["rejected"] == len(letters)
        check_results(verdicts.get("results"), sink)
    else:
        assert events_of(sink.records) == []
        assert [letter["reason"] for letter in letters] == ([verdicts["error"]] if answer.status_code == 400 else [])
    for out in sink.records:
        check_storable(out.topic, out.key, out.record)


def check_results(results: list[dict[str, str]] | None, sink: MemorySink) -> None:
    """The ids of the verdicts are the ids of what was sent on (a beacon's answer has no verdicts)."""
    if results is None:
        return
    accepted = sorted(result["eventId"] for result in results if result["status"] == "accepted")
    rejected = [(result["eventId"], result["reason"]) for result in results if result["status"] == "rejected"]
    assert accepted == sorted(one["eventId"] for one in events_of(sink.records))
    assert rejected == [(letter["eventId"], letter["reason"]) for letter in letters_of(sink.records)]


def check_storable(topic: str, key: str, record: Any) -> None:
    """The record survives Avro, its key is text, and its JSON is JSON."""
    key.encode()
    if topic == COLLECTED:
        assert CODEC.decode_collected(CODEC.encode_collected(record)) == record
        for one in record["events"]:
            assert isinstance(orjson.loads(one["properties"]), dict)
    else:
        assert CODEC.decode_dead_letter(CODEC.encode_dead_letter(record)) == record
        assert record["reason"] in set(Reason)


class ReopenedSink(MemorySink):
    """Stays open: the test client ends the lifespan, and so closes the sink, after every request."""

    async def close(self) -> None:
        self.records.clear()


contract = schemathesis.openapi.from_asgi("/openapi.json", collector(ReopenedSink()))


@contract.include(method="POST").parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_openapi_document_promises(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(
        headers={"Authorization": "Basic d2stYWNtZTo="},
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
        ],
    )
