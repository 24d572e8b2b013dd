"""A collector to test against: one tenant or two, a memory sink, a clock that stands still unless told."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from collector.app import Collector
from collector.sink import MemorySink, Outgoing
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.tenants import Tenant, Tenants, index_tenants
from schemas.topics import COLLECTED, DEAD_LETTER

NOW_MS = 1_795_000_000_000
ACME = Tenant(company_id="acme", write_keys=("wk-acme",), allowed_origins=("https://app.acme.example",))
BOLT = Tenant(company_id="bolt", write_keys=("wk-bolt",), allowed_origins=("https://bolt.example",), rate_limit=10)


@dataclass
class FixedTenants:
    """The tenants file's twin that never changes."""

    tenants: Tenants = field(default_factory=lambda: index_tenants((ACME, BOLT)))

    def current(self) -> Tenants:
        return self.tenants


@dataclass
class Clock:
    """Seconds; moved by hand."""

    now: float = NOW_MS / 1000

    def __call__(self) -> float:
        return self.now


def counting_random() -> Iterator[bytes]:
    """Ten bytes at a time, never the same."""
    number = 0
    while True:
        number += 1
        yield number.to_bytes(10, "big")


def collector(sink: MemorySink, clock: Clock | None = None) -> Collector:
    """A collector whose time and ids are reproducible."""
    clock, random = clock or Clock(), counting_random()
    return Collector(FixedTenants(), sink, clock, clock, lambda _: next(random))


@asynccontextmanager
async def client_of(app: Collector, key: str = "wk-acme") -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application, without a socket; an exception of the application reaches the test."""
    transport = httpx.ASGITransport(cast(Any, app), client=("203.0.113.77", 4711))
    auth = httpx.BasicAuth(key, "") if key else None
    async with httpx.AsyncClient(transport=transport, base_url="http://collector", auth=auth) as client:
        yield client


def records_of(sent: list[Outgoing]) -> list[CollectedRecord]:
    """The records on events.collected."""
    return [cast(CollectedRecord, out.record) for out in sent if out.topic == COLLECTED]


def events_of(sent: list[Outgoing]) -> list[CollectedEvent]:
    """The events of all records, in order."""
    return [event for record in records_of(sent) for event in record["events"]]


def letters_of(sent: list[Outgoing]) -> list[DeadLetter]:
    """The dead letters."""
    return [cast(DeadLetter, out.record) for out in sent if out.topic == DEAD_LETTER]


def event(**fields: Any) -> dict[str, Any]:
    """A track event that the collector takes, with these fields changed; None takes one out."""
    base: Mapping[str, Any] = {
        "eventId": "e-1",
        "type": "track",
        "anonymousId": "anon-1",
        "eventCategory": "search",
        "eventAction": "search",
    }
    return {name: value for name, value in {**base, **fields}.items() if value is not None}
