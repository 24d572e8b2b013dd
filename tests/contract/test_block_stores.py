"""The warehouse in memory and in ClickHouse behave alike: claims, tokens, ledger, state, orphans."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import httpx
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from collector.record_batch import partition_of
from schemas.blocks import (
    Accounts,
    Block,
    BlockRows,
    BlockStore,
    Lookup,
    OrphanStore,
    Partition,
    StateStore,
    StoreUnavailable,
)
from schemas.digests import key_digest
from schemas.identifiers import event_key, record_key
from schemas.records import DeadLetter
from schemas.settings import ClickHouseSettings
from schemas.stages import EVENT_COLUMNS, runs_of
from streams.core.recent_ids import RecentIds
from streams.core.sessions import Session, Sessions, mint_session_id
from streams.core.state import PartitionState
from tests.contract.clickhouse_fixture import clickhouse_url
from warehouse.blocks import DEAD_LETTER_COLUMNS, ClickHouseBlockStore, by_month, event_columns
from warehouse.client import ClickHouse
from warehouse.extents import ClickHouseExtents
from warehouse.memory import MemoryView, MemoryWarehouse
from warehouse.migrate import Target, apply_migrations, migrations, set_retention, statements
from warehouse.native import Runs
from warehouse.orphans import ClickHouseOrphans
from warehouse.states import ClickHouseStateStore

SEPTEMBER, OCTOBER = 1_790_000_000_000, 1_792_000_000_000
PARTITION = Partition("log", "events.collected", 0)
_AT = EVENT_COLUMNS.index("timestamp")
VIEWS = (
    MemoryView("daily_parts", lambda row: row[_AT] // 86_400_000, lambda row: next(iter(by_month(runs_of([row]))))),
    MemoryView("totals", lambda _: "all", lambda _: "all"),
    MemoryView("forgetful", lambda _: "all", lambda _: "all", deduplicates=False),
)
_TOTAL = "SELECT count() AS totalEvents FROM events"
_TARGETS = [
    statement
    for target, window in (("totals", 100), ("forgetful", 0))
    for statement in (
        f"CREATE TABLE {target} (totalEvents SimpleAggregateFunction(sum, UInt64)) ENGINE = AggregatingMergeTree "
        f"ORDER BY tuple() SETTINGS non_replicated_deduplication_window = {window}",
        f"CREATE MATERIALIZED VIEW {target}_view TO {target} AS {_TOTAL}",
    )
]


class Warehouse(Protocol):
    @property
    def blocks(self) -> BlockStore: ...

    @property
    def states(self) -> StateStore: ...

    @property
    def orphans(self) -> OrphanStore: ...

    def count(self) -> int: ...

    def rollup(self, target: str) -> int:
        """The events that a target of a view has counted: daily_parts is partitioned by month, totals is not."""
        ...

    def refuse(self, target: str) -> None:
        """Make the view of this target throw from now on; none: "" ."""
        ...

    def insert(self, token: str, events: list[tuple[object, ...]]) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.blocks = self.states = self.orphans = self._memory = MemoryWarehouse(views=VIEWS)

    def count(self) -> int:
        return len(self._memory.events)

    def rollup(self, target: str) -> int:
        return sum(self._memory.rollups.get(target, {}).values())

    def refuse(self, target: str) -> None:
        self._memory.refusing = target

    def insert(self, token: str, events: list[tuple[object, ...]]) -> None:
        self._memory.insert_events(token, events)


class InClickHouse:
    def __init__(self, client: ClickHouse) -> None:
        self.client = client
        self.blocks = ClickHouseBlockStore(client)
        self.states = ClickHouseStateStore(client, 1_000)
        self.orphans = ClickHouseOrphans(client)

    def count(self) -> int:
        return int(self.client.rows("SELECT count() FROM events")[0][0])

    def rollup(self, target: str) -> int:
        return int(self.client.rows(f"SELECT sum(totalEvents) FROM {target}")[0][0])

    def refuse(self, target: str) -> None:
        query = "SELECT throwIf(eventId != '', 'refused') AS totalEvents FROM events" if target else _TOTAL
        self.client.command(f"ALTER TABLE totals_view MODIFY QUERY {query}")

    def insert(self, token: str, events: list[tuple[object, ...]]) -> None:
        try:
            self.client.insert("events", EVENT_COLUMNS, list(zip(*events, strict=True)), token)
        except ClickHouseError as error:
            raise StoreUnavailable(str(error)) from error


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("blocks") / "clickhouse"
    with clickhouse_url(folder) as url:
        yield url


@pytest.fixture
def clickhouse(server_url: str, request: pytest.FixtureRequest) -> Iterator[InClickHouse]:
    database = "t_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[:60]
    client = ClickHouse(ClickHouseSettings(clickhouse_url=server_url, clickhouse_database=database))
    apply_migrations(client, Target(database))
    yield InClickHouse(client)
    client.command(f"DROP DATABASE {database}")
    client.close()


@pytest.fixture(params=["memory", "clickhouse"])
def viewed(request: pytest.FixtureRequest) -> Warehouse:
    """With views whose targets are partitioned, not partitioned, and without a window."""
    if request.param == "memory":
        return InMemory()
    found: InClickHouse = request.getfixturevalue("clickhouse")
    for statement in _TARGETS:
        found.client.command(statement)
    return found


@pytest.fixture(params=["memory", "clickhouse"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    if request.param == "memory":
        return InMemory()
    found: InClickHouse = request.getfixturevalue("clickhouse")
    return found


def rollup_statements(client: ClickHouse) -> list[str]:
    database = client.rows("SELECT currentDatabase()")[0][0]
    return [sql for migration in migrations() for sql in statements(migration.sql, Target(database))]


def row(event_id: str, at: int = SEPTEMBER, **columns: object) -> tuple[object, ...]:
    values: dict[str, object] = dict.fromkeys(EVENT_COLUMNS, "")
    values |= {"eventId": event_id, "timestamp": at, "receivedAt": at, "companyId": "acme", "anonymousId": "a"}
    values |= {"sessionId": "s", "value": None, "properties": "{}", "bot": False, "sequence": 0}
    values |= {"eventCategory": "ui", "eventAction": "click", "type": "track"}
    values |= {"logId": "log", "logPartition": 0, "logOffset": 0}
    return tuple({**values, **columns}.values())


def test_the_first_claim_of_a_start_decides_its_end(warehouse: Warehouse) -> None:
    first = warehouse.blocks.claim(Block(PARTITION, 0, 10), "one")
    second = warehouse.blocks.claim(Block(PARTITION, 0, 25), "two")
    assert (first.end, second.end) == (10, 10)
    assert warehouse.blocks.claim(Block(PARTITION, 10, 25), "two").end == 25


def test_a_claim_of_another_log_or_partition_is_another_claim(warehouse: Warehouse) -> None:
    warehouse.blocks.claim(Block(PARTITION, 0, 10), "one")
    for other in (dataclasses.replace(PARTITION, log_id="next"), dataclasses.replace(PARTITION, number=1)):
        assert warehouse.blocks.claim(Block(other, 0, 25), "one").end == 25


def test_a_claim_whose_row_is_lost_has_no_end_until_it_is_replaced(clickhouse: InClickHouse) -> None:
    clickhouse.blocks.claim(Block(PARTITION, 0, 10), "w")
    clickhouse.client.command("DELETE FROM block_claims WHERE start = 0")
    assert clickhouse.blocks.claim(Block(PARTITION, 0, 12), "w").end == 0
    assert ClickHouseExtents(clickhouse.client).replace_claim(PARTITION)
    assert clickhouse.blocks.claim(Block(PARTITION, 0, 14), "w").end == 1


def test_a_claim_of_a_block_that_has_rows_already_is_not_replaced(clickhouse: InClickHouse) -> None:
    clickhouse.blocks.claim(Block(PARTITION, 0, 10), "w")
    clickhouse.blocks.write(Block(PARTITION, 0, 10), BlockRows(events=runs_of([row("e1")])))
    clickhouse.client.command("DELETE FROM block_claims WHERE start = 0")
    assert not ClickHouseExtents(clickhouse.client).replace_claim(PARTITION)
    assert clickhouse.blocks.claim(Block(PARTITION, 0, 12), "w").end == 0


def test_a_claim_tells_how_far_the_ledger_is(warehouse: Warehouse) -> None:
    assert warehouse.blocks.claim(Block(PARTITION, 0, 10), "w").stored_end == 0
    warehouse.blocks.finish(Block(PARTITION, 0, 10), Accounts(records=1), "w")
    assert warehouse.blocks.claim(Block(PARTITION, 0, 30), "zombie").stored_end == 10
    assert warehouse.blocks.claim(Block(PARTITION, 10, 30), "w").stored_end == 0


def test_a_block_written_twice_is_stored_once(warehouse: Warehouse) -> None:
    block = Block(PARTITION, 0, 2)
    rows = BlockRows(events=runs_of([row("e1"), row("e2", OCTOBER)]))
    warehouse.blocks.write(block, rows)
    warehouse.blocks.write(block, rows)
    assert warehouse.count() == 2


def test_a_half_written_block_is_completed_by_writing_it_again(warehouse: Warehouse) -> None:
    block = Block(PARTITION, 0, 2)
    warehouse.blocks.write(block, BlockRows(events=runs_of([row("e1")])))
    warehouse.blocks.write(block, BlockRows(events=runs_of([row("e1"), row("e2", OCTOBER)])))
    assert warehouse.count() == 2


def test_a_repeated_insert_changes_no_target_of_a_view_but_one_without_a_window(viewed: Warehouse) -> None:
    for _ in range(2):
        viewed.insert("token", [row("e1")])
    assert [viewed.count(), *map(viewed.rollup, ("daily_parts", "totals", "forgetful"))] == [1, 1, 1, 2]


def test_a_view_that_throws_leaves_the_rows_and_the_repetition_fills_what_is_missing(viewed: Warehouse) -> None:
    viewed.refuse("totals")
    with pytest.raises(StoreUnavailable, match="refused"):
        viewed.insert("token", [row("e1"), row("e2")])
    assert (viewed.count(), viewed.rollup("totals")) == (2, 0)
    viewed.refuse("")
    for _ in range(2):
        viewed.insert("token", [row("e1"), row("e2")])
    assert [viewed.count(), *map(viewed.rollup, ("daily_parts", "totals"))] == [2, 2, 2]


def test_a_token_is_known_for_each_month_of_a_table_and_once_for_a_target_without_months(viewed: Warehouse) -> None:
    viewed.insert("token", [row("e1")])
    viewed.insert("token", [row("e1"), row("e2", OCTOBER)])
    assert [viewed.count(), *map(viewed.rollup, ("daily_parts", "totals"))] == [2, 2, 1]


def test_a_block_of_two_months_reaches_every_target(viewed: Warehouse) -> None:
    for _ in range(2):
        viewed.blocks.write(Block(PARTITION, 0, 2), BlockRows(events=runs_of([row("e1"), row("e2", OCTOBER)])))
    assert [viewed.count(), *map(viewed.rollup, ("daily_parts", "totals"))] == [2, 2, 2]


def test_adopting_fills_the_view_that_had_failed(viewed: Warehouse) -> None:
    block = Block(PARTITION, 0, 5)
    viewed.blocks.claim(block, "w")
    viewed.refuse("totals")
    with pytest.raises(StoreUnavailable):
        viewed.blocks.write(block, BlockRows(events=runs_of([row("e1", logOffset=1, journal="j", sequence=1)])))
    viewed.refuse("")
    viewed.orphans.adopt(dataclasses.replace(PARTITION, log_id="renewed"), {})
    assert [viewed.count(), *map(viewed.rollup, ("daily_parts", "totals"))] == [1, 1, 1]


def test_the_position_is_the_end_of_the_ledger(warehouse: Warehouse) -> None:
    assert warehouse.states.position(PARTITION) == (0, {})
    warehouse.blocks.finish(Block(PARTITION, 0, 10), Accounts(records=10, journals={"j": 4}), "w")
    warehouse.blocks.finish(Block(PARTITION, 10, 12), Accounts(records=2, journals={"j": 6, "k": 1}), "w")
    assert warehouse.states.position(PARTITION) == (12, {"j": 6, "k": 1})
    assert warehouse.states.position(dataclasses.replace(PARTITION, log_id="next")) == (0, {"j": 6, "k": 1})


def test_ids_of_an_unfinished_block_are_not_its_own_duplicates(warehouse: Warehouse) -> None:
    warehouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(events=runs_of([row("finished", logOffset=0)])))
    warehouse.blocks.write(Block(PARTITION, 1, 2), BlockRows(events=runs_of([row("unfinished", logOffset=1)])))
    ids = {("acme", "finished"), ("acme", "unfinished"), ("acme", "never sent")}
    assert warehouse.states.lookup(PARTITION, 1, Lookup(ids)).ids == {("acme", "finished")}
    recent = warehouse.states.recent({PARTITION: 1}, 1, SEPTEMBER)[PARTITION]
    ((received_at, digests),) = recent.ids
    assert digests == [key_digest(event_key("acme", "finished"))]
    assert SEPTEMBER <= received_at < SEPTEMBER + 1000


def test_no_stored_letter_was_received_at_or_after_the_time_since_when_letters_are_remembered(
    warehouse: Warehouse,
) -> None:
    def letters_since() -> int:
        return warehouse.states.recent({PARTITION: 1}, 1, SEPTEMBER)[PARTITION].letters_since

    assert letters_since() == 1
    received = SEPTEMBER + 5, SEPTEMBER + 7, 0, SEPTEMBER + 6
    letters = [letter(f"e{n}", n, f"log {n}", partition=n, receivedAt=at) for n, at in enumerate(received)]
    others = [
        letter("of the collector", 8, source="collector", receivedAt=OCTOBER),
        letter("of another topic", 9, topic="events.dead_letter", receivedAt=OCTOBER),
    ]
    warehouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(dead_letters=[*letters, *others]))
    assert letters_since() == SEPTEMBER + 8


def test_ids_that_were_received_since_are_not_answered(warehouse: Warehouse) -> None:
    rows = [row(f"e{n}", SEPTEMBER, receivedAt=SEPTEMBER + n) for n in range(4)]
    warehouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(events=runs_of(rows)))
    ids = {("acme", f"e{n}") for n in range(5)}
    found = warehouse.states.lookup(PARTITION, 1, Lookup(ids, ids_since=SEPTEMBER + 2))
    assert found.ids == {("acme", "e0"), ("acme", "e1")}
    assert warehouse.states.lookup(PARTITION, 1, Lookup(ids)).ids == ids - {("acme", "e4")}


@pytest.mark.timeout(60)  # an array of more than a megabyte takes ClickHouse minutes
def test_the_ids_of_a_large_block_are_looked_up_in_one_question(clickhouse: InClickHouse) -> None:
    clickhouse.client.command(
        "INSERT INTO event_ids (companyId, eventId, timestamp, receivedAt) "
        f"SELECT 'acme', hex(SHA256(toString(number))), fromUnixTimestamp64Milli({SEPTEMBER}) AS at, at "
        "FROM numbers(300000)"
    )
    stored = {id_ for (id_,) in clickhouse.client.rows("SELECT eventId FROM event_ids ORDER BY eventId LIMIT 20000")}
    asked = {("acme", event_id) for event_id in (*stored, "never sent")}
    assert clickhouse.states.lookup(PARTITION, 1, Lookup(asked)).ids == {("acme", event_id) for event_id in stored}


ODD_TEXTS = [
    "'",
    "\\",
    "\\'",
    '"',
    '\\"',
    "%",
    "%(log)s",
    "{log:String}",
    "<pairs>",
    "0 LIMIT 0;",
    ";",
    "a\tb\nc\rd",
    "\x01\x7f",
    "`",
    "ä\u2028😀\ufffd",
    "]]",
    "\\u0041",
]


def test_texts_of_every_kind_are_looked_up_as_they_are(warehouse: Warehouse) -> None:
    rows = [row(text, SEPTEMBER, companyId=company, anonymousId=text) for text in ODD_TEXTS for company in ("a", "'")]
    letters = [letter(text, n, companyId="a") for n, text in enumerate(ODD_TEXTS)]
    warehouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(events=runs_of(rows), dead_letters=letters))
    ids = {(company, text) for text in ODD_TEXTS for company in ("a", "'")}
    others = {("b", "'"), ("a", ""), ("a", "A"), ("a", "\\\\"), ("a", "a b c d")}
    spans = {record_key(company, text): (SEPTEMBER, SEPTEMBER) for company, text in ids | others}
    found = warehouse.states.lookup(PARTITION, 1_000, Lookup(ids | others, spans, ids | others))
    assert found.ids == ids
    assert {span.visitor for span in found.sessions} == {record_key(company, text) for company, text in ids}
    assert found.dead == {("a", text) for text in ODD_TEXTS}
    assert found.spans == spans


def read_back(warehouse: Warehouse, since: int, partitions: int = 1, number: int = 0) -> PartitionState:
    """The state of a partition that has stored everything."""
    partition = dataclasses.replace(PARTITION, number=number)
    ids, sessions = RecentIds(since, 1_000), Sessions(gap=10, since=since)
    state = PartitionState(partition, 1_000, {}, ids, sessions)
    state.load(warehouse.states.recent({partition: 1_000}, partitions, since)[partition])
    return state


def test_ids_and_sessions_come_back_as_they_were(warehouse: Warehouse) -> None:
    visitors = [f"visitor {number}" for number in range(40)]
    at = {visitor: SEPTEMBER + 100 * number for number, visitor in enumerate(visitors)}
    events = [
        row(
            *(f"{visitor} {number}", at[visitor] + later),
            anonymousId=visitor,
            sessionId=mint_session_id(visitor, opened),
            receivedAt=SEPTEMBER + 9,
        )
        for visitor in visitors
        for number, (later, opened) in enumerate([(0, 0), (7, 0), (50, 50), (61, 61)])
    ]
    odd = [
        row(f"odd {n}", SEPTEMBER + 30 * n, anonymousId="odd", sessionId=f"named {n}", receivedAt=SEPTEMBER + 9)
        for n in (2, 1)
    ]
    warehouse.blocks.write(Block(PARTITION, 0, 1_000), BlockRows(events=runs_of([*events, *odd])))
    state = read_back(warehouse, since=SEPTEMBER + 5)
    for visitor, opened in at.items():
        times = {0: (opened, opened + 7), 50: (opened + 50,) * 2, 61: (opened + 61,) * 2}
        expected = [Session(mint_session_id(visitor, first), *times[first]) for first in (0, 50, 61)]
        assert state.sessions.of(record_key("acme", visitor)) == expected
        assert state.sessions.extend(record_key("acme", visitor), opened + 62, opened + 62) == mint_session_id(
            visitor, 61
        )
    named = [Session(f"named {n}", SEPTEMBER + 30 * n, SEPTEMBER + 30 * n) for n in (1, 2)]
    assert state.sessions.of(record_key("acme", "odd")) == named
    assert state.sessions.of(record_key("other", visitors[0])) == []
    assert all(state.ids.held([event_key("acme", f"{visitor} {n}")]) for visitor in visitors for n in range(4))
    assert not state.ids.held([event_key("other", f"{visitors[0]} 0")])
    assert len(state.ids) == len(events) + len(odd)


@pytest.mark.parametrize("limit", [0, 1, 5, 12, 39, 40])
def test_no_more_ids_come_back_than_the_limit_and_the_latest_do(clickhouse: InClickHouse, limit: int) -> None:
    received = {f"e{n}": SEPTEMBER + 700 * n for n in range(40)}
    events = [row(event_id, receivedAt=at) for event_id, at in received.items()]
    clickhouse.blocks.write(Block(PARTITION, 0, 1_000), BlockRows(events=runs_of(events)))
    clickhouse.states = ClickHouseStateStore(clickhouse.client, limit)
    state = read_back(clickhouse, since=SEPTEMBER)
    assert limit - 2 <= len(state.ids) <= limit
    for event_id, at in received.items():
        assert bool(state.ids.held([event_key("acme", event_id)])) == state.ids.covers(at)
    state.ids.evict(SEPTEMBER + 700 * 30 + 1)
    for event_id, at in received.items():
        assert state.ids.held([event_key("acme", event_id)]) or not state.ids.covers(at)


def test_a_visitor_comes_back_to_the_partition_of_its_key_also_after_merges(clickhouse: InClickHouse) -> None:
    visitors = [f"visitor {number}" for number in range(30)] + ["ü", "名"]
    for minute in range(3):
        events = [row(f"{v}{minute}", SEPTEMBER + minute, anonymousId=v, sessionId=f"s {v}") for v in visitors]
        clickhouse.blocks.write(Block(PARTITION, minute, minute + 1), BlockRows(events=runs_of(events)))
    clickhouse.client.command("OPTIMIZE TABLE session_parts FINAL")
    assert clickhouse.client.rows("SELECT count() FROM session_parts") == [(len(visitors),)]
    for number in range(3):
        state = read_back(clickhouse, SEPTEMBER, partitions=3, number=number)
        for visitor in visitors:
            key = record_key("acme", visitor)
            is_ours = partition_of(key.encode(), 3) == number
            assert (len(state.sessions.of(key)), len(state.ids.held([event_key("acme", f"{visitor}1")]))) == (
                is_ours,
                is_ours,
            )


def test_rows_from_before_the_visitors_hash_was_stored_come_back_as_well(clickhouse: InClickHouse) -> None:
    client = clickhouse.client
    for table in ("event_ids", "session_parts"):
        client.command(f"ALTER TABLE {table} DROP COLUMN visitorHash")
    before = [row(f"before {n}", anonymousId=f"v{n}", sessionId=f"s{n}") for n in range(20)]
    clickhouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(events=runs_of(before)))
    database = client.rows("SELECT currentDatabase()")[0][0]
    (added,) = (migration for migration in migrations() if migration.number == 7)
    for statement in statements(added.sql, Target(database)):
        client.command(statement)
    after = [row(f"after {n}", anonymousId=f"v{n}", sessionId=f"s{n}") for n in range(20)]
    clickhouse.blocks.write(Block(PARTITION, 1, 2), BlockRows(events=runs_of(after)))
    for merge in (False, True):
        if merge:
            client.command("OPTIMIZE TABLE session_parts FINAL")
        state = read_back(clickhouse, SEPTEMBER)
        assert (len(state.ids), len(state.sessions)) == (40, 20)


def test_a_range_of_time_is_found_by_the_key(clickhouse: InClickHouse) -> None:
    clickhouse.client.command(
        "INSERT INTO events (eventId, timestamp, companyId, eventCategory, eventAction) SELECT toString(number), "
        f"fromUnixTimestamp64Milli({SEPTEMBER} + number * 1000), 'acme', 'ui', 'click' FROM numbers(100000)"
    )
    since, until = (f"fromUnixTimestamp64Milli({SEPTEMBER + second * 1000})" for second in (50_030, 50_090))
    minute = (
        "SELECT count() FROM events WHERE companyId = 'acme' AND eventCategory = 'ui' AND eventAction = 'click' "
        f"AND timestamp >= {since} AND timestamp < {until}"
    )
    assert clickhouse.client.rows(minute) == [(60,)]
    (read,) = clickhouse.client.named(f"EXPLAIN ESTIMATE {minute}")
    assert read["rows"] <= 2 * 8_192


def test_partitions_read_back_together_leave_out_what_each_has_not_finished(warehouse: Warehouse) -> None:
    partitions = [dataclasses.replace(PARTITION, number=number) for number in range(3)]
    names = {partition_of(f"acme:{name}".encode(), 3): name for name in map(str, range(50))}
    for partition in partitions:
        for offset in range(4):
            event = row(
                f"{partition.number} {offset}",
                anonymousId=names[partition.number],
                logPartition=partition.number,
                logOffset=offset,
            )
            warehouse.blocks.write(Block(partition, offset, offset + 1), BlockRows(events=runs_of([event])))
    positions = {partition: partition.number + 1 for partition in partitions}
    for partition, recent in warehouse.states.recent(positions, 3, SEPTEMBER).items():
        ids = RecentIds(SEPTEMBER, 1_000)
        ids.load(recent.ids)
        found = {offset for offset in range(4) if ids.held([event_key("acme", f"{partition.number} {offset}")])}
        assert found == set(range(positions[partition]))


def letter(event_id: str, offset: int, log_id: str = "log", **fields: object) -> DeadLetter:
    found: dict[str, object] = dict.fromkeys(DEAD_LETTER_COLUMNS, "")
    found |= {"key": f"{log_id}/{offset}", "companyId": "acme", "source": "streams", "eventId": event_id}
    found |= {"logId": log_id, "topic": PARTITION.topic, "partition": 0, "offset": offset, "position": 0}
    found |= {"receivedAt": SEPTEMBER, "failedAt": SEPTEMBER, "payload": b"{}", "truncated": False}
    return cast(DeadLetter, {**found, **fields})


def test_letters_of_an_unfinished_block_are_not_its_own_duplicates(warehouse: Warehouse) -> None:
    letters = [
        letter("finished", 0),
        letter("renewed", 7, "renewed"),
        letter("a collector's", 0, key="c", source="collector"),
    ]
    warehouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(dead_letters=letters))
    warehouse.blocks.write(Block(PARTITION, 1, 2), BlockRows(dead_letters=[letter("unfinished", 1)]))
    asked = {("acme", name) for name in ("finished", "renewed", "unfinished", "a collector's", "never sent")}
    found = warehouse.states.lookup(PARTITION, 1, Lookup(rejected=asked))
    assert found.dead == {("acme", "finished"), ("acme", "renewed")}
    assert found.ids == frozenset()


def test_letters_of_a_lost_logs_unfinished_block_are_forgotten_for_their_records_come_again(
    warehouse: Warehouse,
) -> None:
    warehouse.blocks.claim(Block(PARTITION, 0, 5), "w")
    warehouse.blocks.write(Block(PARTITION, 0, 5), BlockRows(dead_letters=[letter("e1", 1), letter("e2", 5)]))
    renewed = dataclasses.replace(PARTITION, log_id="renewed")
    warehouse.orphans.adopt(renewed, {})
    assert warehouse.states.lookup(renewed, 0, Lookup(rejected={("acme", "e1"), ("acme", "e2")})).dead == {
        ("acme", "e2")
    }


def test_a_letter_is_found_by_its_event_in_the_order_of_events(clickhouse: InClickHouse) -> None:
    clickhouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(dead_letters=[letter(f"e{n}", n) for n in range(99)]))
    plan = clickhouse.client.rows(
        "EXPLAIN SELECT companyId, eventId FROM dead_letters WHERE (companyId, eventId) IN (('acme', 'e7')) "
        "AND source = 'streams' SETTINGS force_optimize_projection = 1"
    )
    assert any("by_event" in line for (line,) in plan)


def test_sessions_come_back_with_the_ids_that_were_overridden_into_them(warehouse: Warehouse) -> None:
    events = [row("e1", SEPTEMBER, sessionId="s1"), row("e2", SEPTEMBER + 50, sessionId="s2")]
    overrides = [("acme", "a", "s2", SEPTEMBER, "s1")]
    warehouse.blocks.write(Block(PARTITION, 0, 2), BlockRows(events=runs_of(events), overrides=overrides))
    for found in (
        warehouse.states.recent({PARTITION: 2}, 1, SEPTEMBER - 1)[PARTITION].sessions,
        warehouse.states.lookup(PARTITION, 2, Lookup(spans={"acme:a": (SEPTEMBER, SEPTEMBER)})).sessions,
    ):
        (span,) = found
        assert (span.visitor, span.session_id, span.start, span.end) == ("acme:a", "s1", SEPTEMBER, SEPTEMBER + 50)
        assert span.overridden == ("s2",)


def test_the_earliest_target_of_an_override_wins(warehouse: Warehouse) -> None:
    events = [row(f"e{n}", SEPTEMBER + n, sessionId=f"s{n}") for n in range(3)]
    warehouse.blocks.write(Block(PARTITION, 0, 3), BlockRows(events=runs_of(events)))
    for number, (later, start, target) in enumerate((("s2", 0, "s0"), ("s2", 1, "s1"), ("s1", 0, "s0"))):
        rows = BlockRows(overrides=[("acme", "a", later, SEPTEMBER + start, target)])
        warehouse.blocks.write(Block(PARTITION, 3 + number, 4 + number), rows)
    (span,) = warehouse.states.recent({PARTITION: 6}, 1, SEPTEMBER - 1)[PARTITION].sessions
    assert (span.session_id, sorted(span.overridden)) == ("s0", ["s1", "s2"])


def test_events_of_a_lost_logs_unfinished_block_are_adopted_until_their_records_came_again(
    warehouse: Warehouse,
) -> None:
    block = Block(PARTITION, 0, 5)
    warehouse.blocks.claim(block, "w")
    events = [row("e1", logOffset=1, journal="j", sequence=1), row("e2", logOffset=2, journal="j", sequence=2)]
    warehouse.blocks.write(block, BlockRows(events=runs_of(events)))
    renewed = dataclasses.replace(PARTITION, log_id="renewed")
    assert set(warehouse.orphans.adopt(PARTITION, {})) == set()
    assert set(warehouse.orphans.adopt(renewed, {})) == {("acme", "e1"), ("acme", "e2")}


def test_what_was_adopted_stays_so_for_the_next_owner(clickhouse: InClickHouse) -> None:
    block = Block(PARTITION, 0, 5)
    clickhouse.blocks.claim(block, "w")
    events = [row(f"e{n}", logOffset=n, journal="j", sequence=n) for n in (1, 2)]
    clickhouse.blocks.write(block, BlockRows(events=runs_of(events)))
    renewed = dataclasses.replace(PARTITION, log_id="renewed")
    clickhouse.orphans.adopt(renewed, {})
    assert set(clickhouse.orphans.adopt(renewed, {"j": 1})) == {("acme", "e2")}
    assert set(clickhouse.orphans.adopt(renewed, {"j": 2})) == set()


def test_a_position_waits_for_an_insert_of_a_lost_log_that_still_runs(
    clickhouse: InClickHouse, server_url: str
) -> None:
    database = clickhouse.client.rows("SELECT currentDatabase()")[0][0]
    token = f"{PARTITION}/0-5/202609"
    slow = "INSERT INTO blocks (logId, end) SELECT 'none', sleepEachRow(1) FROM numbers(3)"
    settings = {"database": database, "insert_deduplication_token": token, "max_block_size": "1"}
    renewed = dataclasses.replace(PARTITION, log_id="renewed")
    running = "SELECT count() FROM system.processes WHERE Settings['insert_deduplication_token'] = {token:String}"
    with ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(httpx.post, server_url, params=settings, content=slow, timeout=60)
        while not clickhouse.client.rows(running, {"token": token})[0][0]:
            assert not inserting.done(), inserting.result().text
        assert clickhouse.states.position(PARTITION) == (0, {})
        assert clickhouse.states.position(dataclasses.replace(renewed, number=1)) == (0, {})
        with pytest.raises(StoreUnavailable, match="still runs"):
            clickhouse.states.position(renewed)
        assert inserting.result().status_code == 200
    assert clickhouse.states.position(renewed) == (0, {})


def test_an_adopted_block_completes_the_view_that_had_failed(clickhouse: InClickHouse) -> None:
    client, block = clickhouse.client, Block(PARTITION, 0, 5)
    clickhouse.blocks.claim(block, "w")
    throwing = "SELECT toDate(throwIf(eventId != '', 'refused')) AS date FROM events"
    client.command(f"ALTER TABLE daily_parts_view MODIFY QUERY {throwing}")
    with pytest.raises(StoreUnavailable, match="refused"):
        clickhouse.blocks.write(block, BlockRows(events=runs_of([row("e1", logOffset=1, journal="j", sequence=1)])))
    client.command("DROP VIEW daily_parts_view")
    client.command(next(sql for sql in rollup_statements(client) if "VIEW IF NOT EXISTS daily_parts_view" in sql))
    assert clickhouse.count() == 1
    assert client.rows("SELECT sum(totalEvents) FROM daily_parts") == [(0,)]
    clickhouse.orphans.adopt(dataclasses.replace(PARTITION, log_id="renewed"), {})
    assert clickhouse.count() == 1
    assert client.rows("SELECT sum(totalEvents) FROM daily_parts") == [(1,)]
    assert client.rows("SELECT sum(totalEvents) FROM hourly_parts") == [(1,)]


def test_every_insert_becomes_one_part_a_table(clickhouse: InClickHouse) -> None:
    events = [row(f"e{n}", SEPTEMBER + n * 1000, anonymousId=f"a{n % 1000}") for n in range(60_000)]
    clickhouse.blocks.write(Block(PARTITION, 0, 60_000), BlockRows(events=runs_of(events)))
    parts = clickhouse.client.rows(
        "SELECT table, count() FROM system.parts WHERE database = currentDatabase() AND active "
        "AND table IN ('events', 'event_ids', 'daily_parts', 'hourly_parts', 'session_parts') GROUP BY table"
    )
    assert dict(parts) == dict.fromkeys(("events", "event_ids", "daily_parts", "hourly_parts", "session_parts"), 1)


@pytest.mark.parametrize("contexts", [1, 3, 300, 70_000])
def test_what_the_events_of_a_record_share_is_stored_as_if_each_had_brought_it(
    clickhouse: InClickHouse, contexts: int
) -> None:
    events = []
    for record in range(max(contexts, 7)):
        name = f"ä{record % contexts}" * (record % 3 * 40)  # some empty, some longer than 127 bytes
        shared = partial(row, logOffset=record, app=name, url=name, bot=record % 2 == 1, appVersion=f"{record}")
        events += [shared(f"{record:05}-{n}", value=n or None, type="page" if n else "track") for n in range(5)]
    columns = dict(zip(EVENT_COLUMNS, event_columns(runs_of(events)), strict=True))
    assert all(isinstance(columns[name], Runs) for name in ("app", "url", "bot", "logOffset", "journal"))
    assert not any(isinstance(columns[name], Runs) for name in ("eventId", "value", "type"))
    clickhouse.blocks.write(Block(PARTITION, 0, contexts), BlockRows(events=runs_of(events)))
    milliseconds = ("timestamp", "receivedAt")
    names = (f"toUnixTimestamp64Milli({name})" if name in milliseconds else name for name in EVENT_COLUMNS)
    assert clickhouse.client.rows(f"SELECT {', '.join(names)} FROM events ORDER BY events.eventId") == events


def test_a_connection_goes_on_inserting_when_a_table_has_another_column_or_type(clickhouse: InClickHouse) -> None:
    clickhouse.blocks.write(Block(PARTITION, 0, 1), BlockRows(events=runs_of([row("e0")])))
    clickhouse.client.command("ALTER TABLE events ADD COLUMN later String DEFAULT 'x', MODIFY COLUMN app String")
    clickhouse.blocks.write(Block(PARTITION, 1, 2), BlockRows(events=runs_of([row("e1", app="workshop")])))
    assert clickhouse.client.rows("SELECT eventId, app, later FROM events ORDER BY eventId") == [
        ("e0", "", "x"),
        ("e1", "workshop", "x"),
    ]


def test_unique_users_follow_a_later_link_and_an_alias(clickhouse: InClickHouse) -> None:
    client = clickhouse.client
    visits = [row(f"e{n}", anonymousId=f"a{n}") for n in range(3)]
    clickhouse.blocks.write(Block(PARTITION, 0, 3), BlockRows(events=runs_of(visits)))
    unique = "SELECT uniqueUsers FROM aggregated_events WHERE eventAction = 'click'"
    assert client.rows(unique) == [(3,)]
    links = [row(f"l{n}", anonymousId=f"a{n}", userId="u", identity="link", eventAction="identify") for n in (0, 1)]
    clickhouse.blocks.write(Block(PARTITION, 3, 5), BlockRows(events=runs_of(links)))
    for dictionary in ("visitor_users", "user_persons"):
        client.command(f"SYSTEM RELOAD DICTIONARY {dictionary}")
    assert client.rows(unique) == [(2,)]


def test_a_tenants_retention_removes_its_old_events_and_keeps_the_rollups(clickhouse: InClickHouse) -> None:
    client, month = clickhouse.client, 31 * 86_400_000
    now = int(client.rows("SELECT toUnixTimestamp64Milli(now64(3))")[0][0])
    events = [row(f"{company}-old", now - 3 * month, companyId=company) for company in ("acme", "it's short")]
    clickhouse.blocks.write(Block(PARTITION, 0, 2), BlockRows(events=runs_of(events)))
    target = Target(client.rows("SELECT currentDatabase()")[0][0], retention_months=24)
    for _ in range(2):
        set_retention(client, target, {"it's short": 1})
    client.command("OPTIMIZE TABLE events FINAL")
    assert client.rows("SELECT companyId FROM events") == [("acme",)]
    assert client.rows("SELECT sum(totalEvents) FROM aggregated_events") == [(2,)]
