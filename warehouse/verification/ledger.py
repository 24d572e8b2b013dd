"""The ledger against itself, against the rows of `events`, and against the dead letters of streams."""

from typing import Any, Final

from schemas.topics import COLLECTED
from warehouse.verification.findings import FIRST, Findings, name_key
from warehouse.verification.scope import Scope, Tick

_BLOCK: Final = ("logId", "topic", "partition", "start")

_CHAIN: Final = f"""
SELECT logId, topic, partition, start, end, before, events, stored + duplicate + dead
FROM (
    SELECT *, lagInFrame(toNullable(end)) OVER (
        PARTITION BY logId, topic, partition ORDER BY start, end ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS before
    FROM blocks
)
WHERE (before IS NOT NULL AND before != start) OR end <= start OR events != stored + duplicate + dead
ORDER BY logId, topic, partition, start LIMIT {FIRST + 1}
"""

# Every row that came from the log with the block that its offset lies in; `end` is 0 where there is none.
_PLACED: Final = f"""
SELECT r.logId AS logId, r.partition AS partition, r.offset AS offset, b.start AS start, b.end AS end
FROM ({{rows}}) AS r
ASOF LEFT JOIN (SELECT logId, partition, start, end FROM blocks WHERE topic = '{COLLECTED}') AS b
ON r.logId = b.logId AND r.partition = b.partition AND r.offset >= b.start
"""
_EVENT_ROWS: Final = "SELECT logId, logPartition AS partition, logOffset AS offset FROM events"
_LETTER_ROWS: Final = f"""
SELECT logId, toUInt32(partition) AS partition, toUInt64(offset) AS offset FROM dead_letters FINAL
WHERE source = 'streams' AND topic = '{COLLECTED}'
"""

# A block without records was adopted from a lost log: its rows count in the blocks where their records came again.
_PER_BLOCK: Final = f"""
SELECT logId, '{COLLECTED}' AS topic, partition, start,
    sum(expected) AS expected, sum(found) AS found, max(records) = 0 AS adopted
FROM (
    SELECT logId, partition, start, toInt64({{column}}) AS expected, toInt64(0) AS found, records
    FROM blocks WHERE topic = '{COLLECTED}'
    UNION ALL
    SELECT logId, partition, start, toInt64(0), toInt64(count()), 0 FROM ({{placed}}) WHERE offset < end
    GROUP BY logId, partition, start
)
GROUP BY logId, partition, start HAVING expected != found
"""
_SUMMED: Final = """
SELECT sumIf(expected - found, expected > found), sumIf(found, adopted), countIf(found > expected AND NOT adopted)
FROM ({per_block})
"""
_OUTSIDE: Final = f"""
SELECT logId, partition, offset >= c.end AS stray, count(), min(offset), max(offset)
FROM (SELECT logId, partition, offset FROM ({{placed}}) WHERE offset >= end) AS r
ASOF LEFT JOIN (
    SELECT logId, partition, start, argMin(end, claimedAt) AS end FROM block_claims WHERE topic = '{COLLECTED}'
    GROUP BY logId, partition, start
) AS c
ON r.logId = c.logId AND r.partition = c.partition AND r.offset >= c.start
GROUP BY logId, partition, stray ORDER BY logId, partition
"""


def check_ledger(scope: Scope, tick: Tick) -> Findings:
    """Blocks follow each other without gap or overlap, and each stored what it says.

    Rows of a block that was claimed and is not in the ledger are on their way: noted, not compared. Rows that
    retention removed are known by number, from `session_parts`, and rows of adopted blocks count in other blocks: so
    while the blocks together miss as many rows as these are, none is missing.
    """
    findings = Findings("ledger")
    findings.compared = int(scope.client.rows("SELECT count() FROM blocks")[0][0])
    for row in scope.client.rows(_CHAIN):
        _judge_block(findings, row)
    tick(0.3)
    _compare_blocks(scope, findings, _EVENT_ROWS, "stored", "rows of events", _removed_by_retention(scope))
    tick(0.8)
    _compare_blocks(scope, findings, _LETTER_ROWS, "dead", "dead letters", 0)
    return findings


def _judge_block(findings: Findings, row: tuple[Any, ...]) -> None:
    *block, end, before, events, accounted = row
    key = name_key(_BLOCK, block)
    start = block[-1]
    if before is not None and before != start:
        what = "start, after a gap" if start > before else "start, overlapping the block before"
        findings.differ(key, what, before, start)
    if end <= start:
        findings.differ(key, "end", f"more than {start}", end)
    if events != accounted:
        findings.differ(key, "events = stored + duplicate + dead", events, accounted)


def _compare_blocks(scope: Scope, findings: Findings, rows: str, column: str, what: str, removed: int) -> None:
    placed = _PLACED.format(rows=rows)
    per_block = _PER_BLOCK.format(placed=placed, column=column)
    missing, adopted, extra = map(int, scope.client.rows(_SUMMED.format(per_block=per_block))[0])
    explained = removed <= missing <= removed + adopted
    if removed and explained:
        findings.notes.append(f"{removed} {what} were removed by retention")
    if missing < removed + adopted and explained:
        findings.notes.append(f"{removed + adopted - missing} {what} of a lost log are there and not counted yet")
    if extra or not explained:
        condition = "found > expected" if explained else "1"
        listed = f"SELECT logId, topic, partition, start, expected, found FROM ({per_block}) WHERE {condition}"
        for *block, expected, found in scope.client.rows(
            f"{listed} AND NOT adopted ORDER BY partition, start LIMIT {FIRST}"
        ):
            findings.differ(name_key(_BLOCK, block), f"{what} ({column})", expected, found)
    _judge_outside(scope, findings, placed, what)


def _judge_outside(scope: Scope, findings: Findings, placed: str, what: str) -> None:
    for log_id, partition, stray, count, first, last in scope.client.rows(_OUTSIDE.format(placed=placed)):
        where = f"logId={log_id} partition={partition} offset={first}..{last}"
        if stray:
            findings.differ(where, f"{what} outside of every block", 0, count)
        else:
            findings.notes.append(f"{count} {what} are of blocks that are claimed and not finished ({where})")


def _removed_by_retention(scope: Scope) -> int:
    """Rows of `events` that were counted in `session_parts`, whose month expires, and are gone."""
    keeps_month = scope.retention.keeps("makeDate32(intDiv(month, 100), month % 100, 1)")
    counted, there = scope.client.rows(
        f"SELECT (SELECT sum(events) FROM session_parts WHERE NOT {keeps_month}),"
        f" (SELECT count() FROM (SELECT companyId, toYYYYMM(timestamp) AS month FROM events) WHERE NOT {keeps_month})"
    )[0]
    return max(int(counted or 0) - int(there), 0)
