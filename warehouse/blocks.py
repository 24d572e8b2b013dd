"""Claims, writes and finishes blocks in ClickHouse: exactly once, whichever process dies at whichever step.

A repeated insert under one token changes nothing, neither in its table nor in the targets of its views, and fills
only the views that an earlier failure left out. So each insert has a token made of the block's coordinates, and goes
into one calendar month, because a token that spans two partitions of a table is not safe.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, groupby
from typing import Any, Final

from schemas.blocks import Accounts, Block, BlockRows, Claim
from schemas.records import DeadLetter
from schemas.stages import EVENT_COLUMNS
from warehouse.client import ClickHouse, available
from warehouse.native import Column, Runs

_TIMESTAMP: Final = EVENT_COLUMNS.index("timestamp")
_OFFSET: Final = EVENT_COLUMNS.index("logOffset")
#: Events of a record, in the mean, from which on it pays to look whether they agree.
_RECORD: Final = 4
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
        self._insert("block_claims", names, [row], f"{partition}/{wanted.start}{token_suffix}")
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
            columns = event_columns(events)
            available(partial(self._client.insert, "events", EVENT_COLUMNS, columns, f"{token}/{month}"))
        if rows.overrides:
            overrides = [(*where, (start, target)) for *where, start, target in rows.overrides]
            names = ("companyId", "visitorId", "sessionId", "target")
            self._insert("session_overrides", names, overrides, f"{token}/overrides")
        if rows.dead_letters:
            self._insert("dead_letters", DEAD_LETTER_COLUMNS, _letter_rows(rows.dead_letters), f"{token}/dead")

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
        self._insert("blocks", tuple(row), [tuple(row.values())], token)

    def _insert(self, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]], token: str) -> None:
        columns = list(zip(*rows, strict=True))
        available(lambda: self._client.insert(table, names, columns, token))


def event_columns(rows: Sequence[tuple[Any, ...]]) -> list[Column]:
    """Rows of `events` as columns: in runs, a record each, those in which the events of every record agree."""
    columns = list(zip(*rows, strict=True))
    ends = list(accumulate(len(list(record)) for _, record in groupby(columns[_OFFSET])))
    if _RECORD * len(ends) > len(rows):
        return list(columns)
    bounds = list(zip([0, *ends], ends, strict=False))
    return [_in_runs(column, bounds) for column in columns]


def _in_runs(column: tuple[Any, ...], bounds: Sequence[tuple[int, int]]) -> Column:
    values = []
    for start, end in bounds:
        value = column[start]
        if column[start:end].count(value) != end - start:
            return column
        values.append(value)
    return Runs(values, [end - start for start, end in bounds])


def by_month(events: Iterable[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of `events` by calendar month, as the table is partitioned."""
    months: dict[int, str] = {}
    by_month: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in events:
        day = row[_TIMESTAMP] // 86_400_000
        month = months.get(day)
        if month is None:
            month = months[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y%m")
        by_month[month].append(row)
    return by_month


def _letter_rows(letters: Iterable[DeadLetter]) -> list[tuple[Any, ...]]:
    return [tuple(letter[name] for name in DEAD_LETTER_COLUMNS) for letter in letters]
