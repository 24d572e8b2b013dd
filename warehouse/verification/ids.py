"""Every event once: in `events`, and in `event_ids` as in `events`."""

from typing import Final

from warehouse.verification.findings import FIRST, Findings, name_key
from warehouse.verification.scope import Scope, Tick

_COLUMNS: Final = "timestamp, receivedAt, eventCategory, eventAction, visitorId, logId, logPartition, logOffset"
_SIDE: Final = f"""
SELECT companyId, eventId, toUInt8({{known}}) AS known, cityHash64({_COLUMNS}) AS columns FROM {{table}}
WHERE cityHash64(eventId) % {{buckets}} = {{bucket}} AND {{keeps}}
"""
_DIFFERING: Final = f"""
SELECT companyId, eventId, countIf(NOT known) AS events, countIf(known) AS ids, count() OVER () AS differing
FROM ({{events}} UNION ALL {{ids}})
GROUP BY companyId, eventId
HAVING events != 1 OR ids != 1 OR uniqExact(columns) != 1
ORDER BY companyId, eventId LIMIT {FIRST}
"""


def check_ids(scope: Scope, tick: Tick) -> Findings:
    """No (companyId, eventId) stands twice in `events`, and each stands once, with the same columns, in `event_ids`."""
    findings = Findings("event ids")
    findings.compared = int(scope.client.rows("SELECT count() FROM events")[0][0])
    buckets = scope.buckets_for(findings.compared)
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
