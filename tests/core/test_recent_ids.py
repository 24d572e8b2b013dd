"""A second copy is never taken for a first, nor a first for a second, as far back as `since` says."""

from collections.abc import Iterator
from itertools import count, islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.digests import DigestSet, bucket_of, key_digest
from schemas.identifiers import event_key
from streams.core.recent_ids import Coverage, RecentIds, oldest_time

unhurried = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

# Of four buckets, so that keys of several generations lie in one.
KEYS = list(islice((key for key in (f"acme\0{n}" for n in count()) if bucket_of(key_digest(key)) % 4096 == 0), 40))
START = 1000
NOW = 1_764_100_000_000
V7 = "019ab6f0-0800-7abc-8def-0123456789ab"
V7_TIME = 0x019AB6F00800

# A step is (key number, delay of its receipt, evict after it?, how far back to keep); each step is a tick of the clock.
steps_of = st.lists(
    st.tuples(st.integers(0, 29), st.integers(-6, 6), st.booleans(), st.integers(0, 40)),
    max_size=60,
)


def seen(ids: RecentIds, key: str) -> bool:
    return key in ids.held([key])


def add_new(ids: RecentIds, key: str, received_at: int) -> bool:
    return not ids.add_all([key], received_at)


def run(ids: RecentIds, steps: list[tuple[int, int, bool, int]]) -> Iterator[dict[str, int]]:
    """Take the steps; after each, the latest time at which every key so far was added."""
    added: dict[str, int] = {}
    for tick, (number, jitter, evicts, window) in enumerate(steps):
        key, received_at = KEYS[number], START + tick + jitter
        if add_new(ids, key, received_at):
            added[key] = max(received_at, added.get(key, received_at))
        if evicts:
            ids.evict(START + tick - window)
        yield added


@unhurried
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=8), st.integers(-6, 6)), max_size=20))
def test_keys_added_together_are_held_as_if_one_came_after_the_other(batches: list[tuple[list[int], int]]) -> None:
    together, singly = RecentIds(START, 10_000), RecentIds(START, 10_000)
    for tick, (numbers, jitter) in enumerate(batches):
        keys, at = [KEYS[number] for number in numbers], START + tick + jitter
        known = [place for place, key in enumerate(keys) if not add_new(singly, key, at)]
        assert sorted(together.add_all(keys, at)) == known
    for each in (together, singly):
        each.evict(START + 10)
    assert (sorted(together), together.since) == (sorted(singly), singly.since)


@unhurried
@given(steps_of, st.integers(0, 40))
def test_a_key_added_at_or_after_since_is_never_new(steps: list[tuple[int, int, bool, int]], limit: int) -> None:
    ids = RecentIds(START - 10, limit)
    for added in run(ids, steps):
        assert [key for key, at in added.items() if ids.covers(at) and not seen(ids, key)] == []


@unhurried
@given(
    st.lists(st.tuples(st.integers(0, 29), st.integers(-20, 0)), max_size=40, unique_by=lambda pair: pair[0]),
    steps_of,
    st.integers(0, 40),
)
def test_keys_loaded_at_once_are_held_like_those_added_one_by_one(
    loaded: list[tuple[int, int]], steps: list[tuple[int, int, bool, int]], limit: int
) -> None:
    ids, loaded = RecentIds(START - 30, limit), sorted(loaded, key=lambda pair: pair[1])
    ids.load((START + back, [key_digest(KEYS[number])]) for number, back in loaded)
    before = {KEYS[number]: START + back for number, back in loaded}
    assert len(ids) == len(before)
    for added in run(ids, steps):
        held = {key: max(at, added.get(key, at)) for key, at in before.items()} | added
        assert [key for key, at in held.items() if ids.covers(at) and not seen(ids, key)] == []


@unhurried
@given(steps_of, st.integers(0, 40))
def test_a_key_never_added_is_never_seen(steps: list[tuple[int, int, bool, int]], limit: int) -> None:
    ids = RecentIds(START - 10, limit)
    for added in run(ids, steps):
        assert [key for key in KEYS if key not in added and seen(ids, key)] == []


@unhurried
@given(steps_of, st.integers(0, 40))
def test_no_key_is_lost_between_evictions(steps: list[tuple[int, int, bool, int]], limit: int) -> None:
    ids = RecentIds(START - 10, limit)
    for added in run(ids, [(number, jitter, False, 0) for number, jitter, _, _ in steps]):
        assert all(seen(ids, key) for key in added)


@unhurried
@given(steps_of)
def test_since_rises_to_what_eviction_asks_and_no_further(steps: list[tuple[int, int, bool, int]]) -> None:
    ids, asked, last = RecentIds(START - 10, 1000), START - 10, START - 10
    for tick, _ in enumerate(run(ids, steps)):
        _, _, evicts, window = steps[tick]
        asked = max(asked, START + tick - window) if evicts else asked
        assert last <= ids.since <= asked
        last = ids.since


@unhurried
@given(steps_of, st.integers(0, 40))
def test_an_eviction_leaves_no_more_than_the_limit(steps: list[tuple[int, int, bool, int]], limit: int) -> None:
    ids = RecentIds(START - 10, limit)
    for tick, _ in enumerate(run(ids, steps)):
        if steps[tick][2]:
            assert len(ids) <= limit


def test_dropping_by_the_limit_takes_the_oldest_share_and_keeps_the_rest() -> None:
    ids = RecentIds(START, limit=80)
    for number in range(81):
        add_new(ids, str(number), START + number)
    ids.evict(START)
    assert (len(ids), ids.since) == (71, START + 10)
    assert not seen(ids, "9")
    assert seen(ids, "10")
    assert ids.covers(START + 10)
    assert not ids.covers(START + 9)


def test_a_collector_whose_clock_is_ahead_does_not_end_the_memory_of_the_others() -> None:
    ids = RecentIds(START, limit=80)
    add_new(ids, "ahead", START + 1_000_000)
    for number in range(100):
        add_new(ids, str(number), START + number)
        ids.evict(START)
    assert ids.since < START + 100


def test_eviction_of_everything_leaves_a_working_memory() -> None:
    ids = RecentIds(START, limit=80)
    add_new(ids, "a", START + 5)
    ids.evict(START + 50)
    assert (len(ids), ids.since, seen(ids, "a")) == (0, START + 6, False)
    add_new(ids, "a", START + 60)
    assert seen(ids, "a")


def test_the_same_event_id_of_two_tenants_is_two_events() -> None:
    assert event_key("acme", "1") != event_key("globex", "1")


@pytest.mark.parametrize(
    ("raw", "corrected", "event_id", "oldest"),
    [
        (NOW - 5, NOW - 9, "order-1", NOW - 9),
        (NOW - 9, NOW - 5, "order-1", NOW - 9),
        (NOW + 1, NOW - 5, "order-1", 0),
        (NOW - 5, NOW - 9, V7, V7_TIME),
        (NOW - 5, NOW - 9, V7.upper(), V7_TIME),
        (V7_TIME - 3, V7_TIME - 2, V7, V7_TIME - 3),
        (NOW - 5, NOW - 5, V7.replace("-7", "-4"), NOW - 5),
        (NOW - 5, NOW - 5, V7.replace("-8", "-c"), NOW - 5),
        (NOW - 5, NOW - 5, V7 + "0", NOW - 5),
        (NOW - 5, NOW - 5, V7.replace("019a", "01_a"), NOW - 5),
        (NOW, NOW, "order-1", 0),
        (NOW, NOW, V7, V7_TIME),
        (NOW, NOW, "0fffffff-ffff-7abc-8def-0123456789ab", 0),
    ],
)
def test_the_oldest_time_trusts_no_clock_that_is_ahead_and_no_time_of_receipt(
    raw: int, corrected: int, event_id: str, oldest: int
) -> None:
    assert oldest_time(raw, corrected, event_id, received_at=NOW) == oldest


MOMENTS = st.integers(NOW - 3, NOW + 3)
IDS = st.one_of(
    st.builds(
        lambda at, version, case: case(f"{at >> 16:08x}-{at & 0xFFFF:04x}-{version}abc-8def-0123456789ab"),
        MOMENTS | st.integers(0, 2**48 - 1),
        st.sampled_from("47"),
        st.sampled_from((str.lower, str.upper)),
    ),
    st.sampled_from(("", "e-1", "zzzzzzzzzzzzzz7", V7[:-1], f"{V7}0")),
)


@unhurried
@given(
    MOMENTS | st.integers(-5, 5),
    st.lists(st.tuples(MOMENTS, MOMENTS, IDS), min_size=1, max_size=5),
    MOMENTS,
)
def test_what_is_covered_at_once_is_covered_by_the_oldest_time(
    since: int, events: list[tuple[int, int, str]], received_at: int
) -> None:
    raw, corrected, ids = map(list, zip(*events, strict=True))
    holes = list(Coverage(since).holes(raw, corrected, ids, received_at))
    assert holes == [place for place, event in enumerate(events) if oldest_time(*event, received_at) < since]
    if Coverage(since).holds_all(raw, corrected, ids, received_at):
        assert holes == []


def test_a_key_held_already_is_not_new_and_changes_nothing() -> None:
    ids = RecentIds(START, 40)
    assert add_new(ids, KEYS[0], START + 1)
    assert not add_new(ids, KEYS[0], START + 100)
    ids.evict(START + 2)
    assert (len(ids), ids.since) == (0, START + 2)


HALVES = st.sampled_from((b"\0" * 8, b"\0" * 7 + b"\1", b"\x80" + b"\0" * 7, b"\xff" * 8))
DIGESTS = st.builds(bytes.__add__, HALVES, HALVES)


@unhurried
@given(st.lists(DIGESTS, max_size=12), st.lists(DIGESTS, max_size=12))
def test_a_set_of_digests_is_a_set_also_where_halves_are_alike(first: list[bytes], second: list[bytes]) -> None:
    held = DigestSet.of(b"".join(first))
    asked, places = DigestSet.with_places(b"".join(second))
    assert (list(held), list(asked)) == (sorted(set(first)), sorted(set(second)))
    assert [second.index(digest) for digest in asked] == places.tolist()
    mask = held.holds(asked)
    assert mask.tolist() == [digest in first for digest in asked]
    joined = held.joined(asked.without(mask))
    assert sorted(joined) == sorted({*first, *second})
    assert joined.holds(asked).all()
