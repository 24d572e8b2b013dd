"""Every named point of a block is passed, and a worker that dies there is exact when it comes back."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from headrace.faults import POINTS, FragileClickHouse, FragileConsumer, FragileLetters, reach_in
from schemas.settings import ClickHouseSettings
from streams.ledger_transport import LedgerConsumer
from tests.core.test_writer import (
    MINUTE,
    NOW,
    Killed,
    Letters,
    collected_event,
    deliver,
    log_record,
    new_parts,
)
from warehouse.blocks import ClickHouseBlockStore
from warehouse.client import ClickHouse
from warehouse.memory import MemoryWarehouse
from warehouse.orphans import ClickHouseOrphans
from warehouse.states import ClickHouseStateStore

MONTH = 31 * 24 * 60 * MINUTE
#: Two months, a session that a late event bridges, and an event without a tenant that becomes a dead letter.
LOG = [
    log_record(0, "a", [collected_event("a0", NOW - 100 * MINUTE), collected_event("a1", NOW - 50 * MINUTE)]),
    log_record(1, "a", [collected_event("a2", NOW - 75 * MINUTE), collected_event("old", NOW - MONTH)]),
    log_record(2, "b", [collected_event("broken", NOW, eventCategory="search", eventAction="search")]),
    log_record(3, "b", [collected_event("b0", NOW)]),
]


def die() -> None:
    raise Killed


@pytest.mark.parametrize("point", [point for point in POINTS if not point.endswith("commit")])
async def test_a_worker_that_dies_at_a_named_point_is_exact_when_it_comes_back(
    client: ClickHouse, warehouse_url: str, database: str, tmp_path: Path, point: str
) -> None:
    reach = reach_in(tmp_path, die)
    settings = ClickHouseSettings(clickhouse_url=warehouse_url, clickhouse_database=database)
    fragile, letters = FragileClickHouse(settings, reach), Letters()
    parts = dataclasses.replace(
        new_parts(MemoryWarehouse(), letters),
        blocks=ClickHouseBlockStore(fragile),
        states=ClickHouseStateStore(fragile, 1_000),
        orphans=ClickHouseOrphans(fragile),
        letters=FragileLetters(letters, reach),
    )
    await deliver(parts, LOG[:1], [])
    (tmp_path / point).write_text("")
    with pytest.raises(Killed):
        await deliver(parts, LOG, [])
    assert not (tmp_path / point).exists(), "a worker that starts again would die of it again"
    await deliver(parts, LOG, [])
    assert client.rows("SELECT eventId FROM events ORDER BY eventId") == [("a0",), ("a1",), ("a2",), ("b0",), ("old",)]
    assert client.rows("SELECT eventId FROM dead_letters FINAL") == [("broken",)]
    assert client.rows("SELECT sum(stored), sum(dead), max(end) FROM blocks") == [(5, 1, 4)]
    assert client.rows("SELECT sum(totalEvents) FROM aggregated_events") == [(5,)]
    fragile.close()


async def test_a_commit_passes_a_point_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []

    async def commit(_self: Any, offsets: dict[TP, int]) -> bool:
        passed.append("commit")
        return bool(offsets)

    monkeypatch.setattr(LedgerConsumer.__mro__[1], "_commit", commit)
    consumer: FragileConsumer = object.__new__(
        type("Consumer", (FragileConsumer,), {"reach": staticmethod(passed.append)})
    )
    assert await consumer._commit({TP("topic", 0): 1})
    assert passed == ["before_commit", "commit", "after_commit"]


def test_a_point_kills_at_the_passing_that_its_file_names_and_once(tmp_path: Path) -> None:
    (tmp_path / "after_claim").write_text("3")
    script = (
        "import pathlib, sys; from headrace.faults import reach_in\n"
        f"reach = reach_in(pathlib.Path({str(tmp_path)!r}))\n"
        "for n in range(4): reach('before_claim'); print(n, flush=True); reach('after_claim')"
    )
    ends = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=False) for _ in range(2)]
    assert [(end.returncode, end.stdout.split()) for end in ends] == [
        (-signal.SIGKILL, [b"0", b"1", b"2"]),
        (0, [b"0", b"1", b"2", b"3"]),
    ]
