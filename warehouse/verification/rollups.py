"""Every rollup against a recount from `events`: its measures, its visitors, and the persons that these are."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any, Final

from warehouse.rollups import Rollup
from warehouse.verification.findings import FIRST, Findings, name_key
from warehouse.verification.persons import number_people
from warehouse.verification.scope import ON_DISK, Scope, Tick

_DAY: Final = timedelta(days=1)
_WRAP: Final = (1 << 64) - 1
_Rows = dict[tuple[Any, ...], tuple[Any, ...]]

_SESSION_KEY: Final = ("month", "companyId", "visitorId", "sessionId")
_RECOUNTED_PARTS: Final = """
SELECT toYYYYMM(timestamp) AS month, companyId, visitorId, sessionId, 1 AS recounted, toString(tuple(
    min(timestamp), max(timestamp), count(), countIf(type = 'page'),
    min(tuple(timestamp, path, referrerDomain, toString(channel), toString(utmSource), toString(utmCampaign))),
    max(tuple(timestamp, path)),
    max(toString(app)), max(toString(deviceType)), max(toString(country)), max(bot))) AS figures
FROM events WHERE visitor % {buckets} = {bucket} AND {keeps}
GROUP BY month, companyId, visitorId, sessionId
"""
_FOUND_PARTS: Final = """
SELECT month, companyId, visitorId, sessionId, 0 AS recounted, toString(tuple(
    min(p.startedAt), max(p.endedAt), sum(p.events), sum(p.pageViews), min(p.entry), max(p.exit),
    max(p.app), max(p.deviceType), max(p.country), max(p.bot))) AS figures
FROM session_parts AS p WHERE sipHash64(companyId, visitorId) % {buckets} = {bucket} AND {keeps}
GROUP BY month, companyId, visitorId, sessionId
"""
_DIFFERING_PARTS: Final = f"""
SELECT month, companyId, visitorId, sessionId,
    anyIf(figures, recounted) AS expected, anyIf(figures, NOT recounted) AS found, count() OVER () AS differing
FROM ({{recounted}} UNION ALL {{found}})
GROUP BY month, companyId, visitorId, sessionId HAVING count() != 2 OR min(figures) != max(figures)
ORDER BY month, companyId, visitorId, sessionId LIMIT {FIRST}
{ON_DISK}
"""


def check_rollup(rollup: Rollup, scope: Scope, tick: Tick) -> Findings:
    """The view's measures and unique users, and the stored visitors, are those that `events` gives."""
    findings = Findings(rollup.view)
    person_of = number_people(scope)
    parts = list(_parts(rollup, scope))
    for done, (times, condition) in enumerate(parts):
        expected = _recount(rollup, scope, f"{times} AND {condition}", person_of)
        found = _read(rollup, scope, condition)
        measures = (*rollup.measures, "uniqueUsers", "checksum of visitors")
        findings.compare_rows(tuple(rollup.keys), measures, expected, found)
        tick((done + 1) / len(parts))
    return findings


def check_session_parts(scope: Scope, tick: Tick) -> Findings:
    """Every part of a session says what its events say; of months that must be whole."""
    findings = Findings("session_parts")
    findings.compared = int(scope.client.rows("SELECT count() FROM session_parts")[0][0])
    buckets = scope.buckets_on_disk(findings.compared)
    events_month, parts_month = "toStartOfMonth(toDate32(timestamp))", "makeDate32(intDiv(month, 100), month % 100, 1)"
    for bucket in range(buckets):
        where = {"buckets": buckets, "bucket": bucket}
        recounted = _RECOUNTED_PARTS.format(**where, keeps=scope.retention.keeps(events_month))
        found = _FOUND_PARTS.format(**where, keeps=scope.retention.keeps(parts_month))
        rows = scope.client.rows(_DIFFERING_PARTS.format(recounted=recounted, found=found))
        for *key, wanted, figures, _ in rows:
            findings.differ(name_key(_SESSION_KEY, key), "figures", wanted or "no row", figures or "no row")
        if rows:
            findings.differing += int(rows[0][-1]) - len(rows)
        tick((bucket + 1) / buckets)
    return findings


def _parts(rollup: Rollup, scope: Scope) -> Iterator[tuple[str, str]]:
    """Conditions that part the rollup's key by days and, in a large day, by hash; each part fits in memory.

    Before each what it says of `timestamp`, by which ClickHouse finds the events of these days without reading others.
    """
    keeps = scope.retention.keeps(f"toDate32({rollup.period})")
    for first, last, events in _spans(_events_by_day(rollup, scope), scope.part_rows):
        times = (
            f"timestamp >= toDateTime64('{first}', 3, 'UTC') AND timestamp < toDateTime64('{last + _DAY}', 3, 'UTC')"
        )
        buckets = scope.buckets_for(events)
        hashed = f"cityHash64({', '.join(rollup.keys)}) % {buckets}"
        for bucket in range(buckets):
            part = f" AND {hashed} = {bucket}" if buckets > 1 else ""
            yield times, f"toDate({rollup.period}) BETWEEN '{first}' AND '{last}' AND {keeps}{part}"


def _events_by_day(rollup: Rollup, scope: Scope) -> Mapping[date, int]:
    """How many events there are of each day that has some, or has rows of the rollup."""
    if "days" not in scope.memo:
        sql = "SELECT toDate(timestamp) AS day, count() FROM events GROUP BY day"
        scope.memo["days"] = dict(scope.client.rows(sql))
    counts: dict[date, int] = scope.memo["days"]
    stored = scope.client.rows(f"SELECT DISTINCT toDate({rollup.period}) FROM {rollup.parts}")
    return {day: counts.get(day, 0) for day in sorted(counts.keys() | {row[0] for row in stored})}


def _spans(counts: Mapping[date, int], part_rows: int) -> Iterator[tuple[date, date, int]]:
    """Runs of days (first, last, events) of fewer than `part_rows` events; a larger day stands alone."""
    days: list[date] = []
    events = 0
    for day, count in counts.items():
        if days and events + count >= part_rows:
            yield days[0], days[-1], events
            days, events = [], 0
        days.append(day)
        events += count
    if days:
        yield days[0], days[-1], events


def _recount(rollup: Rollup, scope: Scope, condition: str, person_of: Mapping[int, int]) -> _Rows:
    keys = ", ".join(rollup.keys)
    rows = scope.client.rows(
        f"SELECT {rollup.selected_keys()}, {rollup.selected_measures()}, groupUniqArray(visitor) "
        f"FROM events WHERE {rollup.where} AND {condition} GROUP BY {keys}"
    )
    size, get = len(rollup.keys), person_of.get
    return {
        row[:size]: (*row[size:-1], len({get(visitor, visitor) for visitor in row[-1]}), sum(row[-1]) & _WRAP)
        for row in rows
    }


def _read(rollup: Rollup, scope: Scope, condition: str) -> _Rows:
    keys, size = ", ".join(rollup.keys), len(rollup.keys)
    visitors = {
        row[:size]: row[size]
        for row in scope.client.rows(
            f"SELECT {keys}, arraySum(groupUniqArrayMerge(visitors)) "
            f"FROM {rollup.parts} WHERE {condition} GROUP BY {keys}"
        )
    }
    measures = ", ".join((*rollup.measures, "uniqueUsers"))
    rows = scope.client.rows(f"SELECT {keys}, {measures} FROM {rollup.view} WHERE {condition}")
    return {row[:size]: (*row[size:], visitors.get(row[:size])) for row in rows}
