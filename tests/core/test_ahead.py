"""What was prepared in advance is what would be prepared now, and is prepared once."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.stages import LogRecord
from schemas.tenants import Tenant
from streams.ahead import Ahead
from streams.core.validate import Rules
from streams.prepared import Prepared
from tests.core.test_writer import PIPELINE, collected_event, log_record
from tests.filling import NOW

ACME, NOBODY = Rules({"acme": Tenant(company_id="acme")}, 24), Rules({}, 24)


class Counting:
    """The pipeline, and the offsets it was given; `reached` is set once they are so many."""

    def __init__(self, count: int) -> None:
        self.offsets: list[int] = []
        self.reached = asyncio.Event()
        self.count, self._loop = count, asyncio.get_running_loop()

    def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared:
        self.offsets += [record.offset for record in records]
        if len(self.offsets) >= self.count:
            self._loop.call_soon_threadsafe(self.reached.set)
        return PIPELINE.prepare(records, journals, rules)


def log_of(sequences: Sequence[int]) -> list[LogRecord]:
    """Records of one journal with these numbers; one that does not rise was sent before."""
    return [
        log_record(offset, "a", [collected_event(f"e{offset}", NOW - offset)], "journal", sequence, NOW + offset)
        for offset, sequence in enumerate(sequences)
    ]


def said(prepared: Prepared) -> tuple[object, ...]:
    events = [(run.offset, run.context, run.events, run.times) for run in prepared.runs]
    rejected = [(rejection.offset, rejection.reason) for rejection in prepared.rejections]
    received = prepared.first_received_at, prepared.last_received_at
    return prepared.journals, prepared.records, prepared.redelivered, events, rejected, received


@asynccontextmanager
async def prepared_in_advance(
    pipeline: Counting, log: Sequence[LogRecord], size: int, limit: int = 1_000_000
) -> AsyncIterator[Ahead]:
    """All of the log, or as much as the limit lets, so many records at a time."""
    ahead = Ahead(pipeline, lambda: ACME, limit)
    for start in range(0, len(log), size):
        ahead.feed(log[start : start + size])
    running = asyncio.create_task(ahead.run(dict))
    await asyncio.wait_for(pipeline.reached.wait(), 60)
    yield ahead
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_was_prepared_in_advance_is_not_prepared_again() -> None:
    pipeline, log = Counting(12), log_of(range(1, 13))
    async with prepared_in_advance(pipeline, log, 3) as ahead:
        first = await ahead.take(log[:6], {}, ACME)
        rest = await ahead.take(log[6:], first.journals, ACME)
    assert (first.records, first.events, rest.records, rest.events) == (6, 6, 6, 6)
    assert pipeline.offsets == list(range(12))


async def test_no_more_is_prepared_in_advance_than_the_limit_until_some_of_it_is_taken() -> None:
    pipeline, log = Counting(4), log_of(range(1, 13))
    async with prepared_in_advance(pipeline, log, 2, limit=4 * len(log[0].value or b"") - 1) as ahead:
        await asyncio.sleep(0.05)
        assert pipeline.offsets == list(range(4))
        pipeline.count = 6
        pipeline.reached.clear()
        await ahead.take(log[:2], {}, ACME)
        await asyncio.wait_for(pipeline.reached.wait(), 60)
        await asyncio.sleep(0.05)
        assert pipeline.offsets == list(range(6))


@pytest.mark.parametrize(
    ("journals", "rules"),
    [({"journal": 3}, ACME), ({"another": 1}, ACME), ({}, NOBODY)],
    ids=["a higher number", "another journal", "rules"],
)
async def test_what_was_prepared_under_other_conditions_is_prepared_again(
    journals: Mapping[str, int], rules: Rules
) -> None:
    pipeline, log = Counting(6), log_of(range(1, 7))
    async with prepared_in_advance(pipeline, log, 2) as ahead:
        found = await ahead.take(log, journals, rules)
    assert said(found) == said(PIPELINE.prepare(log, dict(journals), rules))
    assert pipeline.offsets == [*range(6), *range(6)]


@settings(max_examples=100, deadline=None)
@given(
    sequences=st.lists(st.integers(1, 20), min_size=1, max_size=16),
    fed=st.lists(st.integers(1, 6), max_size=12),
    taken=st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.sampled_from([ACME, ACME, NOBODY])), max_size=12),
)
def test_however_records_come_and_are_taken_they_are_prepared_as_if_all_came_at_once(
    sequences: list[int], fed: list[int], taken: list[tuple[int, bool, Rules]]
) -> None:
    """Blocks may end anywhere, with what comes prepared, on the way, or not come to it yet."""
    log = log_of(sequences)

    async def run() -> None:
        ahead, journals, given_out, came = Ahead(PIPELINE, lambda: ACME, 500), dict[str, int](), 0, 0
        running = asyncio.create_task(ahead.run(dict))
        sizes = iter(fed)
        for size, at_once, rules in [*taken, (len(log), True, ACME)]:
            count = next(sizes, len(log))
            ahead.feed(log[came : came + count])
            came = min(came + count, len(log))
            if not at_once:
                await asyncio.sleep(0.002)
            block = log[given_out : min(given_out + size, came)]
            if block:
                found = await ahead.take(block, journals, rules)
                assert said(found) == said(PIPELINE.prepare(block, dict(journals), rules))
                journals, given_out = found.journals, given_out + len(block)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
