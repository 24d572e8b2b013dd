"""Claims, writes and finishes blocks in ClickHouse: exactly once, whichever process dies at whichever step.

A repeated insert under one token changes nothing, neither in its table nor in the targets of its views, and fills
only the views that an earlier failure left out. So each insert has a token made of the block's coordinates, and goes
into one calendar month, because a token that spans two partitions of a table is not safe.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from schemas.blocks import Accounts, Block, BlockRows, Claim
from schemas.records import DeadLetter
from schemas.stages import EVENT_COLUMNS, OWN_COLUMNS, EventRun
from warehouse.client import ClickHouse, available
from warehouse.native import Column, Runs

_TIMESTAMP: Final = OWN_COLUMNS.index("timestamp")
_DAY_MS: Final = 86_400_000
_AT_A_TIME: Final = 64
#: Events of a run, in the mean, from which on it pays to write what they share once.
_RUN: Final = 4
DEAD_LETTER_COLUMNS: Final = (
    "key",
    "companyId",
    "source",
    "reason",
    "field",
    "message",
    "eventId",
    "logId",
    "topic",
    "partition",
    "offset",
    "position",
    "receivedAt",
    "failedAt",
    "contentType",
    "payload",
    "truncated",
)
_letter_row: Final = itemgetter(*DEAD_LETTER_COLUMNS)
_CLAIM = """
SELECT
    (SELECT argMin(end, claimedAt) FROM block_claims
     WHERE logId = {log:String} AND topic = {topic:String} AND partition = {number:UInt32} AND start = {start:UInt64}),
    (SELECT max(end) FROM blocks
     WHERE logId = {log:String} AND topic = {topic:String} AND partition = {number:UInt32} AND start >= {start:UInt64})
"""


class ClickHouseBlockStore:
    """The BlockStore of production and of `headrace up`."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client

    def claim(self, wanted: Block, worker: str, token_suffix: str = "") -> Claim:
        """Insert the claim, read back who won and how far the ledger is."""
        partition = wanted.partition
        row = (partition.log_id, partition.topic, partition.number, wanted.start, wanted.end, worker)
        names = ("logId", "topic", "partition", "start", "end", "worker")
        self._insert("block_claims", names, _columns([row]), f"{partition}/{wanted.start}{token_suffix}")
        parameters = {
            "log": partition.log_id,
            "topic": partition.topic,
            "number": partition.number,
            "start": wanted.start,
        }
        end, stored_end = available(lambda: self._client.rows(_CLAIM, parameters))[0]
        return Claim(int(end), int(stored_end))

    def write(self, block: Block, rows: BlockRows) -> None:
        """One insert a month of events, then session overrides and dead letters."""
        token = f"{block.partition}/{block.start}-{block.end}"
        for month, events in sorted(by_month(rows.events).items()):
            self._insert("events", EVENT_COLUMNS, event_columns(events), f"{token}/{month}")
        if rows.overrides:
            overrides = [(*where, (start, target)) for *where, start, target in rows.overrides]
            names = ("companyId", "visitorId", "sessionId", "target")
            self._insert("session_overrides", names, _columns(overrides), f"{token}/overrides")
        if rows.dead_letters:
            letters = _columns(_letter_rows(rows.dead_letters))
            self._insert("dead_letters", DEAD_LETTER_COLUMNS, letters, f"{token}/dead")

    def finish(self, block: Block, accounts: Accounts, worker: str, token_suffix: str = "") -> None:
        """The ledger's row: from now on the block is stored."""
        partition = block.partition
        row = {
            "logId": partition.log_id,
            "topic": partition.topic,
            "partition": partition.number,
            "start": block.start,
            "end": block.end,
            "worker": worker,
            "records": accounts.records,
            "redelivered": accounts.redelivered,
            "events": accounts.events,
            "stored": accounts.stored,
            "duplicate": accounts.duplicate,
            "dead": accounts.dead,
            "journals": dict(accounts.journals),
            "firstReceivedAt": accounts.first_received_at,
            "lastReceivedAt": accounts.last_received_at,
        }
        token = f"{partition}/{block.start}-{block.end}{token_suffix}"
        self._insert("blocks", tuple(row), _columns([tuple(row.values())]), token)

    def _insert(self, table: str, names: Sequence[str], columns: Sequence[Column], token: str) -> None:
        available(lambda: self._client.insert(table, names, columns, token))


def event_columns(runs: Sequence[EventRun]) -> Sequence[Column]:
    """Runs as columns in the order of EVENT_COLUMNS: what their events share in runs, if those are long enough."""
    own = _columns(list(chain.from_iterable([run.own for run in runs])))
    shared = _columns([run.shared for run in runs])
    counts = [len(run.own) for run in runs]
    if len(runs) == len(own[0]):
        return [*own, *shared]
    in_runs = [Runs(values, counts) for values in shared]
    return [*own, *(in_runs if _RUN * len(runs) <= len(own[0]) else map(list, in_runs))]


def by_month(runs: Iterable[EventRun]) -> dict[str, list[EventRun]]:
    """Runs of rows of `events` by calendar month, as the table is partitioned; one that spans several is cut."""
    by_month: dict[str, list[EventRun]] = defaultdict(list)
    for run in runs:
        months = {_month_of(day) for day in {row[_TIMESTAMP] // _DAY_MS for row in run.own}}
        for month in months:
            by_month[month].append(run if len(months) == 1 else _in_month(run, month))
    return by_month


def _in_month(run: EventRun, month: str) -> EventRun:
    return EventRun([row for row in run.own if _month_of(row[_TIMESTAMP] // _DAY_MS) == month], run.shared)


@lru_cache(maxsize=1024)
def _month_of(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y%m")


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows turned; few at a time, since all rows of a large block are more than the processor's cache holds."""
    columns: list[list[Any]] = [[] for _ in rows[0]]
    for first in range(0, len(rows), _AT_A_TIME):
        for column, values in zip(columns, zip(*rows[first : first + _AT_A_TIME], strict=True), strict=True):
            column += values
    return columns


def _letter_rows(letters: Iterable[DeadLetter]) -> list[tuple[Any, ...]]:
    return list(map(_letter_row, letters))
