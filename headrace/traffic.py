"""Believable traffic of the whole vocabulary: a pure function of a seed, of which is known what has to become of it."""

import heapq
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from collector.ids import mint_uuid7
from headrace.traffic_people import invent_visitors
from headrace.traffic_sessions import browse, plan_sessions
from schemas.reasons import Reason

#: Of the events sent.
_DUPLICATES: Final = 0.01
_BAD: Final = 0.005
_LATE: Final = 0.01
#: A late event or copy is sent after so many others at the most.
_LATEST: Final = 3_000


class Fate(StrEnum):
    """What becomes of an event that arrives."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    REJECTED = "rejected"


class Fault(NamedTuple):
    """What can be wrong with an event: its name, who finds it, and the members that make it so (None: left out)."""

    name: str
    fate: Fate
    reason: Reason
    members: Mapping[str, Any]


class SentItem(NamedTuple):
    """An event to send, and its fate. What a `bot` does is stored and not counted in the rollups."""

    event: dict[str, Any]
    bot: bool
    fate: Fate = Fate.STORED
    fault: Fault | None = None


def _named(category: str, action: str, properties: Any) -> dict[str, Any]:
    return {"type": "track", "eventCategory": category, "eventAction": action, "properties": properties}


FAULTS: Final = (
    Fault("no_type", Fate.REJECTED, Reason.MISSING_FIELD, {"type": None}),
    Fault("search_without_term", Fate.DEAD, Reason.PROPERTY_SCHEMA, _named("search", "search", {"results": 3})),
    Fault("unknown_type", Fate.REJECTED, Reason.INVALID_FIELD, {"type": "telepathy"}),
    Fault("vin_too_short", Fate.DEAD, Reason.PROPERTY_SCHEMA, _named("vehicle", "selected", {"vin": "1HGCM826"})),
    Fault("properties_as_list", Fate.REJECTED, Reason.INVALID_FIELD, {"properties": ["a", "b"]}),
    Fault(
        "helpful_as_text",
        Fate.DEAD,
        Reason.PROPERTY_SCHEMA,
        _named("content", "feedback", {"contentId": "m-1", "helpful": "yes"}),
    ),
    Fault("nobody", Fate.REJECTED, Reason.MISSING_ID, {"anonymousId": None, "userId": None}),
    Fault("other_company", Fate.REJECTED, Reason.COMPANY_MISMATCH, {"companyId": "a-company-that-is-not-the-keys"}),
)


def generate(seed: int, events: int, visitors: int, now: int, days: float = 7.0) -> Iterator[SentItem]:
    """Exactly `events` items of `visitors` visitors, over the `days` before `now` (ms since the epoch).

    They come session by session, in the order in which sessions begin, but for late ones: a client that was offline.
    Duplicates are second copies of an event, right after it or much later. The same arguments give the same items.
    """
    rng = random.Random(seed)
    duplicates, bad = round(events * _DUPLICATES), round(events * _BAD)
    originals = events - duplicates - bad
    people = invent_visitors(visitors, rng)
    items = itertools.starmap(SentItem, browse(plan_sessions(originals, people, now, days, rng), now, rng))
    copied, spoiled = (frozenset(rng.sample(range(originals), size)) for size in (duplicates, bad))
    return _disturb(items, copied, spoiled, rng)


def _disturb(
    items: Iterable[SentItem], copied: frozenset[int], spoiled: frozenset[int], rng: random.Random
) -> Iterator[SentItem]:
    """The items, some of them late, with copies and bad ones of those whose number is in `copied` and `spoiled`."""
    held: list[tuple[int, int, SentItem]] = []  # when it is due, what tells it from others due then, what it is
    sent = 0
    for number, item in enumerate(items):
        due = sent + (rng.randrange(50, _LATEST) if rng.random() < _LATE else 0)
        heapq.heappush(held, (due, 3 * number, item))
        if number in copied:
            due += 1 + (rng.randrange(_LATEST) if rng.random() < 0.5 else 0)
            heapq.heappush(held, (due, 3 * number + 1, item._replace(fate=Fate.DUPLICATE)))
        if number in spoiled:
            heapq.heappush(held, (sent, 3 * number + 2, _spoil(item, rng)))
        while held and held[0][0] <= sent:
            yield heapq.heappop(held)[2]
            sent += 1
    yield from (heapq.heappop(held)[2] for _ in range(len(held)))


def _spoil(item: SentItem, rng: random.Random) -> SentItem:
    """An event beside this one that has something wrong with it."""
    fault = rng.choice(FAULTS)
    event = {**item.event, **fault.members, "eventId": mint_uuid7(item.event["timestamp"], rng.randbytes(10))}
    kept = {name: value for name, value in event.items() if value is not None}
    return item._replace(event=kept, fate=fault.fate, fault=fault)


@dataclass(frozen=True, slots=True)
class TrafficBatch:
    """Items of one request."""

    items: list[SentItem]

    @property
    def events(self) -> list[bytes]:
        """The events as JSON."""
        return [orjson.dumps(item.event) for item in self.items]


def pack_requests(items: Iterator[SentItem], size: int) -> Iterator[TrafficBatch]:
    """Requests of `size` events of several visitors each, one visitor's beside each other: what a proxy sends."""
    while batch := list(itertools.islice(items, size)):
        yield TrafficBatch(batch)
