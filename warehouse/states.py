"""Reads a partition's state back from ClickHouse: what is stored is the state.

Rows of a block that was claimed and not finished are left out of the ids, since the block is written again and must not
find its own events stored. The sessions may contain them: placing an event a second time changes no session.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, Final

import orjson

from schemas.blocks import GENERATIONS, Found, Lookup, Partition, RecentState, SessionSpan, StoreUnavailable
from schemas.digests import BUCKET_BITS, DIGEST_BYTES
from warehouse.client import ClickHouse, available

_NUMBER: Final = "visitorHash % {partitions:UInt32}"
_OURS: Final = f"{_NUMBER} IN {{numbers:Array(UInt32)}}"
_POSITIONS: Final = "logPartition, {numbers:Array(UInt32)}, {positions:Array(UInt64)}, 18446744073709551615"
_UNFINISHED: Final = f"(logId = {{log:String}} AND logOffset >= transform({_POSITIONS}))"
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
_LAST_LETTER = """
SELECT toUnixTimestamp64Milli(max(receivedAt)) FROM dead_letters WHERE topic = {topic:String} AND source = 'streams'
"""
_RECENT = f"receivedAt >= fromUnixTimestamp64Milli({{since:Int64}}) AND {_OURS} AND NOT {_UNFINISHED}"
_SECOND = "intDiv(toUnixTimestamp64Milli(receivedAt), 1000)"
_SECONDS = f"""
SELECT second, max(ids) FROM (
    SELECT {_SECOND} AS second, count() AS ids FROM event_ids WHERE {_RECENT} GROUP BY second, {_NUMBER}
)
GROUP BY second ORDER BY second DESC
"""
_BUCKET = f"bitShiftRight(byteSwap(reinterpretAsUInt16(substring(digest, 1, 2))), {16 - BUCKET_BITS})"
_DIGEST = f"substring(SHA256({{}}), 1, {DIGEST_BYTES})"
_RECENT_IDS = f"""
SELECT number, roundDown(second, {{starts:Array(Int64)}}) AS start, arrayStringConcat(groupArray(digest)) FROM (
    SELECT {_NUMBER} AS number, {_SECOND} AS second, {_DIGEST.format("concat(companyId, char(0), eventId)")} AS digest
    FROM event_ids WHERE {_RECENT}
)
GROUP BY number, start
"""
# Many pairs, as one text: it costs both sides a third of naming each of them. And as rows of a query: an array of
# more than a megabyte takes ClickHouse minutes.
_PAIRS: Final = "WITH pairs AS (SELECT arrayJoin(JSONExtract(<pairs>, 'Array(Tuple(String, String))')))"
_STORED_IDS: Final = (
    f"{_PAIRS} SELECT companyId, eventId FROM event_ids WHERE (companyId, eventId) IN pairs "
    "AND receivedAt < fromUnixTimestamp64Milli(%(since)s) AND NOT "
    "(logId = %(log)s AND logPartition = %(number)s AND logOffset >= %(position)s)"
)
_DEAD_IDS: Final = (
    f"{_PAIRS} SELECT companyId, eventId FROM dead_letters WHERE (companyId, eventId) IN pairs AND source = 'streams' "
    "AND NOT (logId = %(log)s AND topic = %(topic)s AND partition = %(number)s AND offset >= %(position)s)"
)
# A PACKED_SESSION has the numbers' bytes in the order of their weight.
_BYTES = "reinterpretAsFixedString(byteSwap(toUInt64({})))"
_RECENT_SESSIONS = f"""
SELECT
    number, arrayStringConcat(arrayMap(pair -> pair.2, arraySort(groupArrayIf((start, packed), packs)))),
    groupArrayIf((visitor, sessionId, start, end), NOT packs)
FROM (
    SELECT
        any({_NUMBER}) AS number,
        {_VISITOR} AS visitor, {_DIGEST.format("visitor")} AS digest, s.sessionId AS sessionId,
        toUnixTimestamp64Milli(min(s.startedAt)) AS start, toUnixTimestamp64Milli(max(s.endedAt)) AS end,
        concat(digest, {_BYTES.format("start")}, {_BYTES.format("end")}, UUIDStringToNum(sessionId)) AS packed,
        toString(toUUIDOrZero(sessionId)) = sessionId AND (companyId, visitorId) NOT IN (
            SELECT companyId, visitorId FROM session_overrides
        ) AS packs
    FROM session_parts AS s
    WHERE s.month >= toYYYYMM(fromUnixTimestamp64Milli({{since:Int64}}, 'UTC'))
      AND s.endedAt >= fromUnixTimestamp64Milli({{since:Int64}}) AND {_OURS}
    GROUP BY companyId, visitorId, s.sessionId
)
GROUP BY number, {_BUCKET}
"""
_OVERRIDES = f"SELECT {_VISITOR}, sessionId, tupleElement(min(target), 2) FROM session_overrides"
_BY_OVERRIDE = "GROUP BY companyId, visitorId, sessionId"
# Sessions, and then overrides: those have the target's id.
_OF_VISITORS: Final = f"""
{_PAIRS}
SELECT {_VISITOR} AS visitor, s.sessionId AS id, {_SPANS}, '' AS target FROM session_parts AS s
WHERE (companyId, visitorId) IN pairs {_BY_OVERRIDE}
UNION ALL
SELECT {_VISITOR}, sessionId, 0, 0, tupleElement(min(target), 2) FROM session_overrides
WHERE (companyId, visitorId) IN pairs {_BY_OVERRIDE}
"""
_OUR_OVERRIDES = f"""
{_OVERRIDES}
WHERE kafkaMurmurHash({_VISITOR}) % {{partitions:UInt32}} IN {{numbers:Array(UInt32)}}
{_BY_OVERRIDE}
"""


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

    def recent(self, positions: Mapping[Partition, int], partitions: int, since: int) -> dict[Partition, RecentState]:
        """Ids and sessions at or after `since` (ms); fewer ids, and a later `ids_since`, where the limit is met."""
        numbers = {partition.number: partition for partition in positions}
        where = {**_where(next(iter(positions))), "partitions": partitions, "since": since}
        where |= {"numbers": list(numbers), "positions": list(positions.values())}
        starts, ids_since = _slices(self._rows(_SECONDS, where), since, self._id_limit)
        letters_since = self._rows(_LAST_LETTER, where)[0][0] + 1
        recent = {number: RecentState(ids_since, letters_since=letters_since) for number in numbers}
        if starts:
            self._read_ids({**where, "since": ids_since}, starts, recent)
        self._read_sessions(where, recent)
        return {partition: recent[number] for number, partition in numbers.items()}

    def _read_ids(self, where: Mapping[str, Any], starts: Sequence[int], recent: Mapping[int, RecentState]) -> None:
        runs: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        for number, start, run in self._large(_RECENT_IDS, {**where, "starts": starts[:-1]}):
            runs[number, start].append(run)
        for start, end in pairwise(starts):
            for number, state in recent.items():
                state.ids.append((end * 1000 - 1, runs[number, start]))

    def _read_sessions(self, where: Mapping[str, Any], recent: Mapping[int, RecentState]) -> None:
        rows: list[tuple[Any, ...]] = []
        number_of: dict[str, int] = {}
        for number, run, others in self._large(_RECENT_SESSIONS, where):
            if run:
                recent[number].packed.append(run)
            rows += ((visitor.decode(), session_id.decode(), *times) for visitor, session_id, *times in others)
            number_of |= dict.fromkeys((visitor.decode() for visitor, *_ in others), number)
        targets = self._rows(_OUR_OVERRIDES, where) if rows else ()
        for span in merge_overridden(rows, targets):
            recent[number_of[span.visitor]].sessions.append(span)

    def _large(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a large answer; every text is bytes."""
        blocks = available(lambda: list(self._client.blocks(sql, parameters)))
        return chain.from_iterable(zip(*block, strict=True) for block in blocks)

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:
        """Which ids are stored, which rejected events have a letter, the visitors' sessions that touch their spans."""
        where = {**_where(partition), "position": position, "since": asked.ids_since}
        stored, dead = self._ids(_STORED_IDS, where, asked.ids), self._ids(_DEAD_IDS, where, asked.rejected)
        return Found(stored, self._sessions(asked.spans), dead, asked.spans)

    def _ids(self, sql: str, where: Mapping[str, Any], ids: Collection[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        if not ids:
            return frozenset()
        return frozenset((company, event) for company, event in self._rows(_naming(ids, sql), where))

    def _sessions(self, spans: Mapping[str, tuple[int, int]]) -> list[SessionSpan]:
        if not spans:
            return []
        visitors = [(company_id, visitor) for company_id, _, visitor in (key.partition(":") for key in spans)]
        rows = self._rows(_naming(visitors, _OF_VISITORS), {})
        targets = [(visitor, session_id, target) for visitor, session_id, *_, target in rows if target]
        stored = merge_overridden((row[:-1] for row in rows if not row[-1]), targets)
        return [span for span in stored if span.end >= spans[span.visitor][0] and span.start <= spans[span.visitor][1]]

    def _columns(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return available(lambda: self._client.columns(sql, parameters))

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return available(lambda: self._client.rows(sql, parameters))


def _where(partition: Partition) -> dict[str, Any]:
    return {"log": partition.log_id, "topic": partition.topic, "number": partition.number}


def _naming(pairs: Collection[tuple[str, str]], sql: str) -> str:
    """The query with these pairs as one literal, in which nothing is left that SQL or the driver could read.

    They are any text; the driver's own escaping looks at every letter and costs three times as much.
    """
    text = orjson.dumps(list(pairs)).decode()
    for sign in "'%{":  # inside of the JSON's strings, as all that is not a bracket, a comma or a quotation mark
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    escaped = text.replace("\\", "\\\\")
    return sql.replace("<pairs>", f"'{escaped}'")


def _slices(seconds: Sequence[tuple[Any, ...]], since: int, limit: int) -> tuple[list[int], int]:
    """Runs of seconds that hold an eighth of the limit, and the time (ms) since when all ids are in them.

    `seconds` are (second, number of ids), the newest first. The runs are where each begins, the oldest first, and at
    last where the newest ends; nothing at all where there are no ids, or more than the limit in the newest second.
    """
    if not seconds:
        return [], since
    starts, held, size = [seconds[0][0] + 1], 0, limit
    for second, count in seconds:
        held, size = held + count, size + count
        if held > limit:
            since = starts[-1] * 1000
            break
        if size * GENERATIONS > limit:
            starts.append(second)
            size = count
        starts[-1] = second
    return starts[::-1] if len(starts) > 1 else [], since


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
