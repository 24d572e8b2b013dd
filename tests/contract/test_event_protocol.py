"""The way around ASGI: whatever a client sends, answer and records are those of uvicorn's own way."""

import asyncio
import gzip
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import uvicorn

from collector.connections import LimitedProtocol, Waiting
from collector.limits import MAX_BODY
from collector.log_client import RecordTooLarge
from collector.request import Request
from collector.serve import _config
from collector.settings import CollectorSettings
from collector.sink import MemorySink, Outgoing
from schemas.tenants import Tenants
from tests.collecting import collector, event, events_of, records_of

BODY = json.dumps({"batch": [event(), event(eventId="e-2", type="nothing")]}).encode()
FORWARDED = "X-Forwarded-For: 198.51.100.7, 127.0.0.1"


def post(
    *headers: str, path: str = "/v1/batch", body: bytes = BODY, key: str = "wk-acme", version: str = "1.1"
) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: c", f"Authorization: Bearer {key}", *headers]
    if not any(line.startswith("Transfer-Encoding") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


REQUESTS = {
    "ordinary": [post()],
    "key in the URL": [post(path="/v1/batch?k=wk-acme", key="")],
    "unknown key": [post(key="wk-nobody")],
    "another path": [post(path="/v2/batch")],
    "a slash at the end": [post(path="/v1/batch/")],
    "beacon": [post(path="/v1/beacon")],
    "a type by the path": [post(path="/v1/track", body=json.dumps(event()).encode())],
    "no JSON": [post(body=b"{")],
    "empty": [post(body=b"")],
    "gzip": [post("Content-Encoding: gzip", body=gzip.compress(BODY))],
    "origin": [post("Origin: https://app.acme.example")],
    "through a proxy": [post(FORWARDED)],
    "through two headers": [post("X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 192.0.2.1")],
    "chunked": [post("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))],
    "expecting 100": [post("Expect: 100-continue")],
    "the last of its connection": [post("Connection: close")],
    "HTTP/1.0": [post(version="1.0")],
    "GET": [b"GET /v1/batch HTTP/1.1\r\nHost: c\r\n\r\n"],
    "page": [b"GET /healthz HTTP/1.1\r\nHost: c\r\n\r\n"],
    "over the rate": [post(key="wk-bolt", body=json.dumps([event()] * 21).encode()), post(key="wk-bolt")],
    "large": [post(body=json.dumps([event(properties={"text": "x" * 500})] * 200).encode())],
    "too large": [post(body=b"x" * (MAX_BODY + 1))],
    "one after another": [post(), post(), post(path="/nothing"), post()],
    "together": [post() + post(body=b"[]") + post(path="/nothing") + post()],
    "in pieces": [post()[:20], post()[20:-30], post()[-30:-1], post()[-1:]],
    "broken": [b"POST / / HTTP/1.1\r\n\r\n"],
    "upgrade": [post("Connection: Upgrade", "Upgrade: websocket")],
}


class Client(asyncio.Transport):
    """The other end of a connection: gathers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4711) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Server:
    """One connection to a collector with a memory sink."""

    def __init__(self, direct: bool) -> None:
        self.sink, self.client = MemorySink(), Client()
        app, self.waiting = collector(self.sink), Waiting(30, 10, 1 << 28)
        config = _config(app, CollectorSettings(), self.waiting)
        asgi: Any = partial(LimitedProtocol, self.waiting)
        config.http = config.http if direct else asgi
        config.load()
        state = uvicorn.Server(config).server_state
        self.protocol: Any = config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]
        self.protocol.connection_made(self.client)

    async def take(self, *pieces: bytes) -> None:
        for data in pieces:
            if not self.client.closed:
                self.protocol.data_received(data)
            for _ in range(50):
                await asyncio.sleep(0)

    def answers(self) -> list[tuple[bytes, set[bytes], bytes]]:
        """Status line, headers and body of each answer."""
        found, rest = [], self.client.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status, *headers = head.split(b"\r\n")
            length = next((int(line[16:]) for line in headers if line.startswith(b"content-length: ")), 0)
            found.append((status, set(headers), rest[:length]))
            rest = rest[length:]
        return found


@pytest.mark.parametrize("name", REQUESTS)
async def test_answers_and_records_are_those_of_the_way_through_asgi(name: str) -> None:
    one, other = Server(direct=True), Server(direct=False)
    for server in (one, other):
        await server.take(*REQUESTS[name])
    assert one.answers() == other.answers() != []
    assert one.sink.records == other.sink.records
    assert one.client.closed == other.client.closed
    assert (one.waiting.open, one.waiting.held) == (other.waiting.open, other.waiting.held) == (1, 0)
    assert len(one.waiting._deadlines) == len(other.waiting._deadlines) == 1


async def test_an_ordinary_request_does_without_asgi() -> None:
    server = Server(direct=True)
    server.protocol.app = None
    await server.take(post(), post())
    assert [status for status, _, _ in server.answers()] == [b"HTTP/1.1 200 OK"] * 2


def a_request(tenants: Tenants, body: bytes) -> Request:
    headers = {b"authorization": b"Bearer wk-acme"}
    return Request("POST", "/v1/batch", b"", headers, "203.0.113.77", body, tenants)


class ParticularSink(MemorySink):
    """Takes no record with an event named too-large, and counts how often it is asked."""

    asked = 0

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.asked += 1
        if "too-large" in str(records):
            raise RecordTooLarge("too large")
        await super().send(records)


def bodies(*ids: str) -> list[bytes]:
    return [json.dumps(event(eventId=event_id)).encode() for event_id in ids]


async def statuses(sink: MemorySink, *sent: bytes) -> list[int | type[Exception]]:
    app = collector(sink)
    answers = await app.respond_all([a_request(app.tenants(), body) for body in sent])
    return [type(answer) if isinstance(answer, Exception) else answer[0].status for answer in answers]


async def test_requests_of_one_turn_are_sent_together_and_each_has_its_answer() -> None:
    sink = ParticularSink()
    assert await statuses(sink, *bodies("1", "2"), b"[]", *bodies("3")) == [200] * 4
    assert (sink.asked, [e["eventId"] for e in events_of(sink.records)]) == (1, ["1", "2", "3"])


async def test_what_is_wrong_with_one_request_is_not_the_others_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ParticularSink()
    assert await statuses(sink, *bodies("1"), b"{", *bodies("too-large", "2")) == [200, 400, RecordTooLarge, 200]
    assert [e["eventId"] for e in events_of(sink.records)] == ["1", "2"]

    def inflate(body: bytes, _: bytes) -> bytes:
        if b"broken" in body:
            raise ZeroDivisionError
        return body

    monkeypatch.setattr("collector.app.inflate_declared", inflate)
    assert await statuses(sink, *bodies("broken", "3")) == [ZeroDivisionError, 200]


async def test_where_nothing_can_be_stored_all_are_told_but_those_that_store_nothing() -> None:
    sink = MemorySink(available=False)
    assert await statuses(sink, *bodies("1"), b"[]", b"{", *bodies("2")) == [503, 200, 503, 503]


async def test_the_client_behind_a_trusted_proxy_is_the_sender() -> None:
    server = Server(direct=True)
    await server.take(post(FORWARDED))
    assert records_of(server.sink.records)[0]["context"]["ip"] == "198.51.100.0"


async def test_a_fault_of_the_collector_is_a_500_and_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_self: MemorySink, _records: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MemorySink, "send", fail)
    one, other = Server(direct=True), Server(direct=False)
    for server in (one, other):
        await server.take(post())
    assert one.answers() == other.answers()
    assert one.answers()[0][0] == b"HTTP/1.1 500 Internal Server Error"
    assert one.client.closed


async def test_who_goes_away_before_the_answer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = asyncio.Event()

    async def wait(_self: MemorySink, _records: object) -> None:
        await stored.wait()

    monkeypatch.setattr(MemorySink, "send", wait)
    server = Server(direct=True)
    await server.take(post())
    assert (server.waiting.held, len(server.waiting._deadlines)) == (len(BODY), 0)
    server.client.closed = True
    server.protocol.connection_lost(None)
    stored.set()
    await server.take()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (server.client.written, server.waiting.open, server.waiting.held) == (b"", 0, 0)
    assert not server.protocol.tasks
