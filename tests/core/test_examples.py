"""Every published example goes through intake, the codec and the pipeline; what becomes of it is a snapshot.

HEADRACE_UPDATE_SNAPSHOTS=1 writes the snapshot anew; read the difference before you commit it.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from collector.arrival import Arrival, Sender
from collector.batch import parse_batch
from collector.intake import take
from schemas.blocks import Partition
from schemas.codec import Codec
from schemas.records import CollectedRecord, DeadLetter
from schemas.stages import EVENT_COLUMNS, LogRecord
from schemas.tenants import Tenant
from schemas.topics import COLLECTED
from streams.core.redact import DEFAULT_POLICY
from streams.core.validate import Rules
from streams.pipeline import Pipeline
from streams.user_agents import parse_user_agent
from streams.writer import Memory, PartitionWriter, Parts, Pending
from warehouse.memory import MemoryWarehouse

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
VALID = sorted(EXAMPLES.glob("*.json"))
INVALID = sorted((EXAMPLES / "invalid").glob("*.json"))
SNAPSHOT = Path(__file__).parent / "snapshots" / "examples.json"
NOW = 1_795_600_000_000  # 2026-11-25, a day after the examples
CODEC = Codec()


class NoLetters:
    async def send(self, letters: Any) -> None:  # noqa: ARG002
        return

    async def close(self) -> None:
        return


def process(event: Any) -> tuple[list[dict[str, Any]], list[DeadLetter]]:
    """The rows and dead letters of one event sent by itself."""
    arrival = Arrival("acme", Sender("203.0.113.77", "", ""), NOW, lambda: "minted")
    intake = take(parse_batch(json.dumps(event).encode(), None), arrival)
    collected: list[CollectedRecord] = [out.record for out in intake.records if out.topic == COLLECTED]  # type: ignore[misc]
    letters: list[DeadLetter] = [out.record for out in intake.records if out.topic != COLLECTED]  # type: ignore[misc]
    warehouse = MemoryWarehouse()
    asyncio.run(store(warehouse, collected))
    rows = [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in warehouse.events]
    return rows, [*letters, *warehouse.dead_letters.values()]


async def store(warehouse: MemoryWarehouse, collected: list[CollectedRecord]) -> None:
    pipeline = Pipeline(CODEC, DEFAULT_POLICY, parse_user_agent, lambda _: "", 1_800_000)
    parts = Parts(
        blocks=warehouse,
        states=warehouse,
        orphans=warehouse,
        letters=NoLetters(),
        pipeline=pipeline,
        rules=lambda: Rules({"acme": Tenant(company_id="acme")}, 24),
        clock=lambda: NOW,
        worker="w",
        memory=Memory(3_600_000, 1_000, 7_200_000, 1_800_000),
        linger=1,
        max_bytes=1 << 20,
    )
    writer = PartitionWriter(Partition("log", COLLECTED, 0), 1, parts, remembers=True)
    await writer.open()
    for offset, record in enumerate(collected):
        writer.put([Pending(LogRecord(offset, b"acme:v", CODEC.encode_collected(record)), 0.0, lambda: None)])
    await writer.write_rest()


def test_every_valid_example_becomes_the_row_of_its_snapshot() -> None:
    found = {}
    for path in VALID:
        rows, letters = process(json.loads(path.read_text()))
        assert letters == [], path.name
        (row,) = rows
        found[path.stem] = {name: value for name, value in row.items() if value not in ("", None)}
    if os.environ.get("HEADRACE_UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_every_invalid_example_becomes_a_dead_letter_of_its_reason_and_field(path: Path) -> None:
    example = json.loads(path.read_text())
    rows, letters = process(example["event"])
    assert rows == []
    (letter,) = letters
    assert (letter["reason"], letter["field"]) == (example["reason"], example["field"])
