import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from collector.limits import MAX_RAW_LETTER
from collector.openapi import openapi_document
from collector.request import EVENT_ROUTES
from collector.sink import MemorySink
from schemas.tenants import index_tenants
from tests.collecting import ACME, Clock, FixedTenants, client_of, collector, event, events_of, letters_of, records_of


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def client(sink: MemorySink) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(collector(sink)) as client:
        yield client


def refused(answer: httpx.Response, status: int, reason: str) -> bool:
    body = answer.json()
    return (answer.status_code, body["error"], set(body)) == (status, reason, {"error", "message"})


async def test_a_batch_gets_a_verdict_for_every_event_in_order(client: httpx.AsyncClient, sink: MemorySink) -> None:
    batch = [event(eventId="a"), event(eventId="b", companyId="bolt"), event(eventId="c")]
    answer = await client.post("/v1/batch", json={"batch": batch})
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 2,
        "rejected": 1,
        "results": [
            {"eventId": "a", "status": "accepted"},
            {
                "eventId": "b",
                "status": "rejected",
                "reason": "company_mismatch",
                "field": "companyId",
                "message": "companyId is not the tenant of the write key; leave it out or use that tenant's key.",
            },
            {"eventId": "c", "status": "accepted"},
        ],
    }
    assert [one["eventId"] for one in events_of(sink.records)] == ["a", "c"]
    assert [(letter["eventId"], letter["companyId"]) for letter in letters_of(sink.records)] == [("b", "acme")]


@pytest.mark.parametrize("body", [[event()], event(), {"batch": [event()]}])
async def test_a_batch_an_array_and_one_event_are_the_same(
    client: httpx.AsyncClient, sink: MemorySink, body: Any
) -> None:
    answer = await client.post("/v1/batch", json=body)
    assert answer.json()["accepted"] == len(events_of(sink.records)) == 1


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, kind in EVENT_ROUTES.items() if kind])
async def test_segments_paths_name_the_type(client: httpx.AsyncClient, sink: MemorySink, path: str, kind: str) -> None:
    sent = {"userId": "u", "previousId": "p", "event": "Brake Selected", "messageId": "m", "writeKey": "wk-acme"}
    answer = await client.post(f"{path}/", json=sent)
    assert answer.json()["results"] == [{"eventId": "m", "status": "accepted"}]
    assert events_of(sink.records)[0]["type"] == ("page" if kind == "screen" else kind)


async def test_a_rejected_event_of_a_segment_path_can_be_replayed_as_a_batch(
    client: httpx.AsyncClient, sink: MemorySink
) -> None:
    await client.post("/v1/identify", content=b'{"traits":{}}')
    assert [letter["payload"] for letter in letters_of(sink.records)] == [b'{"traits":{},"type":"identify"}']


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": "Basic d2stYWNtZTo="}, ""),
        ({"authorization": "Bearer wk-acme"}, ""),
        ({}, "?k=wk-acme"),
    ],
)
async def test_the_write_key_comes_by_basic_bearer_or_url(
    sink: MemorySink, headers: dict[str, str], query: str
) -> None:
    async with client_of(collector(sink), key="") as client:
        answer = await client.post(f"/v1/batch{query}", json=event(), headers=headers)
    assert answer.status_code == 200
    assert records_of(sink.records)[0]["companyId"] == "acme"


@pytest.mark.parametrize("key", ["", "wk-nobody"])
async def test_no_or_an_unknown_write_key_is_401_and_nothing_is_stored(sink: MemorySink, key: str) -> None:
    async with client_of(collector(sink), key=key) as client:
        for path in EVENT_ROUTES:
            answer = await client.post(path, content=b"not even JSON")
            assert refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert sink.records == []


async def test_a_body_that_is_not_json_is_400_and_a_dead_letter_with_its_bytes(
    client: httpx.AsyncClient, sink: MemorySink
) -> None:
    text = b'{"ip":"203.0.113.77", "batch": [' + b"x" * MAX_RAW_LETTER
    for body in (text, gzip.compress(text)):
        assert refused(await client.post("/v1/batch", content=body), 400, "invalid_json")
    assert refused(await client.post("/v1/batch", content=b""), 400, "invalid_json")
    cut, again, empty = letters_of(sink.records)
    assert (cut["reason"], cut["source"], cut["companyId"], cut["contentType"]) == (
        "invalid_json",
        "collector",
        "acme",
        "raw",
    )
    assert cut["payload"] == again["payload"] == text[:MAX_RAW_LETTER].replace(b"113.77", b"113.0")
    assert (cut["truncated"], empty["truncated"], empty["payload"]) == (True, False, b"")
    assert len({cut["key"], again["key"], empty["key"]}) == 3


async def test_a_body_that_is_not_gzip_as_declared_is_400_and_a_dead_letter(
    client: httpx.AsyncClient, sink: MemorySink
) -> None:
    bodies = [b"{}", gzip.compress(b"{}")[:-2]]
    for body in bodies:
        answer = await client.post("/v1/batch", content=body, headers={"content-encoding": "gzip"})
        assert refused(answer, 400, "invalid_gzip")
    assert [letter["payload"] for letter in letters_of(sink.records)] == bodies


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b" " * ((1 << 20) + 1), "body_too_large"),
        (gzip.compress(b" " * ((10 << 20) + 1), mtime=0), "body_too_large"),
        (json.dumps([1] * 1_001).encode(), "too_many_events"),
    ],
)
async def test_a_request_over_a_limit_is_413_and_nothing_is_stored(
    client: httpx.AsyncClient, sink: MemorySink, body: bytes, reason: str
) -> None:
    assert refused(await client.post("/v1/batch", content=body), 413, reason)
    assert sink.records == []


async def test_a_body_at_the_limits_is_taken(client: httpx.AsyncClient, sink: MemorySink) -> None:
    body = json.dumps([event(eventId=str(number)) for number in range(1_000)]).encode()
    plain = await client.post("/v1/batch", content=body.ljust(1 << 20))
    packed = await client.post("/v1/batch", content=gzip.compress(body.ljust(10 << 20)))
    assert plain.json()["accepted"] == packed.json()["accepted"] == 1_000
    assert len(events_of(sink.records)) == 2_000


async def test_a_body_over_the_limit_is_refused_while_it_is_read(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 16
            yield b" " * (1 << 16)

    assert refused(await client.post("/v1/batch", content=endless()), 413, "body_too_large")
    assert read <= (1 << 20) + (1 << 16)


async def test_without_log_and_spool_the_answer_is_503_with_retry_after(
    client: httpx.AsyncClient, sink: MemorySink
) -> None:
    sink.available = False
    for body in (json.dumps(event()).encode(), b"not JSON"):
        answer = await client.post("/v1/batch", content=body)
        assert refused(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_over_the_rate_the_answer_is_429_and_passes_when_retry_after_is_over(sink: MemorySink) -> None:
    clock = Clock()
    async with client_of(collector(sink, clock), key="wk-bolt") as client:
        assert (await client.post("/v1/batch", json=[event()] * 20)).status_code == 200
        answer = await client.post("/v1/batch", json=[event()] * 15)
        assert refused(answer, 429, "rate_limited")
        assert answer.headers["retry-after"] == "2"
        assert refused(await client.post("/v1/batch", content=b"not JSON"), 429, "rate_limited")
        clock.now += 2
        assert (await client.post("/v1/batch", json=[event()] * 15)).status_code == 200
    assert (len(events_of(sink.records)), letters_of(sink.records)) == (35, [])


async def test_a_beacon_needs_no_header_and_its_answer_is_small(sink: MemorySink) -> None:
    body = json.dumps({"batch": [event(), event(type="?")]}).encode()
    async with client_of(collector(sink), key="") as client:
        for content in (body, gzip.compress(body)):
            sent = {"content-type": "text/plain;charset=UTF-8", "origin": "https://app.acme.example"}
            answer = await client.post("/v1/beacon?k=wk-acme", content=content, headers=sent)
            assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": 1})
            assert answer.headers["access-control-allow-origin"] == "https://app.acme.example"
    assert len(events_of(sink.records)) == len(letters_of(sink.records)) == 2


@pytest.mark.parametrize(
    ("query", "origin", "allowed"),
    [
        ("?k=wk-acme", "https://app.acme.example", True),
        ("?k=wk-acme", "https://bolt.example", False),
        ("", "https://bolt.example", True),
        ("", "https://stranger.example", False),
        ("?k=wk-nobody", "https://stranger.example", False),
    ],
)
async def test_a_preflight_is_answered_by_the_keys_tenant_or_by_any(
    client: httpx.AsyncClient, query: str, origin: str, allowed: bool
) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    answer = await client.options(f"/v1/batch{query}", headers=asked)
    assert (answer.status_code, answer.content, answer.headers["vary"]) == (204, b"", "Origin")
    assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert ("authorization" in answer.headers.get("access-control-allow-headers", "")) is allowed
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_may_read_retry_after_and_a_401_but_not_another_tenants_answer(sink: MemorySink) -> None:
    async with client_of(collector(sink), key="") as client:

        async def headers_for(query: str, origin: str) -> httpx.Headers:
            answer = await client.post(f"/v1/batch{query}", json=event(), headers={"origin": origin})
            return answer.headers

        own = await headers_for("?k=wk-acme", "https://app.acme.example")
        assert own["access-control-allow-origin"] == "https://app.acme.example"
        assert own["access-control-expose-headers"] == "Retry-After"
        assert "access-control-allow-origin" not in await headers_for("?k=wk-acme", "https://bolt.example")
        assert "access-control-allow-origin" in await headers_for("", "https://bolt.example")


async def test_any_origin_is_allowed_where_the_tenants_file_says_so(sink: MemorySink) -> None:
    app = collector(sink)
    app._tenants = FixedTenants(index_tenants((ACME.model_copy(update={"allowed_origins": ("*",)}),)))
    async with client_of(app) as client:
        answer = await client.post("/v1/batch", json=event(), headers={"origin": "null"})
    assert answer.headers["access-control-allow-origin"] == "null"


async def test_address_country_and_browser_come_from_the_headers_where_the_client_sent_none(
    client: httpx.AsyncClient, sink: MemorySink
) -> None:
    sent = {"user-agent": "Mozilla/5.0 \xfc", "cf-ipcountry": "xx", "x-country": "de"}
    await client.post("/v1/batch", json=event(), headers=httpx.Headers(sent, encoding="utf-8"))
    context = records_of(sink.records)[0]["context"]
    assert (context["ip"], context["country"], context["userAgent"]) == ("203.0.113.0", "DE", "Mozilla/5.0 ü")


async def test_the_collector_is_ready_while_the_sink_is_and_until_it_is_told_to_stop(sink: MemorySink) -> None:
    app = collector(sink)
    async with client_of(app) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json() == {"ready": True}
        sink.available = False
        assert (await client.get("/readyz")).status_code == 503
        sink.available = True
        app.stop()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/v1/batch", json=event())).status_code == 200


async def test_the_sink_is_closed_when_the_lifespan_ends(sink: MemorySink) -> None:
    received = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    sent: list[str] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await collector(sink)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not sink.ready()


async def test_a_client_that_goes_away_is_forgotten(sink: MemorySink) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("nobody is there to answer")

    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"k=wk-acme", "headers": []}
    await collector(sink)(scope, receive, send)
    assert sink.records == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v2/batch", 404),
        ("GET", "/v1/batch", 405),
        ("DELETE", "/v1/track", 405),
        ("POST", "/metrics", 405),
    ],
)
async def test_other_paths_are_404_and_other_methods_405(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}
    assert ("allow" in answer.headers) is (status == 405)


async def test_what_was_accepted_rejected_and_refused_is_counted(client: httpx.AsyncClient) -> None:
    async def counted(sample: str) -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"headrace_collector_{sample}"))

    samples = (
        'accepted_total{companyId="acme"}',
        'rejected_total{companyId="acme",reason="missing_id"}',
        'rejected_total{companyId="acme",reason="invalid_json"}',
        'refused_total{reason="too_many_events"}',
        'requests_total{route="/v1/batch",status="200"}',
    )
    before = [await counted(sample) for sample in samples]
    await client.post("/v1/batch", json=[event(), event(), event(anonymousId=None)])
    await client.post("/v1/batch", content=b"{")
    await client.post("/v1/batch", json=[1] * 1_001)
    assert [await counted(sample) - was for sample, was in zip(samples, before, strict=True)] == [2, 1, 1, 1, 1]


async def test_the_openapi_document_names_every_path_and_every_field(client: httpx.AsyncClient) -> None:
    document = orjson.loads(openapi_document())
    assert (await client.get("/openapi.json")).json() == document
    assert set(document["paths"]) == {*EVENT_ROUTES, "/healthz", "/readyz", "/metrics", "/openapi.json"}
    assert {"eventId", "timestamp", "groupId", "anonymousId"} <= set(
        document["components"]["schemas"]["SentEvent"]["properties"]
    )
