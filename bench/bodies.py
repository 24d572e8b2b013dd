"""Request bodies as a browser sends them, made fast enough that making them does not disturb what is measured.

A body is a template, encoded once, whose ids and times are filled in for every request: about 9 kB of JSON for 20
events of one visitor with a shared context.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from headrace.traffic_actions import Scene, acts

TEMPLATES: Final = 64
#: Stand for what is filled in; orjson leaves them as they are.
_ID, _AT, _VISITOR, _USER = "\ue000", "\ue001", "\ue002", "\ue003"
_MIDDLES: Final = tuple(b"%03x-8%03x-" % (n, n * 2_477 % 4_096) for n in range(4_096))
_LATE_MS: Final = 26 * 3_600_000
_DEVICES: Final = (
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Safari/605.1.15"
    ),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Mobile/15E148 Safari/604.1"
    ),
    (
        "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile "
        "Safari/537.36"
    ),
)


class Made(NamedTuple):
    """A body and what has to become of its events: `stored` + `duplicate` + `dead` + `rejected` are all of them."""

    body: bytes
    stored: int
    duplicate: int = 0
    dead: int = 0
    rejected: int = 0

    @property
    def events(self) -> int:
        """Events in the body."""
        return self.stored + self.duplicate + self.dead + self.rejected


@dataclass(slots=True)
class Bodies:
    """Makes bodies of `events` events each, of `visitors` visitors one after another in a random order.

    `bad`: in every body of at least 20 events one is invalid (by turns refused by the collector and by the worker), one
    a second copy, one a day late.
    """

    events: int = 20
    visitors: int = 50_000
    seed: int = 1
    bad: bool = False
    _rng: random.Random = field(init=False)
    _known: list[bytes] = field(init=False)
    _anonymous: list[bytes] = field(init=False)
    _invalid: list[tuple[bytes, bytes]] = field(init=False)
    _last_id: dict[int, bytes] = field(init=False, default_factory=dict)
    _made: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._known = [self._template(number, known=True) for number in range(TEMPLATES // 2)]
        self._anonymous = [self._template(number, known=False) for number in range(TEMPLATES // 2)]

    def make(self, now: int) -> Made:
        """The next body; `now` is in ms since the epoch."""
        number = self._rng.randrange(self.visitors)
        known = number % 3 == 0
        template = self._rng.choice(self._known if known else self._anonymous)
        self._made += 1
        ids = _mint(now, self.events, self._rng)
        times = _times(now, self.events)
        made = Made(b"", self.events)
        if self.bad:
            made = self._spoil(number, now, ids, times)
            template = self._spoiled(template)
        step = 4 if known else 3
        values = [visitor_id(self.seed, number)] * (step * self.events)
        values[::step], values[1::step] = ids, times
        if known:
            values[3::step] = [b"user-%d" % number] * self.events
        return made._replace(body=template % tuple(values))

    def _spoil(self, number: int, now: int, ids: list[bytes], times: list[bytes]) -> Made:
        ids[0] = self._last_id.get(number, ids[1])
        self._last_id[number] = ids[-1]
        times[2] = _text(now - _LATE_MS)
        dead = self._made % 2
        return Made(b"", self.events - 2, duplicate=1, dead=dead, rejected=1 - dead)

    def _spoiled(self, template: bytes) -> bytes:
        """The fourth event without what it needs."""
        head, mark, rest = template.partition(b'{"eventId"')
        parts = rest.split(b'{"eventId"')
        old, new = (b'"type":', b'"kind":') if self._made % 2 == 0 else (b'"term":"coolant"', b'"term":7')
        parts[3] = parts[3].replace(old, new, 1)
        return head + mark + b'{"eventId"'.join(parts)

    def _template(self, number: int, known: bool) -> bytes:
        rng = random.Random(f"{self.seed} {number} {known}")
        batch = [_event(members, known) for members, _ in zip(_acts(rng), range(self.events), strict=False)]
        if known and number % 8 == 0:
            batch[-1] = _event({"type": "identify", "properties": {"plan": "professional", "seats": 12}}, known)
        if self.bad:  # a search, so that a wrong term is a fault of its properties
            batch[3] = _event(_SEARCH, known)
        text = orjson.dumps({"context": _context(rng), "batch": batch}).replace(b"%", b"%%")
        for mark in (_ID, _AT, _VISITOR, _USER):
            text = text.replace(mark.encode(), b"%b")
        return text


_SEARCH: Final = {
    "type": "track",
    "eventCategory": "search",
    "eventAction": "search",
    "properties": {"term": "coolant", "results": 4},
}


def visitor_id(seed: int, number: int) -> bytes:
    """The anonymousId of a visitor, the same in every process."""
    return b"%08x-5e3d-4c1a-9f27-%012x" % (number * 2_654_435_761 & 0xFFFFFFFF, seed << 32 | number)


def _acts(rng: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        for act in acts(Scene(rng, None), False):
            yield {
                "type": "page" if act.category == "page" else "track",
                "eventCategory": act.category,
                "eventAction": act.action,
                "eventLabel": act.label,
                "value": act.value,
                "properties": {**act.properties, "position": rng.randrange(1, 400), "variant": rng.choice("ABC")},
            }


def _event(members: dict[str, Any], known: bool) -> dict[str, Any]:
    who = {"anonymousId": _VISITOR, **({"userId": _USER} if known else {})}
    return {"eventId": _ID, "timestamp": _AT, **who, **members}


def _context(rng: random.Random) -> dict[str, str]:
    path = rng.choice(("/manuals", "/search", "/vehicle", "/diagnosis/no-start", "/content/manual-77", "/parts"))
    return {
        "app": rng.choice(("workshop", "parts-shop", "academy")),
        "appVersion": f"4.{rng.randrange(12)}.0",
        "screenResolution": rng.choice(("1920x1080", "2560x1440", "390x844", "412x915")),
        "timezone": rng.choice(("Europe/Berlin", "Europe/Paris", "America/Chicago", "Asia/Tokyo", "Australia/Sydney")),
        "locale": rng.choice(("de-DE", "fr-FR", "en-US", "ja-JP")),
        "url": f"https://workshop.example{path}?utm_source=newsletter&utm_medium=email&utm_campaign=autumn-{rng.randrange(9)}",
        "path": path,
        "title": f"Workshop {path.strip('/').replace('/', ' ')}",
        "referrer": rng.choice(("https://www.google.com/", "https://news.example/service", "")),
        "userAgent": rng.choice(_DEVICES),
        "library": "headrace-browser",
        "libraryVersion": "0.1.0",
    }


def _mint(now: int, count: int, rng: random.Random) -> list[bytes]:
    """UUIDv7s, random as real ones are, since that is what they cost in memory and on disk."""
    at = b"%012x" % now
    head, tails = at[:8] + b"-" + at[8:] + b"-7", os.urandom(6 * count).hex().encode()
    middles = rng.choices(_MIDDLES, k=count)
    return [head + middle + tails[n : n + 12] for middle, n in zip(middles, range(0, 12 * count, 12), strict=True)]


def _times(now: int, count: int) -> list[bytes]:
    """The last `count` half seconds before `now`, in order."""
    second, milliseconds = divmod(now, 1000)
    tail = b".%03dZ" % milliseconds
    return [text + tail for text in _half_seconds(second, count)]


def _text(at: int) -> bytes:
    return _second(at // 1000) + b".%03dZ" % (at % 1000)


@lru_cache(maxsize=64)
def _half_seconds(second: int, count: int) -> list[bytes]:
    return [_second(second - (count - 1 - number) // 2) for number in range(count)]


@lru_cache(maxsize=4096)
def _second(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
