"""Reads a partition's state back from ClickHouse: what is stored is the state, so it can neither lead nor lag.

Rows of a block that was claimed and not finished are left out of the ids, since the block is written again and must not
find its own events stored. The sessions may contain them: placing an event a second time changes no session.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.blocks import Found, Partition, RecentState, SessionSpan, StoreUnavailable
from warehouse.client import ClickHouse, available

_OURS: Final = "kafkaMurmurHash(concat(companyId, ':', visitorId)) % {partitions:UInt32} = {number:UInt32}"
_UNFINISHED: Final = "(logId = {log:String} AND logPartition = {number:UInt32} AND logOffset >= {position:UInt64})"
_VISITOR: Final = "concat(companyId, ':', visitorId)"  # as record_key makes it
_SPANS: Final = "toUnixTimestamp64Milli(min(s.startedAt)), toUnixTimestamp64Milli(max(s.endedAt))"

#: Inserts outlive their worker: the server goes on with what it has received. The tokens begin with the log's identity.
_RUNNING = """
SELECT count() FROM system.processes
WHERE position(Settings['insert_deduplication_token'], {place:String}) > 0
  AND NOT startsWith(Settings['insert_deduplication_token'], {own:String})
"""
_POSITION = (
    "SELECT max(end) FROM blocks WHERE logId = {log:String} AND topic = {topic:String} AND partition = {number:UInt32}"
)
_JOURNALS = """
SELECT journal, max(sequence) FROM blocks ARRAY JOIN mapKeys(journals) AS journal, mapValues(journals) AS sequence
WHERE topic = {topic:String} AND partition = {number:UInt32} GROUP BY journal
"""
_RECENT_IDS = f"""
SELECT concat(companyId, char(0), eventId), toUnixTimestamp64Milli(receivedAt) FROM event_ids
WHERE receivedAt >= fromUnixTimestamp64Milli({{since:Int64}}) AND {_OURS} AND NOT {_UNFINISHED}
ORDER BY receivedAt DESC LIMIT {{limit:UInt64}}
"""
# Parameters of the driver's own form: they name many ids.
_STORED_IDS: Final = (
    "SELECT companyId, eventId FROM event_ids WHERE (companyId, eventId) IN %(ids)s AND NOT "
    "(logId = %(log)s AND logPartition = %(number)s AND logOffset >= %(position)s)"
)
_DEAD_IDS: Final = (
    "SELECT companyId, eventId FROM dead_letters WHERE (companyId, eventId) IN %(ids)s AND source = 'streams' AND NOT "
    "(logId = %(log)s AND topic = %(topic)s AND partition = %(number)s AND offset >= %(position)s)"
)
_RECENT_SESSIONS = f"""
SELECT {_VISITOR}, s.sessionId, {_SPANS} FROM session_parts AS s
WHERE s.month >= toYYYYMM(fromUnixTimestamp64Milli({{since:Int64}}, 'UTC'))
  AND s.endedAt >= fromUnixTimestamp64Milli({{since:Int64}}) AND {_OURS}
GROUP BY s.companyId, s.visitorId, s.sessionId
"""
_OVERRIDES = f"SELECT {_VISITOR}, sessionId, tupleElement(min(target), 2) FROM session_overrides"
_BY_OVERRIDE = "GROUP BY companyId, visitorId, sessionId"


class ClickHouseStateStore:
    """The StateStore of production and of `headrace up`. `id_limit` bounds the ids that one partition reads back."""

    def __init__(self, client: ClickHouse, id_limit: int) -> None:
        self._client = client
        self._id_limit = id_limit

    def position(self, partition: Partition) -> tuple[int, Mapping[str, int]]:
        """The first offset that is not stored, and the highest sequence stored of each journal.

        Once a log is lost, its workers are killed; what they had sent must have arrived before anything is read.
        """
        where = _where(partition)
        place = f"/{partition.topic}/{partition.number}/"
        if self._rows(_RUNNING, {"place": place, "own": f"{partition.log_id}{place}"})[0][0]:
            raise StoreUnavailable(f"An insert into {place[1:-1]} of a lost log still runs; it is waited for.")
        end = int(self._rows(_POSITION, where)[0][0])
        return end, {journal: int(sequence) for journal, sequence in self._rows(_JOURNALS, where)}

    def recent(self, partition: Partition, partitions: int, position: int, since: int) -> RecentState:
        """Ids and sessions at or after `since` (ms); fewer ids, and a later `ids_since`, where the limit is met."""
        where = {**_where(partition), "partitions": partitions, "position": position, "since": since}
        ids, received_at = self._columns(_RECENT_IDS, {**where, "limit": self._id_limit}) or ((), ())
        ids_since = since if len(ids) < self._id_limit else received_at[-1] + 1
        targets = self._rows(f"{_OVERRIDES} WHERE {_OURS} {_BY_OVERRIDE}", where)
        sessions = merge_overridden(zip(*self._columns(_RECENT_SESSIONS, where), strict=True), targets)
        return RecentState(ids[::-1], received_at[::-1], ids_since, sessions)

    def lookup(
        self,
        partition: Partition,
        position: int,
        ids: Collection[tuple[str, str]],
        spans: Mapping[str, tuple[int, int]],
        rejected: Collection[tuple[str, str]] = (),
    ) -> Found:
        """Which ids are stored, which rejected events have a letter, the visitors' sessions that touch their spans."""
        where = {**_where(partition), "position": position}
        return Found(self._ids(_STORED_IDS, where, ids), self._sessions(spans), self._ids(_DEAD_IDS, where, rejected))

    def _ids(self, sql: str, where: Mapping[str, Any], ids: Collection[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        if not ids:
            return frozenset()
        return frozenset((company, event) for company, event in self._rows(sql, {**where, "ids": tuple(ids)}))

    def _sessions(self, spans: Mapping[str, tuple[int, int]]) -> list[SessionSpan]:
        if not spans:
            return []
        visitors = tuple((company_id, visitor) for company_id, _, visitor in (key.partition(":") for key in spans))
        where = "WHERE (companyId, visitorId) IN %(visitors)s"
        sql = f"SELECT {_VISITOR}, s.sessionId, {_SPANS} FROM session_parts AS s {where} {_BY_OVERRIDE}"
        targets = self._rows(f"{_OVERRIDES} {where} {_BY_OVERRIDE}", {"visitors": visitors})
        stored = merge_overridden(self._rows(sql, {"visitors": visitors}), targets)
        return [span for span in stored if span.end >= spans[span.visitor][0] and span.start <= spans[span.visitor][1]]

    def _columns(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return available(lambda: self._client.columns(sql, parameters))

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return available(lambda: self._client.rows(sql, parameters))


def _where(partition: Partition) -> dict[str, Any]:
    return {"log": partition.log_id, "topic": partition.topic, "number": partition.number}


def merge_overridden(rows: Iterable[tuple[Any, ...]], overrides: Iterable[tuple[Any, ...]]) -> Iterator[SessionSpan]:
    """Stored sessions (visitor, id, start, end) as sessions, each with all ids that are read as its own.

    Nearly all are nobody's target and have none: those are handed on as they come.
    """
    target_of = {(visitor, later): target for visitor, later, target in overrides}
    overridden = {session_id for (_, later), target in target_of.items() for session_id in (later, target)}
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for visitor, session_id, start, end in rows:
        if session_id not in overridden:
            yield SessionSpan(visitor, session_id, start, end)
            continue
        key = (visitor, target_of.get((visitor, session_id), session_id))
        first, last = spans.get(key, (start, end))
        spans[key] = (min(first, start), max(last, end))
    later_ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (visitor, later), target in target_of.items():
        later_ids[visitor, target].append(later)
    for key, (start, end) in spans.items():
        yield SessionSpan(*key, start, end, tuple(later_ids.get(key, ())))
