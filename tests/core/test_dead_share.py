"""Too many dead letters pause a partition: what is judged, and that the writer stores nothing meanwhile."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from schemas.stages import LogRecord, Rejection
from schemas.tenants import Tenant
from streams.core.dead_share import NEVER, DeadLimit, DeadShare, judged, tell_pause
from streams.core.validate import Rules
from streams.writer import PartitionWriter, Parts, Pending
from tests.core.test_writer import BAD, CODEC, NOW, PARTITION, Letters, collected_event, deliver, log_record, new_parts
from warehouse.memory import MemoryWarehouse

HALF = DeadLimit(0.5, 10)
ACME, BOLT = {"acme": Tenant(company_id="acme")}, {"bolt": Tenant(company_id="bolt")}


def rejection(company: str, reason: Reason = Reason.PROPERTY_SCHEMA) -> Rejection:
    return Rejection(0, 0, reason, "", "", company)


def test_few_events_are_never_too_many() -> None:
    assert not DeadShare(HALF).is_over(9, 9)
    assert DeadShare(HALF).is_over(10, 6)
    assert not DeadShare(HALF).is_over(10, 5)


def test_a_limit_of_one_is_never_exceeded() -> None:
    assert not DeadShare(NEVER).is_over(1_000, 1_000)


def test_good_events_of_long_ago_do_not_hide_bad_ones_of_now() -> None:
    share = DeadShare(HALF)
    for _ in range(1_000):
        share.add(10, 0)
    assert not share.is_over(5, 5)
    assert share.is_over(11, 11)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), max_size=60), st.integers(1, 50))
def test_of_the_events_let_through_in_a_row_no_more_than_the_share_and_two_windows_are_dead(
    blocks: list[tuple[int, float]], window: int
) -> None:
    limit = DeadLimit(0.5, window)
    share, passed = DeadShare(limit), list[tuple[int, int]]()
    for events, part in blocks:
        dead = round(events * part)
        if not share.is_over(events, dead):
            share.add(events, dead)
            passed.append((events, dead))
    largest = max((events for events, _ in passed), default=0)
    for start in range(len(passed)):
        events, dead = (sum(column) for column in zip(*passed[start:], strict=True))
        # The blocks before them may have been good: a window of them, and what its oldest block is more than that.
        assert dead <= limit.share * (events + window + largest) + window


def test_who_accepts_its_dead_letters_does_not_count() -> None:
    tenants = {name: Tenant(company_id=name, accept_dead_letters=name == "acme") for name in ("acme", "bolt")}
    kept = judged([rejection("acme"), rejection("bolt"), rejection("nobody")], tenants)
    assert [each.company_id for each in kept] == ["bolt", "nobody"]


def test_the_sentence_names_tenant_and_reason_that_lead_and_what_to_do() -> None:
    bad = [rejection("acme")] * 3 + [rejection("bolt", Reason.PLAN_FORBIDDEN_EVENT)] * 5
    told = tell_pause(HALF, 12, bad)
    assert told.startswith("8 of the next 12 events would become dead letters, 5 of them of tenant bolt for plan_forb")
    assert "HEADRACE_DEAD_SHARE_LIMIT (0.5)" in told
    assert "acceptDeadLetters: true" in told


def parts_with(warehouse: MemoryWarehouse, letters: Letters, tenants: Sequence[Mapping[str, Tenant]]) -> Parts:
    """The last of `tenants` are the ones there are."""
    parts = new_parts(warehouse, letters)
    return dataclasses.replace(parts, dead_limit=HALF, rules=lambda: Rules(tenants[-1], 24))


def log_of(company: str, first: int, events: int, **fields: object) -> list[LogRecord]:
    found = []
    for offset in range(first, first + events):
        event = collected_event(f"e{offset}", NOW, **fields)
        record = CODEC.decode_collected(log_record(offset, "a", [event]).value or b"")
        found.append(LogRecord(offset, b"", CODEC.encode_collected({**record, "companyId": company})))
    return found


async def pausing(parts: Parts, log: list[LogRecord]) -> tuple[PartitionWriter, "asyncio.Task[None]"]:
    """A writer that has these records and has paused."""
    writer = PartitionWriter(PARTITION, 1, parts, remembers=True)
    await writer.open()
    writer.put(Pending(record, 0.0, None) for record in log)
    running = asyncio.create_task(writer.run())
    while not writer.paused:
        assert not running.done()
        await asyncio.sleep(0.01)
    return writer, running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.writer._RULES_SECONDS", 0.01)


async def test_a_block_of_dead_letters_pauses_its_partition_and_nothing_of_it_is_stored() -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    parts = parts_with(warehouse, letters, [ACME])
    writer, running = await pausing(parts, [*log_of("acme", 0, 5), *log_of("nobody", 5, 6)])
    await asyncio.sleep(0.05)
    assert writer.paused
    assert (warehouse.events, warehouse.ledger, letters.sent, writer.position) == ([], [], [], 0)
    await writer.close()
    await running
    await writer.write_rest()
    assert warehouse.ledger == []


@pytest.mark.parametrize(
    ("bad", "then", "stored", "dead"),
    [
        pytest.param(log_of("bolt", 5, 6), {**ACME, **BOLT}, 11, 0, id="mended"),
        pytest.param(
            log_of("acme", 5, 6, **BAD),
            {"acme": Tenant(company_id="acme", accept_dead_letters=True)},
            5,
            6,
            id="accepted",
        ),
    ],
)
async def test_a_paused_partition_goes_on_when_the_tenants_file_says_so(
    bad: list[LogRecord], then: Mapping[str, Tenant], stored: int, dead: int
) -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    tenants: list[Mapping[str, Tenant]] = [ACME]
    parts = parts_with(warehouse, letters, tenants)
    writer, running = await pausing(parts, [*log_of("acme", 0, 5), *bad])
    tenants.append(then)
    while writer.paused:
        assert not running.done()
        await asyncio.sleep(0.01)
    await writer.close()
    await running
    assert (len(warehouse.events), len(letters.sent)) == (stored, dead)


async def test_after_a_restart_with_a_higher_limit_the_dead_letters_are_written() -> None:
    warehouse, letters = MemoryWarehouse(), Letters()
    parts = parts_with(warehouse, letters, [ACME])
    log = [*log_of("acme", 0, 5), *log_of("nobody", 5, 6)]
    writer, running = await pausing(parts, log)
    await writer.close()
    await running
    await deliver(dataclasses.replace(parts, dead_limit=NEVER), log, [])
    assert (len(warehouse.events), len(letters.sent)) == (5, 6)
    assert [block.end for block, _ in warehouse.ledger] == [11]
