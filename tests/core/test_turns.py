"""The partitions of a worker take turns in storing their blocks."""

import asyncio
import dataclasses
import threading

import pytest

from schemas.blocks import Block, BlockRows, Claim, Partition, StoreUnavailable
from schemas.stages import LogRecord
from schemas.tenants import Tenant
from streams.core.dead_share import DeadLimit
from streams.core.validate import Rules
from streams.turns import Turns
from streams.writer import PartitionWriter, Parts, Pending
from tests.contract.broker_fixture import until
from tests.core.test_writer import BAD, NOW, Letters, collected_event, log_record, new_parts
from warehouse.memory import MemoryWarehouse

FIRST, SECOND = (Partition("log", "events.collected", number) for number in range(2))
LOG = [log_record(offset, "a", [collected_event(f"e{offset}", NOW)]) for offset in range(2)]


async def opened(partition: Partition, parts: Parts) -> PartitionWriter:
    writer = PartitionWriter(partition, 2, parts, remembers=True)
    await writer.open()
    return writer


def put(writer: PartitionWriter, record: LogRecord) -> None:
    writer.put([Pending(record, NOW / 1000, None)])


async def stop(*running: "asyncio.Task[None]", writers: tuple[PartitionWriter, ...]) -> None:
    for writer in writers:
        await writer.close()
    await asyncio.gather(*running)


@pytest.mark.parametrize(("at_once", "ends"), [(1, [2]), (2, [1, 2])])
async def test_a_block_that_waits_for_its_turn_grows(at_once: int, ends: list[int]) -> None:
    class Held(MemoryWarehouse):
        """Stores nothing of the first partition until it is let go."""

        def write(self, block: Block, rows: BlockRows) -> None:
            if block.partition == FIRST:
                begun.set()
                assert go.wait(60)
            super().write(block, rows)

    begun, go, warehouse = threading.Event(), threading.Event(), Held()
    parts = dataclasses.replace(new_parts(warehouse, Letters()), turns=Turns(at_once))
    first, second = await opened(FIRST, parts), await opened(SECOND, parts)
    running = [asyncio.create_task(writer.run()) for writer in (first, second)]
    put(first, LOG[0])
    await until(begun.is_set)
    put(second, LOG[0])
    await (until(lambda: second.position == 1) if at_once == 2 else asyncio.sleep(0.05))  # it falls due
    put(second, LOG[1])
    go.set()
    await until(lambda: (first.position, second.position) == (1, 2))
    await stop(*running, writers=(first, second))
    assert [block.end for block, _ in warehouse.ledger if block.partition == SECOND] == ends


async def test_a_partition_that_finds_the_warehouse_away_does_not_keep_its_turn() -> None:
    class Away(MemoryWarehouse):
        """Away for the first partition."""

        def claim(self, wanted: Block, worker: str) -> Claim:
            if wanted.partition == FIRST:
                asked.set()
                raise StoreUnavailable("away")
            return super().claim(wanted, worker)

    asked = threading.Event()
    parts = dataclasses.replace(new_parts(Away(), Letters()), turns=Turns(1))
    first, second = await opened(FIRST, parts), await opened(SECOND, parts)
    running = [asyncio.create_task(writer.run()) for writer in (first, second)]
    put(first, LOG[0])
    await until(asked.is_set)
    put(second, LOG[0])
    await until(lambda: second.position == 1)
    await stop(*running, writers=(first, second))
    assert first.position == 0


async def test_a_partition_that_pauses_for_its_dead_letters_does_not_keep_its_turn() -> None:
    rules = Rules({"acme": Tenant(company_id="acme")}, 24)
    parts = dataclasses.replace(
        new_parts(MemoryWarehouse(), Letters()),
        turns=Turns(1),
        dead_limit=DeadLimit(0.5, 1),
        rules=lambda: rules,
    )
    first, second = await opened(FIRST, parts), await opened(SECOND, parts)
    running = [asyncio.create_task(writer.run()) for writer in (first, second)]
    put(first, log_record(0, "a", [collected_event("bad", NOW, **BAD)]))
    await until(lambda: first.paused)
    put(second, LOG[0])
    await until(lambda: second.position == 1)
    await stop(*running, writers=(first, second))
    assert first.position == 0
