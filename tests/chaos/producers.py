"""Producers like a real client: they send the same bytes again until they are told, and note every verdict."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import orjson

from headrace.traffic import Fate, SentItem, generate

BATCH = 20
_THREADS = 4
_VISITORS = 600
_DAYS = 40.0
"""Of traffic, so that the events of a block lie in two or three calendar months."""


@dataclass(slots=True)
class Record:
    """What the producers know. Every event is named by its eventId; `posts` counts how often each went out."""

    items: dict[str, SentItem] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    sent: int = 0
    unexpected: list[str] = field(default_factory=list)

    def note(self, batch: list[SentItem], posts: int, results: list[dict[str, str]]) -> None:
        """The verdicts of a batch, which was posted so many times."""
        for item, result in zip(batch, results, strict=True):
            event_id = item.event["eventId"]
            self.sent += 1
            self.items.setdefault(event_id, item)
            self.posts[event_id] += posts
            refused = result["status"] != "accepted"
            (self.rejected if refused else self.accepted).add(event_id)
            if refused != (item.fate is Fate.REJECTED) or result["eventId"] != event_id:
                self.unexpected.append(f"{event_id}: {result}, made to be {item.fate}")


class Producers:
    """Send traffic of a seed at `rate` events a second to `port` of 127.0.0.1 until `stop`."""

    def __init__(self, seed: int, rate: float, most: int, port: int, write_key: str) -> None:
        self.record = Record()
        self._items = generate(seed, most, _VISITORS, time.time_ns() // 1_000_000, _DAYS)
        self._interval = BATCH / rate
        self._url, self._key = f"http://127.0.0.1:{port}/v1/batch", write_key
        self._lock = threading.Lock()
        self._recent: list[str] = []
        self._stopping = threading.Event()
        self._due = 0.0
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(_THREADS)]

    def start(self) -> None:
        """Begin to send."""
        self._due = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Send nothing new; wait until what is on its way has its verdict. Fails when that takes longer."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        assert not any(thread.is_alive() for thread in self._threads), "A producer was never told."

    @property
    def latest(self) -> list[str]:
        """The last events that were accepted."""
        with self._lock:
            return list(self._recent)

    def _send(self) -> None:
        with httpx.Client(timeout=10.0) as client:
            for batch in self._batches():
                results, posts = _post_until_told(client, self._url, self._key, batch)
                with self._lock:
                    self.record.note(batch, posts, results)
                    taken = [result["eventId"] for result in results if result["status"] == "accepted"]
                    self._recent = [*self._recent, *taken][-20 * BATCH :]

    def _batches(self) -> Iterator[list[SentItem]]:
        """This thread's share, in time."""
        while not self._stopping.is_set():
            with self._lock:
                batch = list(itertools.islice(self._items, BATCH))
                # After an outage, go on at the rate: what was not sent is not caught up.
                due = self._due = max(self._due + self._interval, time.monotonic() - 1.0)
            if not batch or self._stopping.wait(max(due - time.monotonic(), 0.0)):
                return
            yield batch


def _post_until_told(
    client: httpx.Client, url: str, key: str, batch: list[SentItem]
) -> tuple[list[dict[str, str]], int]:
    """The verdicts, and how often it was posted."""
    body = orjson.dumps({"batch": [item.event for item in batch]})
    headers = {"content-type": "application/json"}
    for posts in itertools.count(1):
        try:
            answer = client.post(url, content=body, headers=headers, auth=(key, ""))
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code == 200:
            results: list[dict[str, str]] = answer.json()["results"]
            return results, posts
        assert answer.status_code in (429, 503), f"{answer.status_code}: {answer.text}"
        time.sleep(min(float(answer.headers.get("Retry-After", 0.2)), 1.0))
    raise AssertionError("unreachable")
