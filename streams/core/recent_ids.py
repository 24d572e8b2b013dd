"""The event ids received lately: they tell a second copy of an event from a first without asking the store.

Times are ms since the epoch. A key is `event_key(company_id, event_id)`; what is held is its digest of 128 bits, which
two keys never share (see `schemas.digests`).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain
from operator import or_

from schemas.blocks import GENERATIONS
from schemas.digests import DigestSet, Mask, digest_keys, other_places

_UUID7 = re.compile("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")


class RecentIds:
    """Every key received at or after `since`, and some received before.

    Keys are added to generations, filled one after the other and dropped whole. What is dropped has to be looked up in
    the store, so `evict` may only be called when the store has every event that was added. It is what holds the
    number of keys to `limit`, so it is called every few seconds.
    """

    __slots__ = ("_generations", "_limit", "since")

    def __init__(self, since: int, limit: int) -> None:
        self.since = since
        self._limit = limit
        self._generations = [_Generation(since - 1)]

    def __len__(self) -> int:
        """The number of keys held."""
        return sum(len(generation.digests) for generation in self._generations)

    def __iter__(self) -> Iterator[bytes]:
        """The digests held, in no order."""
        return chain.from_iterable(generation.digests for generation in self._generations)

    def held(self, keys: Sequence[str]) -> Collection[str]:
        """Those of the keys that are held: never one that was not added."""
        asked, places = DigestSet.with_places(digest_keys(keys))
        return {keys[place] for place in places[self._holds(asked)].tolist()}

    def covers(self, oldest: int) -> bool:
        """Whether every earlier copy of an event that is no older than `oldest` must be held."""
        return oldest >= self.since

    def add_all(self, keys: Sequence[str], received_at: int) -> Sequence[int]:
        """Hold these keys, none of which was received after `received_at`, which may come before earlier ones.

        The answer is the places, in their order, of those that were held, or stand further in front, already.
        """
        asked, places = DigestSet.with_places(digest_keys(keys))
        held, newest = self._holds(asked), self._generations[-1]
        if held.all():
            return range(len(keys))
        newest.digests = newest.digests.joined(asked.without(held))
        newest.latest = max(newest.latest, received_at)
        if len(newest.digests) * GENERATIONS >= self._limit:
            self._generations.append(_Generation(self.since - 1))
        return other_places(places[~held], len(keys))

    def load(self, ids: Iterable[tuple[int, Iterable[bytes]]]) -> None:
        """Hold what a store knows, before anything is added: `RecentState.ids`, each time's a generation."""
        for latest, runs in ids:
            self._generations.insert(-1, _Generation(latest, DigestSet.of(b"".join(runs))))

    def evict(self, before: int) -> None:
        """Drop the generations received before `before`, and the oldest ones while more than `limit` keys are held.

        `since` rises past the latest key dropped, and no further.
        """
        newest = self._generations[-1]
        for generation in sorted(self._generations, key=_latest):
            if generation.latest >= before and len(self) <= self._limit:
                break
            self._generations.remove(generation)
            self.since = max(self.since, generation.latest + 1)
        if newest not in self._generations:
            self._generations.append(_Generation(self.since - 1))

    def _holds(self, asked: DigestSet) -> Mask:
        return reduce(or_, (generation.digests.holds(asked) for generation in self._generations))


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

    def holes(
        self, raw: Sequence[int], corrected: Sequence[int], ids: Sequence[str], received_at: int
    ) -> Iterator[int]:
        """The places of those of several events for which it does not hold: `oldest_time(...) < since`."""
        since, minted = self._since, self._minted
        if min(ids)[:13] >= minted and max(raw) < received_at:  # nearly always; then it is what is late
            pairs = zip(raw, corrected, strict=True)
            yield from [place for place, (sent, at) in enumerate(pairs) if sent < since or at < since]
            return
        for place, (sent, at, event_id) in enumerate(zip(raw, corrected, ids, strict=True)):
            if since <= sent < received_at and at >= since and (event_id[:13] >= minted or event_id[14:15] != "7"):
                continue
            if oldest_time(sent, at, event_id, received_at) < since:
                yield place

    def holds_all(self, raw: Iterable[int], corrected: Iterable[int], ids: Iterable[str], received_at: int) -> bool:
        """Whether it surely holds for each of several events, of which there is at least one."""
        since = self._since
        return (
            since <= min(raw) and max(raw) < received_at and min(corrected) >= since and min(ids)[:13] >= self._minted
        )


class _Generation:
    """Keys, and a time that none of them was received after."""

    __slots__ = ("digests", "latest")

    def __init__(self, latest: int, digests: DigestSet | None = None) -> None:
        self.latest = latest
        self.digests = DigestSet.of() if digests is None else digests


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
