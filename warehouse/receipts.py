"""Receipts: where one event is, and when it passed each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.topics import COLLECTED
from warehouse.client import ClickHouse
from warehouse.letters import StoredLetter, Wanted, list_letters
from warehouse.rollups import ROLLUPS, Rollup

_FOUND: Final = """
SELECT companyId, eventCategory, eventAction, toUnixTimestamp64Milli(timestamp) FROM event_ids
WHERE {company} AND eventId = {{event:String}} ORDER BY companyId
"""
# The first four columns are the table's order, so that few rows are read.
_THIS: Final = """
companyId = {company:String} AND eventCategory = {category:String} AND eventAction = {action:String}
AND events.timestamp = fromUnixTimestamp64Milli({at:Int64}) AND eventId = {event:String}
"""
_EVENT: Final = f"""
SELECT companyId, eventId, type, eventCategory, eventAction, userId, anonymousId, visitorId, bot,
    toUnixTimestamp64Milli(timestamp) AS timestamp, toUnixTimestamp64Milli(receivedAt) AS receivedAt,
    toUnixTimestamp64Milli(storedAt) AS storedAt, logId, logPartition AS partition, logOffset AS offset,
    dictGetOrDefault('session_targets', 'target', tuple(sessionId), sessionId) AS sessionId,
    dictGetOrDefault('visitor_users', 'userId', visitor, visitorId) AS user,
    dictGetOrDefault('user_persons', 'personId', sipHash64(companyId, user), user) AS person
FROM events WHERE {_THIS}
"""
_BLOCK: Final = f"""
SELECT start, end, worker, toUnixTimestamp64Milli(storedAt) AS finishedAt FROM blocks
WHERE logId = {{logId:String}} AND topic = '{COLLECTED}' AND partition = {{partition:UInt32}}
    AND start <= {{offset:UInt64}} AND end > {{offset:UInt64}}
"""
_SESSION: Final = """
SELECT toUnixTimestamp64Milli(s.startedAt) AS startedAt, toUnixTimestamp64Milli(s.endedAt) AS endedAt,
    s.events AS events, s.pageViews AS pageViews
FROM sessions AS s
WHERE companyId = {companyId:String} AND visitorId = {visitorId:String} AND sessionId = {sessionId:String}
"""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that is a row: its columns, block, session, and the rollups' rows that it counts in. Times in ms.

    `block` is empty while the block is written and not yet in the ledger.
    """

    event: Mapping[str, Any]
    block: Mapping[str, Any]
    session: Mapping[str, Any]
    rollups: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an eventId is: one stored event at the most for each tenant, and the dead letters that name it."""

    event_id: str
    stored: tuple[StoredEvent, ...]
    letters: tuple[StoredLetter, ...]

    @property
    def state(self) -> str:
        """stored, dead, or not_found; what was stored after it had died is stored."""
        return "stored" if self.stored else "dead" if self.letters else "not_found"


def find_receipt(client: ClickHouse, event_id: str, company: str = "") -> Receipt:
    """Look for the event, of one tenant or of all. Raises ClickHouseUnavailable."""
    sql = _FOUND.format(company="companyId = {company:String}" if company else "1")
    found = client.rows(sql, {"event": event_id, "company": company})
    stored = []
    for found_company, category, action, at in found:
        where = {"company": found_company, "category": category, "action": action, "at": at, "event": event_id}
        stored += [_trace(client, row, where) for row in client.named(_EVENT, where)]
    letters = list_letters(client, Wanted(event_id=event_id, company=company), limit=100)
    return Receipt(event_id, tuple(stored), tuple(letters))


def _trace(client: ClickHouse, event: Mapping[str, Any], where: Mapping[str, Any]) -> StoredEvent:
    block = next(iter(client.named(_BLOCK, event)), {})
    session = next(iter(client.named(_SESSION, event)), {})
    counted = {rollup.view: row for rollup in ROLLUPS for row in _counted_in(client, rollup, where)}
    return StoredEvent(event, block, session, counted)


def _counted_in(client: ClickHouse, rollup: Rollup, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    return client.named(f"SELECT {rollup.selected_keys()} FROM events WHERE {rollup.where} AND {_THIS}", where)
