"""Rows that are there before the measurement, made by ClickHouse: events of a past, with their rollups."""

from bench.stack import BenchStack

#: Where filled rows are, that have a tenant.
_TABLES = """
SELECT name FROM system.tables WHERE database = 'headrace' AND engine LIKE '%MergeTree' AND name IN (
    SELECT table FROM system.columns WHERE database = 'headrace' AND name = 'companyId'
) FORMAT TabSeparated
"""
_CHUNK = 2_000_000
_ACTIONS = "['view', 'click', 'search', 'use', 'selected', 'step']"

# Numbered as on a log of their own, so that no partition takes them for its blocks. visitorId as bench.bodies has it.
_EVENTS = """
INSERT INTO events (eventId, timestamp, receivedAt, companyId, anonymousId, sessionId, type, eventCategory, eventAction,
    properties, app, appVersion, browser, os, deviceType, country, timezone, locale, url, path, title, channel,
    userAgent, library, logId, logPartition, logOffset)
SELECT
    toString(generateUUIDv7(number)), at, at, '{company}',
    concat(lower(leftPad(hex(toUInt32(visitor * 2654435761)), 8, '0')), '-5e3d-4c1a-9f27-',
        lower(leftPad(hex(bitOr(bitShiftLeft(toUInt64({seed}), 32), visitor)), 12, '0'))) AS anonymousId,
    toString(reinterpretAsUUID(MD5(concat('filled-', toString(visitor), '-', {run})))), 'track',
    ['page', 'ui', 'search', 'feature', 'vehicle', 'diagnostic'][number % 6 + 1], {actions}[number % 6 + 1],
    concat('{{"position":', toString(rand(1) % 400), ',"variant":"', char(65 + rand(2) % 3), '","title":"Manuals"}}'),
    ['workshop', 'parts-shop', 'academy'][visitor % 3 + 1], '4.2.0', 'Chrome', 'Windows', 'desktop',
    ['DE', 'FR', 'US', 'JP'][visitor % 4 + 1], 'Europe/Berlin', 'de-DE',
    concat('https://workshop.example/content/manual-', toString(rand(3) % 500)), '/content', 'Workshop', 'email',
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36',
    'headrace-browser', 'filled', {partition}, number
FROM (
    SELECT number, number % {visitors} AS visitor, {at} AS at FROM numbers({start}, {rows})
)
"""
_BLOCK = """
INSERT INTO blocks
    (logId, topic, partition, start, end, worker, records, events, stored, firstReceivedAt, lastReceivedAt)
SELECT 'filled', 'events.collected', {partition}, {start}, {end}, 'bench', {rows}, {rows}, {rows}, now64(3), now64(3)
"""
_RECENT = "now64(3, 'UTC') - toIntervalSecond(60 + number % 1200)"
# What a visitor's sessions differ by.
_DAY = "toString(toYYYYMMDD(at))"
_THIS_MONTH = (
    "toDateTime64(toStartOfMonth(now('UTC')), 3, 'UTC') "
    "+ toIntervalSecond(rand(4) % greatest(dateDiff('second', toStartOfMonth(now('UTC')), now('UTC')), 3600))"
)


def fill_recent(stack: BenchStack, visitors: int, seed: int = 1, start: int = 0) -> int:
    """Two events of each visitor in the last 20 minutes, of the tenant that the load is of; the rows made."""
    _insert(stack, company="demo", start=start, rows=2 * visitors, visitors=visitors, at=_RECENT, run="''", seed=seed)
    return 2 * visitors


def fill_past(stack: BenchStack, start: int, rows: int) -> None:
    """Rows `start` to `start + rows` of another tenant over this month, merged as far as they go."""
    for first in range(start, start + rows, _CHUNK):
        size = min(_CHUNK, start + rows - first)
        _insert(stack, company="filled", start=first, rows=size, visitors=1_000_000, at=_THIS_MONTH, run=_DAY, seed=9)
    for table in stack.ask(_TABLES).split():
        stack.ask(f"OPTIMIZE TABLE {table} FINAL")


def _insert(stack: BenchStack, **where: object) -> None:
    stack.ask(_EVENTS.format(**where, partition=0, actions=_ACTIONS))
    start, rows = int(str(where["start"])), int(str(where["rows"]))
    stack.ask(_BLOCK.format(start=start, end=start + rows, rows=rows, partition=0))


def remove_past(stack: BenchStack) -> None:
    """Remove what `fill_past` made, so that the rest can be verified in reasonable time."""
    for table in stack.ask(_TABLES).split():
        stack.ask(f"DELETE FROM {table} WHERE companyId = 'filled'")
    stack.ask("DELETE FROM blocks WHERE logId = 'filled'")
