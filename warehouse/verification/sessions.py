"""Sessions as they are read, against a recomputation from the times of the visitors' events."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from warehouse.verification.findings import Findings, name_key
from warehouse.verification.scope import Scope, Tick

_TIMES: Final = """
SELECT companyId, visitorId, groupArray(toUnixTimestamp64Milli(timestamp)) FROM events
WHERE visitor % {buckets} = {bucket} AND {keeps} GROUP BY companyId, visitorId
"""
_SESSIONS: Final = """
SELECT companyId, visitorId,
    groupArray(tuple(toUnixTimestamp64Milli(s.startedAt), toUnixTimestamp64Milli(s.endedAt), s.events))
FROM sessions AS s WHERE sipHash64(companyId, visitorId) % {buckets} = {bucket} GROUP BY companyId, visitorId
"""
_Session = tuple[int, int, int]


def check_sessions(scope: Scope, tick: Tick) -> Findings:
    """Each visitor has the sessions that its events make: their start, end and number of events."""
    findings = Findings("sessions")
    buckets = scope.buckets_for(scope.count_events())
    for bucket in range(buckets):
        expected, found = _recompute(scope, buckets, bucket), _read(scope, buckets, bucket)
        for key in expected.keys() | found.keys():
            _compare(findings, key, expected.get(key, ()), found.get(key, ()))
        tick((bucket + 1) / buckets)
    return findings


def _recompute(scope: Scope, buckets: int, bucket: int) -> Mapping[tuple[str, str], list[_Session]]:
    keeps = scope.retention.keeps("toDate(timestamp)")
    rows = scope.client.rows(_TIMES.format(buckets=buckets, bucket=bucket, keeps=keeps))
    recompute, gap = scope.rules.sessions, scope.rules.gap
    return _whole(scope, ((company, visitor, recompute(times, gap)) for company, visitor, times in rows))


def _read(scope: Scope, buckets: int, bucket: int) -> Mapping[tuple[str, str], list[_Session]]:
    rows = scope.client.rows(_SESSIONS.format(buckets=buckets, bucket=bucket))
    return _whole(scope, ((company, visitor, sorted(map(tuple, found))) for company, visitor, found in rows))


def _whole(scope: Scope, rows: Iterable[tuple[str, str, Any]]) -> dict[tuple[str, str], list[_Session]]:
    """Without the sessions that retention may have cut: those that began before a gap after its cutoff."""
    floors: dict[str, int] = {}
    whole = {}
    for company, visitor, sessions in rows:
        if company not in floors:
            floors[company] = scope.retention.kept_from(company) + scope.rules.gap
        floor = floors[company]
        whole[company, visitor] = sessions if sessions[0][0] > floor else [s for s in sessions if s[0] > floor]
    return whole


def _compare(findings: Findings, key: tuple[str, str], expected: Iterable[_Session], found: Iterable[_Session]) -> None:
    wanted, there = Counter(expected), Counter(found)
    findings.compared += wanted.total()
    if wanted == there:
        return
    name = name_key(("companyId", "visitorId"), key)
    for session in sorted((wanted - there).elements()):
        findings.differ(name, "session", _describe(session), "no such session")
    for session in sorted((there - wanted).elements()):
        findings.differ(name, "session", "no such session", _describe(session))


def _describe(session: _Session) -> str:
    start, end, events = session
    return f"{_time(start)} to {_time(end)}, {events} events"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
