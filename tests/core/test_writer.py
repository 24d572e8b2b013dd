"""A partition's writer over the warehouse in memory: crashes at every step, redelivery, late events."""

import asyncio
import contextlib
import dataclasses
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streams.writer
from schemas.blocks import Accounts, Block, BlockRows, Claim, Found, Lookup, Partition, StoreUnavailable
from schemas.codec import Codec
from schemas.context import CONTEXT_FIELDS
from schemas.records import CollectedEvent, CollectedRecord, DeadLetter
from schemas.stages import LogRecord
from schemas.tenants import Tenant
from streams.core.enrich import UserAgent
from streams.core.redact import DEFAULT_POLICY
from streams.core.sessions import recompute
from streams.core.validate import Rules
from streams.pipeline import Pipeline
from streams.prepared import Prepared
from streams.writer import Memory, PartitionWriter, Parts, Pending
from warehouse.memory import MemoryWarehouse

MINUTE = 60_000
HOUR = 60 * MINUTE
GAP = 30 * MINUTE
NOW = 1_790_000_000_000
PARTITION = Partition("log", "events.collected", 0)
CODEC = Codec()
PIPELINE = Pipeline(CODEC, DEFAULT_POLICY, lambda _: UserAgent(), lambda _: "", GAP)


BAD = {"eventCategory": "search", "eventAction": "search", "properties": '{"term":"oil","results":"many"}'}
FIXED = {**BAD, "properties": '{"term":"oil","results":3}'}


class Letters:
    """A log of dead letters in a list."""

    def __init__(self) -> None:
        self.sent: list[DeadLetter] = []

    async def send(self, letters: Iterable[DeadLetter]) -> None:
        self.sent.extend(letters)

    async def close(self) -> None:
        return


class Killed(Exception):
    """The worker dies here."""


class FragileWarehouse(MemoryWarehouse):
    """Dies, or is away, before or after the step that `fuse` names, once; takes `seconds` to write a block."""

    fuse: str = ""
    seconds: float = 0

    def _burn(self, step: str) -> None:
        if self.fuse == step:
            self.fuse = ""
            raise Killed(step)
        if self.fuse == f"away {step}":
            self.fuse = ""
            raise StoreUnavailable(step)

    def claim(self, wanted: Block, worker: str) -> Claim:
        self._burn("before claim")
        claim = super().claim(wanted, worker)
        self._burn("after claim")
        return claim

    def insert_events(self, token: str, events: list[tuple[object, ...]]) -> None:
        self._burn("before insert")
        super().insert_events(token, events)
        self._burn("after insert")

    def write(self, block: Block, rows: BlockRows) -> None:
        super().write(block, rows)
        time.sleep(self.seconds)
        self._burn("after write")

    def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
        super().finish(block, accounts, worker)
        self._burn("after finish")


class AskedWarehouse(MemoryWarehouse):
    """Notes how many ids, visitors and rejected events it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, int]] = []

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:
        self.asked.append((len(asked.ids), len(asked.spans), len(asked.rejected)))
        return super().lookup(partition, position, asked)


STEPS = ("before claim", "after claim", "before insert", "after insert", "after write", "after finish")


def collected_event(event_id: str, at: int, **fields: object) -> CollectedEvent:
    event: CollectedEvent = {
        "eventId": event_id,
        "timestamp": at,
        "type": "track",
        "userId": "",
        "previousId": "",
        "eventCategory": "ui",
        "eventAction": "opened",
        "eventLabel": "",
        "value": None,
        "properties": "{}",
        "context": {},
    }
    return {**event, **fields}  # type: ignore[typeddict-item]


def log_record(
    offset: int, visitor: str, events: list[CollectedEvent], journal: str = "", sequence: int = 0, received: int = NOW
) -> LogRecord:
    record: CollectedRecord = {
        "companyId": "acme",
        "anonymousId": visitor,
        "receivedAt": received,
        "sentAt": None,
        "journal": journal,
        "sequence": sequence,
        "context": dict.fromkeys(CONTEXT_FIELDS, ""),
        "events": events,
    }
    return LogRecord(offset, f"acme:{visitor}".encode(), CODEC.encode_collected(record))


def new_parts(warehouse: MemoryWarehouse, letters: Letters, *, ids_ms: int = 3_600_000) -> Parts:
    return Parts(
        blocks=warehouse,
        states=warehouse,
        orphans=warehouse,
        letters=letters,
        pipeline=PIPELINE,
        rules=lambda: Rules({"acme": Tenant(company_id="acme")}, 24),
        clock=lambda: NOW,
        worker="w",
        memory=Memory(ids_ms, 1_000_000, 2 * 3_600_000, GAP),
        linger=0.001,
        max_bytes=1_000_000,
    )


async def deliver(
    parts: Parts,
    log: list[LogRecord],
    block_sizes: Iterable[int],
    partition: Partition = PARTITION,
    partitions: int = 1,
) -> list[int]:
    """Open the partition, write the log's rest in blocks of these sizes; returns the offsets acknowledged."""
    writer = PartitionWriter(partition, partitions, parts, remembers=True)
    position = await writer.open()
    acknowledged: list[int] = []
    rest = [record for record in log if record.offset >= position]
    sizes = iter(block_sizes)
    while rest:
        size = next(sizes, len(rest))
        taken, rest = rest[:size], rest[size:]
        for record in taken:
            writer.put([Pending(record, 0.0, partial(acknowledged.append, record.offset))])
        await writer.write_rest()
    await writer.write_rest()
    return acknowledged


async def stream(parts: Parts, log: Sequence[LogRecord], *, upto: int | None = None) -> int:
    """Open the partition and feed its writer the log's rest as it has room; how many blocks were settled in advance.

    The partition is revoked once `upto` (by default all) is stored.
    """
    writer, ahead = PartitionWriter(PARTITION, 1, parts, remembers=True), set[int]()
    rest = deque(log[await writer.open() :])
    running = asyncio.create_task(writer.run())
    end = len(log) if upto is None else upto
    while writer.position < end and not running.done():
        if rest and writer.has_room:
            writer.put([Pending(rest.popleft(), 0.0, None)])
        if writer._next:
            ahead.add(writer._next.end)
        await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(running, return_exceptions=True)
    if running.exception() is None:
        await writer.write_rest()
    await writer.end()
    await running
    return len(ahead)


def stored_ids(warehouse: MemoryWarehouse) -> Counter[str]:
    return Counter(row[0] for row in warehouse.events)


def assert_exact(warehouse: MemoryWarehouse, expected_ids: set[str]) -> None:
    """Every id once, the ledger adds up, sessions are those of a recomputation."""
    assert stored_ids(warehouse) == Counter(expected_ids)
    assert sum(accounts.stored for _, accounts in warehouse.ledger) == len(expected_ids)
    position = 0
    for block, _ in sorted(warehouse.ledger, key=lambda entry: entry[0].start):
        assert block.start == position, "the ledger has a gap or an overlap"
        position = block.end
    for events in warehouse.visitors().values():
        spans: dict[str, list[int]] = {}
        for at, session in events:
            spans.setdefault(session, []).append(at)
        found = sorted((min(times), max(times), len(times)) for times in spans.values())
        assert found == recompute([at for at, _ in events], GAP)


def random_log(seed: int, records: int) -> tuple[list[LogRecord], set[str], int]:
    """Records of three visitors with late, duplicate and month-crossing events; the distinct ids, and the copies."""
    rng = random.Random(seed)
    log: list[LogRecord] = []
    sent: list[tuple[str, CollectedEvent]] = []
    copies = 0
    for offset in range(records):
        visitor = rng.choice("abc")
        received = NOW - (records - offset) * MINUTE
        events = []
        for number in range(rng.randint(1, 4)):
            mine = [event for owner, event in sent if owner == visitor]
            if mine and rng.random() < 0.25:
                events.append(rng.choice(mine))
                copies += 1
                continue
            age = rng.choice((0, 10, 40, 100, 600, 60_000)) * MINUTE
            event = collected_event(f"{offset}-{number}", received - age - rng.randrange(50) * MINUTE)
            sent.append((visitor, event))
            events.append(event)
        log.append(log_record(offset, visitor, events, received=received))
    return log, {event["eventId"] for _, event in sent}, copies


@pytest.mark.parametrize("step", STEPS)
async def test_a_worker_killed_at_any_step_of_a_block_loses_and_doubles_nothing(step: str) -> None:
    log, ids, copies = random_log(seed=1, records=60)
    for nth_block in range(3):
        warehouse, letters = FragileWarehouse(), Letters()
        parts = new_parts(warehouse, letters)
        await deliver(parts, log[: 15 * nth_block], [])
        warehouse.fuse = step
        with pytest.raises(Killed):
            await deliver(parts, log[:50], [15, 15, 15, 15])
        await deliver(parts, log, [7, 13])
        assert_exact(warehouse, ids)
        assert sum(accounts.duplicate for _, accounts in warehouse.ledger) == copies


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    deaths=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 30)), max_size=4),
    sizes=st.lists(st.integers(1, 12), max_size=8),
)
def test_any_sequence_of_deaths_and_block_sizes_stores_every_event_once(
    seed: int, deaths: list[tuple[str, int]], sizes: list[int]
) -> None:
    log, ids, copies = random_log(seed, records=40)

    async def run() -> FragileWarehouse:
        warehouse = FragileWarehouse()
        parts = new_parts(warehouse, Letters(), ids_ms=10 * MINUTE)
        for step, upto in deaths:
            warehouse.fuse = step
            try:
                await deliver(parts, log[:upto], sizes)
            except Killed:
                continue
        warehouse.fuse = ""
        await deliver(parts, log, sizes)
        return warehouse

    warehouse = asyncio.run(run())
    assert_exact(warehouse, ids)
    assert sum(accounts.duplicate for _, accounts in warehouse.ledger) == copies


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    faults=st.lists(
        st.tuples(st.sampled_from(("", *STEPS, *(f"away {step}" for step in STEPS))), st.integers(1, 40)), max_size=5
    ),
    block=st.integers(1, 6),
    evict_seconds=st.sampled_from((0.0, 0.004, 10.0)),
)
def test_blocks_settled_in_advance_store_every_event_once_whatever_goes_wrong(
    seed: int, faults: list[tuple[str, int]], block: int, evict_seconds: float
) -> None:
    log, ids, copies = random_log(seed, records=40)

    async def run() -> FragileWarehouse:
        warehouse = FragileWarehouse()
        warehouse.seconds = 0.001
        parts = new_parts(warehouse, Letters(), ids_ms=10 * MINUTE)
        memory = dataclasses.replace(parts.memory, id_limit=20)
        parts = dataclasses.replace(parts, max_bytes=block * 400, memory=memory)
        for fault, upto in faults:
            warehouse.fuse = fault
            with contextlib.suppress(Killed):
                await stream(parts, log, upto=upto)
        warehouse.fuse = ""
        await stream(parts, log)
        return warehouse

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams.writer, "_RETRY_SECONDS", (0.001,))
        patch.setattr(streams.writer, "_EVICT_SECONDS", evict_seconds)
        warehouse = asyncio.run(run())
    assert_exact(warehouse, ids)
    assert sum(accounts.duplicate for _, accounts in warehouse.ledger) == copies


async def test_two_workers_that_both_own_a_partition_and_settle_in_advance_store_every_event_once() -> None:
    ahead = 0
    for seed in range(20):
        log, ids, copies = random_log(seed, records=40)
        warehouse = FragileWarehouse()
        warehouse.seconds = 0.002
        parts = new_parts(warehouse, Letters(), ids_ms=10 * MINUTE)
        ahead += sum(
            await asyncio.gather(
                *(stream(dataclasses.replace(parts, max_bytes=size), log) for size in (900, 2_100)),
            )
        )
        assert_exact(warehouse, ids)
        assert sum(accounts.duplicate for _, accounts in warehouse.ledger) == copies
    assert ahead > 20


async def test_a_zombie_that_wakes_up_writes_nothing_and_goes_on_from_the_ledger() -> None:
    log, ids, _ = random_log(seed=2, records=30)
    warehouse = MemoryWarehouse()
    parts = new_parts(warehouse, Letters())
    zombie = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await zombie.open()
    acknowledged: list[int] = []
    for record in log[:10]:
        zombie.put([Pending(record, 0.0, partial(acknowledged.append, record.offset))])
    await deliver(parts, log, [6, 6])
    before = list(warehouse.events)
    await zombie.write_rest()
    await zombie.write_rest()
    assert warehouse.events == before
    assert zombie.position == 30
    assert acknowledged == list(range(10))
    assert_exact(warehouse, ids)


async def test_a_block_that_is_full_is_written_though_its_first_record_may_wait_for_an_hour() -> None:
    log, _, _ = random_log(seed=4, records=40)
    warehouse = MemoryWarehouse()
    size = sum(len(record.value or b"") for record in log)
    parts = dataclasses.replace(new_parts(warehouse, Letters()), linger=3600, max_bytes=size)
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    running = asyncio.create_task(writer.run())
    stored = asyncio.Event()
    for record in log:
        writer.put([Pending(record, 0.0, stored.set if record is log[-1] else None)])
        await asyncio.sleep(0)
    await asyncio.wait_for(stored.wait(), 60)
    await writer.close()
    await running
    assert [block.end for block, _ in warehouse.ledger] == [40]


async def test_what_came_while_a_block_was_written_does_not_wait_as_long_again() -> None:
    class SlowWarehouse(MemoryWarehouse):
        def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
            loop.call_soon_threadsafe(writer.put, [Pending(log[1], NOW / 1000, None)])
            time.sleep(parts.linger)
            super().finish(block, accounts, worker)

    loop, (log, _, _) = asyncio.get_running_loop(), random_log(seed=5, records=2)
    parts = dataclasses.replace(new_parts(SlowWarehouse(), Letters()), linger=0.2)
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    writer.put([Pending(log[0], NOW / 1000, None)])
    await writer.write_rest()
    assert writer.position == 1
    assert writer.oldest_pending is not None
    assert writer.seconds_left() <= 0


@pytest.mark.parametrize(("age", "lingers"), [(0, 1), (2, 1), (4, 3)])
async def test_a_block_of_records_that_are_late_may_grow_three_times_as_long(age: int, lingers: int) -> None:
    log, _, _ = random_log(seed=5, records=1)
    parts = dataclasses.replace(new_parts(MemoryWarehouse(), Letters()), linger=100)
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    assert writer.seconds_left() == math.inf
    writer.put([Pending(log[0], NOW / 1000 - age, None)])
    assert 100 * (lingers - 1) < writer.seconds_left() <= 100 * lingers


async def test_a_block_begins_no_sooner_than_an_interval_after_the_last_but_the_first_at_once() -> None:
    log, _, _ = random_log(seed=5, records=2)
    parts = dataclasses.replace(new_parts(MemoryWarehouse(), Letters()), linger=0.0, interval=100.0)
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    writer.put([Pending(log[0], NOW / 1000, None)])
    assert writer.seconds_left() <= 0
    await writer.write_rest()
    writer.put([Pending(log[1], NOW / 1000, None)])
    assert 90 < writer.seconds_left() <= 100


async def test_records_that_a_journal_sends_again_count_nowhere() -> None:
    warehouse = MemoryWarehouse()
    first = [log_record(n, "a", [collected_event(f"e{n}", NOW - n)], "journal", n) for n in range(5)]
    again = [log_record(5 + n, "a", [collected_event(f"e{n}", NOW - n)], "journal", n) for n in range(7)]
    await deliver(new_parts(warehouse, Letters()), [*first, *again], [4, 4])
    accounts = [accounts for _, accounts in warehouse.ledger]
    assert_exact(warehouse, {f"e{n}" for n in range(7)})
    assert sum(entry.redelivered for entry in accounts) == 5
    assert sum(entry.duplicate for entry in accounts) == 0


async def test_on_a_log_of_more_partitions_what_a_journal_sends_again_is_not_taken_for_stored() -> None:
    """Record 3 was in another partition of the lost log, and not stored; 4 was in this one, and stored."""
    warehouse = MemoryWarehouse()
    first = [log_record(0, "a", [collected_event("e4", NOW)], "journal", 4)]
    await deliver(new_parts(warehouse, Letters()), first, [], PARTITION, partitions=2)
    again = [log_record(0, "b", [collected_event("e3", NOW)], "journal", 3)]
    renewed = Partition("renewed", PARTITION.topic, PARTITION.number)
    await deliver(new_parts(warehouse, Letters()), again, [], renewed, partitions=4)
    assert stored_ids(warehouse) == Counter({"e3", "e4"})


@pytest.mark.parametrize("step", STEPS)
async def test_a_log_that_is_lost_in_the_middle_of_a_block_loses_doubles_and_miscounts_nothing(step: str) -> None:
    log, ids, copies = random_log(seed=3, records=30)
    values = [CODEC.decode_collected(record.value or b"") for record in log]
    for sequence, value in enumerate(values, start=1):
        value["journal"], value["sequence"] = "journal", sequence
    log = [
        LogRecord(record.offset, record.key, CODEC.encode_collected(value))
        for record, value in zip(log, values, strict=True)
    ]
    warehouse, letters = FragileWarehouse(), Letters()
    parts = new_parts(warehouse, letters)
    await deliver(parts, log[:10], [])
    warehouse.fuse = step
    with pytest.raises(Killed):
        await deliver(parts, log[:20], [5])
    again = [LogRecord(offset, record.key, record.value) for offset, record in enumerate(log[3:])]
    renewed = Partition("renewed log", PARTITION.topic, PARTITION.number)
    await deliver(parts, again[:9], [4, 4], renewed)
    await deliver(parts, again, [6], renewed)
    assert stored_ids(warehouse) == Counter(ids)
    assert sum(accounts.stored for _, accounts in warehouse.ledger) == len(ids)
    assert sum(accounts.duplicate for _, accounts in warehouse.ledger) == copies


def poison_of(**fields: object) -> bytes:
    """A record that can be read, and breaks a stage."""
    return log_record(1, "a", [collected_event("e1", NOW, **{**BAD, **fields})]).value or b""


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00garbage", id="not Avro"),
        pytest.param(b"\xff" * 1_000_000, id="a megabyte that is not Avro"),
        pytest.param(poison_of()[:-9], id="cut short"),
        pytest.param(poison_of(properties="{"), id="properties that are not JSON"),
        pytest.param(poison_of(properties='{"term":' + "[" * 100_000), id="JSON nested deeper than any stack"),
    ],
)
async def test_a_poison_record_becomes_a_dead_letter_and_the_partition_goes_on(value: bytes) -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    poison = LogRecord(1, b"acme:a", value)
    log = [
        log_record(0, "a", [collected_event("e0", NOW)]),
        poison,
        log_record(2, "a", [collected_event("e2", NOW)]),
    ]
    await deliver(new_parts(warehouse, letters), log, [])
    assert_exact(warehouse, {"e0", "e2"})
    assert [(letter["reason"], letter["offset"], letter["payload"]) for letter in letters.sent] == [
        ("undecodable", 1, value)
    ]
    assert list(warehouse.dead_letters) == ["log/events.collected/0/1/-1"]


async def test_an_event_without_a_tenant_is_a_dead_letter_that_can_be_sent_again() -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    parts = new_parts(warehouse, letters)
    record = CODEC.decode_collected(log_record(0, "a", [collected_event("e0", NOW)]).value or b"")
    record["companyId"] = "nobody"
    await deliver(parts, [LogRecord(0, b"nobody:a", CODEC.encode_collected(record))], [])
    (letter,) = letters.sent
    assert letter["reason"] == "unknown_tenant"
    assert b'"eventId":"e0"' in letter["payload"]
    assert [accounts.dead for _, accounts in warehouse.ledger] == [1]


@pytest.mark.parametrize("step", ["", *STEPS])
@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1], [2, 2]])
async def test_a_bad_event_that_comes_again_is_a_duplicate_and_has_one_letter(step: str, sizes: list[int]) -> None:
    warehouse, letters = FragileWarehouse(), Letters()
    parts = new_parts(warehouse, letters, ids_ms=0)
    bad = [collected_event("bad", NOW, **BAD), collected_event("worse", NOW, **BAD)]
    log = [log_record(offset, "a", bad) for offset in range(3)]
    log.append(log_record(3, "a", [collected_event("good", NOW)]))
    for upto in (1, 2, 3):
        warehouse.fuse = step
        with contextlib.suppress(Killed):
            await deliver(parts, log[:upto], sizes)
    warehouse.fuse = ""
    await deliver(parts, log, sizes)
    assert sorted(letter["eventId"] for letter in warehouse.dead_letters.values()) == ["bad", "worse"]
    assert [sum(getattr(accounts, name) for _, accounts in warehouse.ledger) for name in ("dead", "duplicate")] == [
        2,
        4,
    ]
    assert_exact(warehouse, {"good"})


def bad_record(offset: int, made: int, received: int) -> LogRecord:
    return log_record(offset, "a", [collected_event("bad", made, **BAD)], received=received)


def dead_and_duplicate(warehouse: MemoryWarehouse) -> tuple[int, int]:
    accounts = [accounts for _, accounts in warehouse.ledger]
    return sum(each.dead for each in accounts), sum(each.duplicate for each in accounts)


async def test_a_bad_event_whose_copies_all_came_to_this_writer_is_not_looked_up() -> None:
    warehouse = AskedWarehouse()
    log = [bad_record(n, NOW - 5_000, NOW - 1_000 * (4 - n)) for n in range(4)]
    await deliver(new_parts(warehouse, Letters()), log, [1, 1, 2])
    assert warehouse.asked == []
    assert dead_and_duplicate(warehouse) == (1, 3)


@pytest.mark.parametrize("received", [NOW - 3_000, NOW - 1_000])
async def test_a_bad_event_that_may_have_come_to_another_writer_is_looked_up(received: int) -> None:
    warehouse = AskedWarehouse()
    log = [bad_record(0, NOW - 5_000, NOW - 2_000), bad_record(1, NOW - 5_000, received)]
    for upto in (1, 2):
        await deliver(new_parts(warehouse, Letters()), log[:upto], [])
    assert warehouse.asked == [(0, 0, 1)]
    assert dead_and_duplicate(warehouse) == (1, 1)


async def test_a_bad_event_older_than_what_is_remembered_is_looked_up_among_ids_and_letters() -> None:
    warehouse = AskedWarehouse()
    log = [bad_record(n, NOW - 5 * HOUR, NOW - (3 - n) * HOUR) for n in range(3)]
    for n in range(3):
        await deliver(new_parts(warehouse, Letters()), log[: n + 1], [])
    assert warehouse.asked == [(1, 0, 0), (1, 0, 1), (1, 0, 1)]
    assert dead_and_duplicate(warehouse) == (1, 2)


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1]])
async def test_a_bad_event_is_stored_when_it_comes_again_with_a_fix_and_its_next_bad_copy_is_a_duplicate(
    sizes: list[int],
) -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    parts = new_parts(warehouse, letters, ids_ms=0)
    log = [log_record(n, "a", [collected_event("e", NOW, **fields)]) for n, fields in enumerate((BAD, FIXED, BAD))]
    await deliver(parts, log, sizes)
    dead = len(warehouse.dead_letters)
    assert dead == (0 if sizes == [3] else 1)
    assert [sum(getattr(accounts, name) for _, accounts in warehouse.ledger) for name in ("dead", "duplicate")] == [
        dead,
        2 - dead,
    ]
    assert_exact(warehouse, {"e"})


async def test_the_sessions_of_a_visitor_who_comes_late_again_are_not_looked_up_again() -> None:
    warehouse = AskedWarehouse()
    hours = (26, 24, 21, 50, 25)  # the fourth is far from the others, and what is known of a visitor is one span
    visitors = ["a", "a", "a", "a", "b"]
    log = [
        log_record(n, visitor, [collected_event(f"e{n}", NOW - late * HOUR), collected_event(f"now {n}", NOW)])
        for n, (visitor, late) in enumerate(zip(visitors, hours, strict=True))
    ]
    await deliver(new_parts(warehouse, Letters()), log, [1] * len(log))
    assert [spans for _, spans, _ in warehouse.asked] == [1, 0, 0, 1, 1]
    assert_exact(warehouse, {f"{name}{n}" for name in ("e", "now ") for n in range(5)})


async def test_bad_events_of_two_tenants_with_one_id_are_two_events() -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    record = CODEC.decode_collected(log_record(0, "a", [collected_event("e", NOW, **BAD)]).value or b"")
    other: CollectedRecord = {**record, "companyId": "nobody"}
    log = [LogRecord(n, b"", CODEC.encode_collected(each)) for n, each in enumerate((record, other, other))]
    await deliver(new_parts(warehouse, letters), log, [])
    assert [letter["companyId"] for letter in letters.sent] == ["acme", "nobody"]


async def test_a_writer_has_room_for_three_blocks_and_for_all_of_a_block_that_was_claimed_larger() -> None:
    warehouse = MemoryWarehouse()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)]) for n in range(8)]
    parts = dataclasses.replace(new_parts(warehouse, Letters()), max_bytes=2 * len(log[0].value or b""))
    warehouse.claim(Block(PARTITION, 0, 8), "another")
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    told = []
    for record in log[:7]:
        writer.put([Pending(record, 0.0, None)])
        told.append(writer.has_room)
    assert told == [True, True, True, True, True, False, False]
    await writer.write_rest()
    assert writer.has_room
    writer.put([Pending(log[7], 0.0, None)])
    await writer.write_rest()
    assert_exact(warehouse, {f"e{n}" for n in range(8)})


async def test_more_records_than_a_block_holds_become_several_blocks_that_end_where_they_are_prepared_to() -> None:
    class Noting(Pipeline):
        def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared:
            prepared.append((records[0].offset, records[-1].offset + 1))
            return super().prepare(records, journals, rules)

    prepared, warehouse = list[tuple[int, int]](), MemoryWarehouse()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)]) for n in range(50)]
    parts = dataclasses.replace(
        new_parts(warehouse, Letters()),
        pipeline=Noting(CODEC, DEFAULT_POLICY, lambda _: UserAgent(), lambda _: "", GAP),
        max_bytes=20 * len(log[0].value or b""),
    )
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    running = asyncio.create_task(writer.run())
    stored = asyncio.Event()
    writer.put([Pending(record, 0.0, stored.set if record is log[-1] else None) for record in log])
    await asyncio.wait_for(stored.wait(), 60)
    await writer.close()
    await running
    assert [(block.start, block.end) for block, _ in warehouse.ledger] == [(0, 21), (21, 42), (42, 50)]
    assert sum(end - start for start, end in prepared) == len(log), "some were prepared twice"
    assert_exact(warehouse, {f"e{n}" for n in range(50)})


async def test_while_a_block_is_written_there_is_room_for_another_however_large_it_is() -> None:
    async def put_next() -> None:
        for record in log[6:]:
            writer.put([Pending(record, 0.0, None)])
            told.append(writer.has_room)

    class Watched(MemoryWarehouse):
        def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
            if not told:
                asyncio.run_coroutine_threadsafe(put_next(), loop).result(60)
            super().finish(block, accounts, worker)

    loop, told = asyncio.get_running_loop(), list[bool]()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)]) for n in range(8)]
    warehouse = Watched()
    warehouse.claim(Block(PARTITION, 0, 6), "another")
    parts = dataclasses.replace(new_parts(warehouse, Letters()), max_bytes=2 * len(log[0].value or b""))
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    writer.put([Pending(record, 0.0, None) for record in log[:6]])
    await writer.write_rest()
    assert told == [True, False]
    assert writer.has_room


async def test_while_a_block_is_written_what_came_for_the_next_is_prepared() -> None:
    prepared = threading.Event()

    class Noting(Pipeline):
        def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared:
            if records[0].offset == 1:
                prepared.set()
            return super().prepare(records, journals, rules)

    class Slow(MemoryWarehouse):
        def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
            if block.start == 0:
                loop.call_soon_threadsafe(writer.put, [Pending(log[1], 0.0, stored.set)])
                waited.append(prepared.wait(60))
            super().finish(block, accounts, worker)

    loop, stored, waited = asyncio.get_running_loop(), asyncio.Event(), list[bool]()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)]) for n in range(2)]
    pipeline = Noting(CODEC, DEFAULT_POLICY, lambda _: UserAgent(), lambda _: "", GAP)
    warehouse = Slow()
    writer = PartitionWriter(
        PARTITION, 1, dataclasses.replace(new_parts(warehouse, Letters()), pipeline=pipeline), remembers=True
    )
    await writer.open()
    running = asyncio.create_task(writer.run())
    writer.put([Pending(log[0], 0.0, None)])
    await asyncio.wait_for(stored.wait(), 120)
    await writer.close()
    await running
    assert waited == [True]
    assert_exact(warehouse, {"e0", "e1"})


@pytest.mark.parametrize(("age", "spans"), [(10 * MINUTE, 0), (24 * HOUR, 1)])
async def test_while_a_block_is_stored_the_next_looks_up_what_it_needs(age: int, spans: int) -> None:
    class Watched(MemoryWarehouse):
        def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
            if block.end == 2:
                loop.call_soon_threadsafe(writer.put, [Pending(log[2], 0.0, None)])
                told.append(asked.wait(60))
            super().finish(block, accounts, worker)

        def lookup(self, partition: Partition, position: int, asked_for: Lookup) -> Found:
            assert (len(asked_for.ids), len(asked_for.spans)) == (1, spans)
            asked.set()
            return super().lookup(partition, position, asked_for)

    loop, asked, told, warehouse = asyncio.get_running_loop(), threading.Event(), list[bool](), Watched()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW - (age if n == 2 else 1))]) for n in range(3)]
    parts = dataclasses.replace(new_parts(warehouse, Letters(), ids_ms=MINUTE), max_bytes=len(log[0].value or b""))
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    for record in log[:2]:  # once something is stored, blocks are settled in advance
        writer.put([Pending(record, 0.0, None)])
        await writer.write_rest()
    await writer.write_rest()
    assert told == [True]
    assert_exact(warehouse, {"e0", "e1", "e2"})


async def test_a_revoked_partition_writes_what_is_settled_in_advance_and_what_came_after_it() -> None:
    class Slow(MemoryWarehouse):
        def finish(self, block: Block, accounts: Accounts, worker: str) -> None:
            if block.end == 2:
                for record in log[2:]:
                    loop.call_soon_threadsafe(writer.put, [Pending(record, 0.0, None)])
            super().finish(block, accounts, worker)

    loop, warehouse = asyncio.get_running_loop(), Slow()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)]) for n in range(4)]
    parts = dataclasses.replace(new_parts(warehouse, Letters()), max_bytes=len(log[0].value or b""))
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    for record in log[:2]:
        writer.put([Pending(record, 0.0, None)])
        await writer.write_rest()
    assert writer.position == 2
    await writer.close()
    await writer.write_rest()
    assert [(block.start, block.end) for block, _ in warehouse.ledger] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert_exact(warehouse, {f"e{n}" for n in range(4)})


async def test_a_writer_waits_while_the_warehouse_is_away_and_then_goes_on() -> None:
    class Away(MemoryWarehouse):
        refusals = 3

        def write(self, block: Block, rows: BlockRows) -> None:
            if self.refusals:
                self.refusals -= 1
                raise StoreUnavailable("ClickHouse is away.")
            super().write(block, rows)

    warehouse = Away()
    acknowledged = await deliver(new_parts(warehouse, Letters()), [log_record(0, "a", [collected_event("e", NOW)])], [])
    assert warehouse.refusals == 0
    assert acknowledged == [0]
    assert_exact(warehouse, {"e"})


async def test_a_partition_given_up_while_the_warehouse_is_away_writes_nothing_once_it_is_back() -> None:
    """What was settled of the block is in memory; to settle it again would make duplicates of all its events."""

    class Away(MemoryWarehouse):
        is_away = True

        def write(self, block: Block, rows: BlockRows) -> None:
            if self.is_away:
                loop.call_soon_threadsafe(refused.set)
                raise StoreUnavailable("ClickHouse is away.")
            super().write(block, rows)

    loop, refused, warehouse = asyncio.get_running_loop(), asyncio.Event(), Away()
    log = [log_record(n, "a", [collected_event(f"e{n}", NOW)], "journal", n + 1) for n in range(2)]
    parts = new_parts(warehouse, Letters())
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    writer.put([Pending(record, 0.0, None) for record in log])
    running = asyncio.create_task(writer.run())
    await asyncio.wait_for(refused.wait(), 60)
    await writer.close()
    await running
    warehouse.is_away = False
    await writer.write_rest()
    await deliver(parts, log, [])
    assert_exact(warehouse, {"e0", "e1"})
