"""Believable traffic of the whole vocabulary: a pure function of a seed, for which is known what has to become of it."""

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from headrace.traffic_sessions import browse, plan_sessions
from schemas.reasons import Reason

SERVER: Final = "server"
#: Of the events sent.
DUPLICATES: Final = 0.01
BAD: Final = 0.005
_LATE: Final = 0.01


class Fate(StrEnum):
    """What becomes of an event that arrives."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    REJECTED = "rejected"


class SentItem(NamedTuple):
    """An event to send, by whom, and its fate; `fault` is what is wrong with a bad one, `bot` who leaves no trace in
    the rollups."""

    event: dict[str, Any]
    sender: str
    bot: bool
    fate: Fate = Fate.STORED
    fault: str = ""
    reason: Reason | None = None


def generate(seed: int, events: int, visitors: int, now: int, days: float = 7.0) -> Iterator[SentItem]:
    """Exactly `events` items of about `visitors` visitors, over the `days` before `now` (ms since the epoch).

    They come session by session, in the order in which sessions begin, but for late ones: a client that was offline.
    Duplicates are second copies of an event, right after it or much later. The same arguments give the same items.
    """
    rng = random.Random(seed)
    duplicates, bad = round(events * DUPLICATES), round(events * BAD)
    originals = events - duplicates - bad
    sessions = plan_sessions(originals, visitors, now, days, rng)
    items = (SentItem(event, sender, bot) for event, sender, bot in browse(sessions, now, rng))
    spoiled = _with_bad_ones(items, originals, bad, rng)
    return _disturbed(spoiled, originals, duplicates, rng)
