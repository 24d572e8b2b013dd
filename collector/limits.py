"""The collector's fixed limits, and the rate limit of a tenant. Sizes are bytes unless they say otherwise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_HEAD: Final = 64 << 10  # request line and headers; what came of the body with them counts until they are read
MAX_BODY: Final = 1 << 20  # as sent
MAX_INFLATED: Final = 10 << 20
MAX_GZIP_MEMBERS: Final = 100
MAX_EVENTS: Final = 1_000
MAX_PROPERTIES: Final = 32 << 10  # of one event, as compact JSON
MAX_CONTEXT_TEXT: Final = 2_048  # characters; longer ones are cut
MAX_RAW_LETTER: Final = 64 << 10  # of a body that could not be read, in its dead letter
MAX_EVENT_LETTER: Final = 512 << 10  # of a rejected event, in its dead letter

#: Characters of one record on the log. Brokers take records of 1 MiB by default, and a character is up to 4 bytes.
MAX_RECORD_TEXT: Final = 192 << 10

BURST_SECONDS: Final = 2


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """A token bucket for each tenant, filled with `rate` events a second and holding two seconds' worth.

    Each process has its own. `clock` is in seconds and never steps back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, company_id: str, rate: int | None, events: int) -> int:
        """Take `events` tokens: 0 when they were there, else the whole seconds after which they will be.

        A request of more events than the bucket holds passes when the bucket is full and leaves it in debt: it could
        never pass otherwise.
        """
        if rate is None:
            return 0
        now, capacity = self._clock(), rate * BURST_SECONDS
        bucket = self._buckets.setdefault(company_id, _Bucket(capacity, now))
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        missing = min(events, capacity) - bucket.tokens
        if missing > 0:
            return math.ceil(missing / rate)
        bucket.tokens -= events
        return 0
