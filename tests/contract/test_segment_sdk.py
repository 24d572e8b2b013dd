"""Segment's own Python SDK, unmodified, against the collector on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from segment.analytics.client import Client
from starlette.types import Message, Receive, Scope, Send

from collector.app import Collector
from collector.sink import MemorySink
from tests.collecting import FixedTenants, events_of, letters_of, records_of

WHEN = datetime(2026, 11, 24, 15, 59, 1, 123_000, tzinfo=UTC)


@dataclass
class Seen:
    """The application, noting each request's encoding and status; a repeated request has X-Retry-Count."""

    app: Collector
    statuses: list[int] = field(default_factory=list)
    encodings: set[bytes] = field(default_factory=set)
    retries: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        self.retries += b"x-retry-count" in headers
        if scope["type"] == "http":
            self.encodings.add(headers.get(b"content-encoding", b""))

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])
            await send(message)

        await self.app(scope, receive, noted)


@asynccontextmanager
async def served(app: Seen) -> AsyncIterator[str]:
    """The URL of the application on a real server and a free port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http="httptools", ws="none", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


def send_one_of_each(client: Client) -> None:
    client.identify("u-1", {"plan": "pro", "seats": 5}, anonymous_id="a-1", timestamp=WHEN, message_id="m-identify")
    context = {"page": {"url": "https://x.example/a", "title": "A"}, "ip": "203.0.113.77", "userAgent": "Mozilla/5.0"}
    client.track("u-1", "Search Performed", {"term": "brakes", "results": 0}, context=context, message_id="m-track")
    client.page("u-1", "docs", "Brakes", {"url": "https://x.example/docs"}, message_id="m-page")
    client.screen("u-1", "main", "Home", {"dark": True}, message_id="m-screen")
    client.group("u-1", 42, {"name": "Acme"}, message_id="m-group")
    client.alias("a-0", "u-1", message_id="m-alias")


def send_all(url: str, errors: list[Any], **options: Any) -> None:
    client = Client("wk-acme", host=url, on_error=lambda error, _: errors.append(error), **options)
    send_one_of_each(client)
    if not options["sync_mode"]:
        client.shutdown()


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("sync_mode", [False, True], ids=["batches", "one by one"])
async def test_every_call_of_segments_sdk_arrives_once_with_its_fields(gzip: bool, sync_mode: bool) -> None:
    sink, errors = MemorySink(), list[Any]()
    app = Seen(Collector(FixedTenants(), sink))
    async with served(app) as url:
        await asyncio.to_thread(send_all, url, errors, gzip=gzip, sync_mode=sync_mode, max_retries=1)

    assert (errors, app.retries, set(app.statuses), letters_of(sink.records)) == ([], 0, {200}, [])
    assert app.encodings == {b"gzip" if gzip else b""}
    assert len(app.statuses) == 6 if sync_mode else len(app.statuses) < 6
    assert all(record["sentAt"] is not None for record in records_of(sink.records))
    arrived = [(record, event) for record in records_of(sink.records) for event in record["events"]]
    assert len(arrived) == 6
    events = {event["eventId"].removeprefix("m-"): event for event in events_of(sink.records)}
    named = {kind: (event["type"], event["eventCategory"], event["eventAction"]) for kind, event in events.items()}
    assert named == {
        "identify": ("identify", "identity", "identify"),
        "track": ("track", "search", "search"),
        "page": ("page", "page", "view"),
        "screen": ("page", "screen", "view"),
        "group": ("group", "identity", "group"),
        "alias": ("alias", "identity", "alias"),
    }
    properties = {kind: json.loads(event["properties"]) for kind, event in events.items()}
    assert properties == {
        "identify": {"plan": "pro", "seats": 5},
        "track": {"term": "brakes", "results": 0},
        "page": {"category": "docs", "url": "https://x.example/docs"},
        "screen": {"category": "main", "dark": True},
        "group": {"groupId": "42", "name": "Acme"},
        "alias": {},
    }
    assert {event["userId"] for event in events.values()} == {"u-1"}
    assert (events["alias"]["previousId"], events["page"]["eventLabel"]) == ("a-0", "Brakes")
    assert events["identify"]["timestamp"] == 1795535941123
    visitors = {event["eventId"]: record["anonymousId"] for record, event in arrived}
    assert {visitors.pop("m-identify")} | {*visitors.values()} == {"a-1", ""}
    contexts = {event["eventId"]: {**record["context"], **event["context"]} for record, event in arrived}
    assert {context["library"] for context in contexts.values()} == {"analytics-python"}
    assert (contexts["m-track"]["url"], contexts["m-track"]["ip"]) == ("https://x.example/a", "203.0.113.0")
    assert contexts["m-page"]["url"] == "https://x.example/docs"
    assert {contexts["m-page"]["ip"], contexts["m-page"]["userAgent"]} == {""}


async def test_a_thousand_events_of_many_visitors_arrive_once_each() -> None:
    sink, errors = MemorySink(), list[Any]()
    app = Seen(Collector(FixedTenants(), sink))

    def send(url: str) -> None:
        client = Client("wk-acme", host=url, on_error=lambda error, _: errors.append(error), max_retries=1, gzip=True)
        for number in range(1_000):
            client.track(f"u-{number % 50}", "Brake Selected", {"number": number})
        client.shutdown()

    async with served(app) as url:
        await asyncio.to_thread(send, url)
    assert (errors, app.retries, set(app.statuses)) == ([], 0, {200})
    numbers = [json.loads(event["properties"])["number"] for event in events_of(sink.records)]
    assert sorted(numbers) == list(range(1_000))
    for visitor in {out.key for out in sink.records}:
        own = [
            json.loads(one["properties"])["number"] for one in events_of([o for o in sink.records if o.key == visitor])
        ]
        assert own == sorted(own)


async def test_an_unknown_write_key_is_told_to_the_sdk_and_not_retried() -> None:
    sink, errors = MemorySink(), list[Any]()
    app = Seen(Collector(FixedTenants(), sink))

    def send(url: str) -> None:
        client = Client("wk-nobody", host=url, on_error=lambda error, _: errors.append(error))
        client.track("u", "e")
        client.shutdown()

    async with served(app) as url:
        await asyncio.to_thread(send, url)
    assert (len(errors), app.retries, app.statuses, sink.records) == (1, 0, [401], [])
