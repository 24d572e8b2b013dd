"""The event ids received lately: they tell a second copy of an event from a first without asking the store.

Times are ms since the epoch. A key is `event_key(company_id, event_id)`; what is held is its digest of 128 bits, which
two keys never share (see `schemas.digests`).
"""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence

from schemas.blocks import GENERATIONS
from schemas.digests import BUCKET_BITS, DIGEST_BYTES, bucket_of, find_digest, key_digest

_UUID7 = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")


class RecentIds:
    """Every key received at or after `since`, and some received before.

    Keys are added to generations, filled one after the other and dropped whole. What is dropped has to be looked up in
    the store, so `evict` may only be called when the store has every event that was added. It is what holds the
    number of keys to `limit`, so it is called after every block.
    """

    __slots__ = ("_buckets", "_generations", "_limit", "since")

    def __init__(self, since: int, limit: int) -> None:
        self.since = since
        self._limit = limit
        # Digests, those of one generation next to each other, in the order of `_generations`.
        self._buckets: dict[int, bytes] = {}
        self._generations = [_Generation(since - 1)]

    def __len__(self) -> int:
        """The number of keys held."""
        return sum(generation.size for generation in self._generations)

    def __iter__(self) -> Iterator[bytes]:
        """The digests held, in no order."""
        for bucket in self._buckets.values():
            for start in range(0, len(bucket), DIGEST_BYTES):
                yield bucket[start : start + DIGEST_BYTES]

    def seen(self, key: str) -> bool:
        """Whether the key is held: never true for one that was not added."""
        digest = key_digest(key)
        return find_digest(self._buckets.get(bucket_of(digest), b""), digest, DIGEST_BYTES) >= 0

    def covers(self, oldest: int) -> bool:
        """Whether every earlier copy of an event that is no older than `oldest` must be held."""
        return oldest >= self.since

    def add_all(self, keys: Sequence[str], received_at: int) -> Collection[int]:
        """Hold these keys; the answer is the places of those that were held, or stand further in front, already.

        Times may come out of order, also before `since`.
        """
        known: set[int] = set()
        buckets, newest = self._buckets, self._generations[-1]
        counts = newest.counts
        for at, digest in enumerate(map(key_digest, keys)):
            place = digest[0] << 6 | digest[1] >> 2  # as bucket_of, without a call
            bucket = buckets.get(place, b"")
            if digest in bucket and find_digest(bucket, digest, DIGEST_BYTES) >= 0:
                known.add(at)
            else:
                buckets[place] = bucket + digest
                counts[place] += 1
        newest.size += len(keys) - len(known)
        if received_at > newest.latest and len(known) < len(keys):
            newest.latest = received_at
        if newest.size * GENERATIONS >= self._limit:
            self._generations.append(_Generation(self.since - 1))
        return known

    def load(self, ids: Iterable[tuple[int, Iterable[bytes]]]) -> None:
        """Hold what a store knows, before anything is added: `RecentState.ids`, each time's a generation."""
        for latest, runs in ids:
            generation, buckets = _Generation(latest), self._buckets
            for run in runs:
                place = bucket_of(run)
                buckets[place] = buckets.get(place, b"") + run
                generation.counts[place] += len(run) // DIGEST_BYTES
            generation.size = sum(generation.counts)
            self._generations.insert(-1, generation)

    def evict(self, before: int) -> None:
        """Drop the generations received before `before`, and the oldest ones while more than `limit` keys are held.

        `since` rises past the latest key dropped, and no further.
        """
        newest = self._generations[-1]
        for generation in sorted(self._generations, key=_latest):
            if generation.latest >= before and len(self) <= self._limit:
                break
            self._drop(generation)
        if newest not in self._generations:
            self._generations.append(_Generation(self.since - 1))

    def _drop(self, generation: "_Generation") -> None:
        """Cut the generation out of every bucket: it lies behind those that were begun before it."""
        older = self._generations[: self._generations.index(generation)]
        for place, count in enumerate(generation.counts):
            if count:
                start = DIGEST_BYTES * sum(other.counts[place] for other in older)
                bucket = self._buckets[place]
                self._buckets[place] = bucket[:start] + bucket[start + DIGEST_BYTES * count :]
        self._generations.remove(generation)
        self.since = max(self.since, generation.latest + 1)


class Coverage:
    """Whether every earlier copy of an event must have been received at or after `since`, as most events say at once.

    The first digits of a UUIDv7 are its time, and text of one length is in the order of the numbers that it writes in
    hexadecimal; capital letters come before small ones, so they only look older than they are.
    """

    __slots__ = ("_minted", "_since")

    def __init__(self, since: int) -> None:
        self._since = since
        digits = f"{max(since, 0):012x}"
        self._minted = f"{digits[:8]}-{digits[8:]}"

    def holds(self, timestamp_raw: int, timestamp_corrected: int, event_id: str, received_at: int) -> bool:
        """The same as `oldest_time(...) >= since`."""
        since = self._since
        return (
            since <= timestamp_raw < received_at
            and timestamp_corrected >= since
            and (event_id[:13] >= self._minted or event_id[14:15] != "7")
        ) or oldest_time(timestamp_raw, timestamp_corrected, event_id, received_at) >= since

    def holds_all(self, raw: Iterable[int], corrected: Iterable[int], ids: Iterable[str], received_at: int) -> bool:
        """Whether it surely holds for each of several events, of which there is at least one."""
        since = self._since
        return (
            since <= min(raw) and max(raw) < received_at and min(corrected) >= since and min(ids)[:13] >= self._minted
        )


class _Generation:
    """How many keys it has in each bucket and in all, and a time that none of them was received after."""

    __slots__ = ("counts", "latest", "size")

    def __init__(self, latest: int) -> None:
        self.counts = array("I", bytes(4 << BUCKET_BITS))
        self.latest = latest
        self.size = 0


def oldest_time(timestamp_raw: int, timestamp_corrected: int, event_id: str, received_at: int) -> int:
    """The earliest time at which a copy of this event may have been received; 0 where nothing is known about it.

    An event that came without a timestamp has `received_at` for one, and a copy sent again has a later one: only a
    UUIDv7 id (RFC 9562) then tells when the event was made. A timestamp later than `received_at` comes from a clock
    that tells nothing.
    """
    minted = _uuid7_time(event_id)
    if timestamp_raw == received_at:
        return minted if minted is not None and minted <= received_at else 0
    if timestamp_raw > received_at:
        return 0
    oldest = min(timestamp_raw, timestamp_corrected)
    return oldest if minted is None else min(oldest, minted)


def _uuid7_time(event_id: str) -> int | None:
    if event_id[14:15] != "7" or not _UUID7.fullmatch(event_id):
        return None
    return int(event_id[:8] + event_id[9:13], 16)


def _latest(generation: _Generation) -> int:
    return generation.latest
