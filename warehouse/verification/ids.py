"""Every event once: in `events`, and in `event_ids` as in `events`."""

from typing import Final

from warehouse.verification.findings import FIRST, Findings, name_key
from warehouse.verification.scope import ON_DISK, Scope, Tick

_COLUMNS: Final = "timestamp, receivedAt, eventCategory, eventAction, visitorId, logId, logPartition, logOffset"
_SIDE: Final = f"""
SELECT companyId, eventId, toUInt8({{known}}) AS known, cityHash64({_COLUMNS}) AS columns FROM {{table}}
WHERE cityHash64(eventId) % {{buckets}} = {{bucket}} AND {{keeps}}
"""
_DIFFERING: Final = f"""
SELECT companyId, eventId, countIf(NOT known) AS events, countIf(known) AS ids, count() OVER () AS differing
FROM ({{events}} UNION ALL {{ids}})
GROUP BY companyId, eventId
HAVING events != 1 OR ids != 1 OR min(columns) != max(columns)
ORDER BY companyId, eventId LIMIT {FIRST}
{ON_DISK}
"""


def check_ids(scope: Scope, tick: Tick) -> Findings:
    """No (companyId, eventId) stands twice in `events`, and each stands once, with the same columns, in `event_ids`."""
    findings = Findings("event ids")
    findings.compared = scope.count_events()
    buckets = scope.buckets_on_disk(findings.compared)
    keeps = scope.retention.keeps("toDate(timestamp)")
    for bucket in range(buckets):
        where = {"buckets": buckets, "bucket": bucket, "keeps": keeps}
        sides = {name: _SIDE.format(table=table, known=known, **where) for known, (name, table) in enumerate(_TABLES)}
        rows = scope.client.rows(_DIFFERING.format(**sides))
        for company, event_id, events, ids, _ in rows:
            _judge(findings, name_key(("companyId", "eventId"), (company, event_id)), events, ids)
        if rows:
            findings.differing += int(rows[0][-1]) - len(rows)
        tick((bucket + 1) / buckets)
    return findings


_TABLES: Final = (("events", "events"), ("ids", "event_ids"))


def _judge(findings: Findings, key: str, events: int, ids: int) -> None:
    if events != 1:
        findings.differ(key, "rows in events", 1, events)
    elif ids != 1:
        findings.differ(key, "rows in event_ids", 1, ids)
    else:
        findings.differ(key, "columns of event_ids", "those of events", "others")
