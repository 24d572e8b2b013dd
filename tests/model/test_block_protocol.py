"""The block protocol in every order of steps: the real writer, pipeline and stores over ClickHouse in memory."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Any

import pytest

from schemas.blocks import Block, BlockRows, Claim, Found, Lookup, Partition, RecentState
from schemas.records import CollectedEvent
from streams.prepared import Settled
from streams.writer import PartitionWriter
from tests.core.test_writer import collected_event, log_record
from tests.model.machine import without_a_loop
from tests.model.protocol import MINUTE, NOW, TOTALS, AskingStates, Log, Protocol
from tests.model.search import Search
from warehouse.blocks import ClickHouseBlockStore
from warehouse.orphans import ClickHouseOrphans
from warehouse.states import _JOURNALS, _POSITION

FIRST = Partition("first", "events.collected", 0)
RENEWED = Partition("renewed", "events.collected", 0)
SEPTEMBER, OCTOBER = NOW - 40 * 1_440 * MINUTE, NOW - MINUTE
DEAD = NOW - 1_000 * 1_440 * MINUTE


@pytest.fixture(autouse=True)
def _synchronous() -> Iterator[None]:
    with without_a_loop():
        yield


def new_log(partition: Partition, records: list[list[CollectedEvent]]) -> Log:
    """A record for each list of events, numbered by one journal."""
    seen: set[str] = set()
    dead = [
        tuple(place for place, event in enumerate(events) if event["timestamp"] == DEAD and is_first(event, seen))
        for events in records
    ]
    log = [
        log_record(offset, "a", events, "journal", offset + 1, received=NOW) for offset, events in enumerate(records)
    ]
    return Log(partition, tuple(log), tuple(dead))


def is_first(event: CollectedEvent, seen: set[str]) -> bool:
    first = event["eventId"] not in seen
    seen.add(event["eventId"])
    return first


def protocol_of(records: list[list[CollectedEvent]], *partitions: Partition, **rules: Any) -> Protocol:
    ids = Counter(event["eventId"] for events in records for event in events if event["timestamp"] != DEAD)
    dead = Counter(event["eventId"] for events in records for event in events if event["timestamp"] == DEAD)
    logs = tuple(new_log(partition, records) for partition in partitions)
    return Protocol(logs, ids, dead.total() - len(dead), **rules)


#: Two months in one block, a copy that only ClickHouse knows, a copy that memory knows, a dead letter and its copy.
RECORDS = [
    [collected_event("old", SEPTEMBER), collected_event("new", OCTOBER), collected_event("dead", DEAD)],
    [collected_event("old", SEPTEMBER), collected_event("dead", DEAD)],
    [collected_event("new", OCTOBER), collected_event("last", OCTOBER)],
]
NO_DEAD = [[collected_event("old", SEPTEMBER), collected_event("new", OCTOBER)]]
ONE = [[collected_event("old", SEPTEMBER), collected_event("new", OCTOBER), collected_event("dead", DEAD)]]
IS_DEEP = os.environ.get("MODEL_DEEP") == "1"
deep = pytest.mark.skipif(not IS_DEEP, reason="a search of minutes, made with MODEL_DEEP=1")


@pytest.mark.parametrize(
    ("records", "logs", "crashes", "faults"),
    [
        pytest.param(RECORDS[:2], 1, 1, 1, id="two records, a death, a fault"),
        pytest.param(RECORDS, 1, 0, 0, id="three records, zombies"),
        pytest.param(ONE, 2, 1, 1, id="a lost log, a death, a fault"),
        pytest.param(RECORDS[:2], 2, 0, 0, id="a lost log of two records"),
        pytest.param(RECORDS, 1, 2, 1, id="three records, deaths, a fault", marks=deep),
        pytest.param(RECORDS[:2], 2, 1, 1, id="a lost log of two records, a death, a fault", marks=deep),
    ],
)
@pytest.mark.timeout(0 if IS_DEEP else 300)
def test_no_order_of_steps_deaths_and_faults_loses_doubles_or_miscounts_anything(
    records: list[list[CollectedEvent]], logs: int, crashes: int, faults: int
) -> None:
    protocol = protocol_of(records, *(FIRST, RENEWED)[:logs], crashes=crashes, faults=faults)
    found = Search(protocol, limit=10_000_000).run()
    print(found)
    assert not found.broken, str(found)


class ClaimSkipped(ClickHouseBlockStore):
    """The writer trusts its own end."""

    def claim(self, wanted: Block, worker: str, token_suffix: str = "") -> Claim:
        return Claim(wanted.end, super().claim(wanted, worker, token_suffix).stored_end)


class AcknowledgedFirst(PartitionWriter):
    async def _store(self, block: Block, settled: Settled) -> None:
        for pending in self._pending:
            if pending.record.offset < block.end and pending.acknowledge is not None:
                pending.acknowledge()
        await super()._store(block, settled)


class LedgerFirst(PartitionWriter):
    async def _store(self, block: Block, settled: Settled) -> None:
        self._parts.blocks.finish(block, settled.accounts, self._parts.worker)
        await super()._store(block, settled)


class LettersLast(PartitionWriter):
    async def _store(self, block: Block, settled: Settled) -> None:
        rows = BlockRows(settled.rows.events, settled.rows.overrides)
        await super()._store(block, Settled(rows, settled.accounts))
        await super()._store(block, settled)


class NotReread(PartitionWriter):
    """A block that was stored elsewhere moves the position, and nothing else."""

    async def open(self) -> int:
        if self._state is None:
            return await super().open()
        self._state.position, _ = self._parts.states.position(self.partition)
        return self._state.position


class OwnRowsFound(AskingStates):
    """Rows of unfinished blocks are read back as if the ledger had them."""

    def recent(self, positions: Mapping[Partition, int], partitions: int, since: int) -> dict[Partition, RecentState]:
        return super().recent(dict.fromkeys(positions, 1 << 62), partitions, since)

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:  # noqa: ARG002
        return super().lookup(partition, 1 << 62, asked)


class LettersUnread(AskingStates):
    """Nobody asks which bad events have a letter."""

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:
        return super().lookup(partition, position, dataclasses.replace(asked, rejected=set()))


class Unread(AskingStates):
    """The journals' numbers are not read back."""

    def position(self, partition: Partition) -> tuple[int, Mapping[str, int]]:
        return super().position(partition)[0], {}


class NotAdopted(ClickHouseOrphans):
    def adopt(self, partition: Partition, journals: Mapping[str, int]) -> Set[tuple[str, str]]:  # noqa: ARG002
        return frozenset()


class NotAwaited(AskingStates):
    """Inserts of a lost log that still run are not waited for."""

    def position(self, partition: Partition) -> tuple[int, Mapping[str, int]]:
        where = {"log": partition.log_id, "topic": partition.topic, "number": partition.number}
        return int(self._rows(_POSITION, where)[0][0]), dict(self._rows(_JOURNALS, where))


def without_month(table: str, token: str) -> str:
    return token.rpartition("/")[0] if table == "events" else token


def without_log(table: str, token: str) -> str:  # noqa: ARG001
    return token.partition("/")[2]


FORGETFUL = dataclasses.replace(TOTALS, deduplicates=False)
BROKEN: dict[str, tuple[list[list[CollectedEvent]], int, dict[str, Any], str]] = {
    "a token without its month": (ONE, 1, {"token_of": without_month}, "rollup"),
    "a token without its log": (RECORDS[:2], 2, {"token_of": without_log}, ""),
    "a claim that is skipped": (RECORDS[:2], 1, {"blocks": ClaimSkipped}, ""),
    "an acknowledgement before the write": (ONE, 1, {"writer": AcknowledgedFirst}, "is committed"),
    "a ledger row before the write": (ONE, 1, {"writer": LedgerFirst}, "dead letters"),
    "a ledger row before the write, no dead letters": (
        NO_DEAD,
        1,
        {"writer": LedgerFirst, "crashes": 1},
        "stored 0 times",
    ),
    "dead letters after the ledger's row": (ONE, 1, {"writer": LettersLast}, "dead letters"),
    "a target of a view without a window": (ONE, 1, {"views": (FORGETFUL,)}, "rollup"),
    "a state that is not read again": (RECORDS, 1, {"writer": NotReread}, ""),
    "own unfinished rows taken for duplicates": (ONE, 1, {"states": OwnRowsFound, "crashes": 1}, "ledger counts"),
    "letters that are not looked up": (RECORDS[:2], 1, {"states": LettersUnread}, ""),
    "numbers of journals that are forgotten": (ONE, 2, {"states": Unread}, "ledger counts"),
    "orphans that nobody adopts": (ONE, 2, {"orphans": NotAdopted}, "ledger counts"),
    "inserts of a lost log that nobody waits for": (ONE, 2, {"states": NotAwaited}, ""),
    "workers that outlive their log": (ONE, 2, {"kills_workers_of_a_lost_log": False}, ""),
    "a token that stands without its rows": (ONE, 1, {"drops_tokens_without_rows": False, "faults": 1}, ""),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str) -> None:
    records, logs, broken, says = BROKEN[rule]
    protocol = protocol_of(records, *(FIRST, RENEWED)[:logs], **{"crashes": 0, "faults": 0, **broken})
    found = Search(protocol).run()
    print(f"{rule}: {found}")
    assert found.broken, f"{rule}: {found}"
    assert says in found.broken
    assert found.trace
