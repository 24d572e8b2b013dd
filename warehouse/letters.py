"""Dead letters as they are stored: found by reason, tenant, time, event or key."""

from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from warehouse.client import ClickHouse

_COLUMNS: Final = """
key, companyId, source, reason, field, message, eventId, logId, topic, partition, offset, position,
toUnixTimestamp64Milli(receivedAt), toUnixTimestamp64Milli(failedAt), contentType, truncated
"""
_PAGE: Final = 2_000


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """One dead letter; times in ms. `payload` is empty where it was not asked for."""

    key: str
    company_id: str
    source: str
    reason: str
    field: str
    message: str
    event_id: str
    log_id: str
    topic: str
    partition: int
    offset: int
    position: int
    received_at: int
    failed_at: int
    content_type: str
    truncated: bool
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: empty fields do not limit. `since` and `until` are of `failedAt` in ms, `until` excluded."""

    keys: Sequence[str] = ()
    reason: str = ""
    company: str = ""
    event_id: str = ""
    since: int = 0
    until: int = 0

    def condition(self) -> tuple[str, dict[str, Any]]:
        """The SQL condition and its parameters."""
        parts = {
            "key IN {keys:Array(String)}": ("keys", list(self.keys)),
            "reason = {reason:String}": ("reason", self.reason),
            "companyId = {company:String}": ("company", self.company),
            "eventId = {event:String}": ("event", self.event_id),
            "failedAt >= fromUnixTimestamp64Milli({since:Int64})": ("since", self.since),
            "failedAt < fromUnixTimestamp64Milli({until:Int64})": ("until", self.until),
        }
        given = {text: pair for text, pair in parts.items() if pair[1]}
        return " AND ".join(("1", *given)), dict(given.values())


def count_letters(client: ClickHouse, wanted: Wanted) -> dict[str, int]:
    """How many there are of each tenant."""
    condition, parameters = wanted.condition()
    sql = f"SELECT companyId, count() FROM dead_letters FINAL WHERE {condition} GROUP BY companyId ORDER BY companyId"
    return {company: int(count) for company, count in client.rows(sql, parameters)}


def list_letters(client: ClickHouse, wanted: Wanted, limit: int) -> list[StoredLetter]:
    """The newest, without their payloads."""
    condition, parameters = wanted.condition()
    sql = f"SELECT {_COLUMNS} FROM dead_letters FINAL WHERE {condition} ORDER BY failedAt DESC, key LIMIT {limit:d}"
    return [StoredLetter(*row) for row in client.rows(sql, parameters)]


def read_letters(client: ClickHouse, wanted: Wanted, limit: int | None = None) -> Iterator[StoredLetter]:
    """Whole, in the order of tenant and key; a page at a time, so that any number fits in memory."""
    condition, parameters = wanted.condition()
    after, left = ("", ""), limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        rows = client.rows(
            f"SELECT {_COLUMNS}, base64Encode(payload) FROM dead_letters FINAL WHERE {condition} "
            "AND (companyId, key) > ({afterCompany:String}, {afterKey:String}) "
            f"ORDER BY companyId, key LIMIT {size:d}",
            {**parameters, "afterCompany": after[0], "afterKey": after[1]},
        )
        for *columns, payload in rows:
            yield replace(StoredLetter(*columns), payload=b64decode(payload))
        if len(rows) < size:
            return
        after = (rows[-1][1], rows[-1][0])
        left = None if left is None else left - len(rows)
