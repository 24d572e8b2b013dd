"""Dictionaries that reload by themselves: a ClickHouse server does that in the background, chdb does not.

As in a server, a loaded dictionary is due at a random moment between its LIFETIME's MIN and MAX; one with an
INVALIDATE_QUERY reloads only where that query's answer has changed. Dictionaries nobody has used stay unloaded.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_query import quote, quote_name

_INVALIDATE = re.compile(r"\bINVALIDATE_QUERY\s+'((?:[^'\\]|\\.|'')*)'", re.I)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}

# Without a join to system.tables: that costs 16 ms, and this runs every second.
_LOADED = """
SELECT database, name, toString(uuid), lifetime_min, lifetime_max FROM system.dictionaries
WHERE status IN ('LOADED', 'LOADED_AND_RELOADING', 'FAILED_AND_RELOADING') AND lifetime_max > 0"""


@dataclass(slots=True)
class Schedule:
    """When a dictionary is due next (s), how it tells that it is stale, and what that told at its last load."""

    due: float
    invalidate_query: str | None
    answer: str | None = None


class DictionaryReloader:
    """Reloads the due dictionaries of one engine each time `reload_due` is called."""

    def __init__(self, ask: Callable[[str, str], str], pick: Callable[[float, float], float]) -> None:
        """`ask(sql, format)` runs a query; `pick(a, b)` draws a number between two."""
        self._ask = ask
        self._pick = pick
        self._schedules: dict[str, Schedule] = {}

    def reload_due(self, now: float) -> dict[str, str]:
        """Reload what is due at `now` (s, monotonic). Returns the errors by dictionary; each is tried again."""
        errors = {}
        known, self._schedules = self._schedules, {}
        for row in self._ask(_LOADED, "JSONCompactEachRow").splitlines():
            database, name, uuid, least, most = json.loads(row)
            try:
                schedule = known.get(uuid) or Schedule(now, self._find_invalidate_query(database, name))
                self._schedules[uuid] = schedule
                if schedule.due <= now:
                    schedule.due = now + self._pick(float(least), float(most))
                    self._reload(f"{quote_name(database)}.{quote_name(name)}", schedule)
            except QueryError as error:
                errors[f"{database}.{name}"] = error.text
        return errors

    def _find_invalidate_query(self, database: str, name: str) -> str | None:
        where = f"database = {quote(database)} AND name = {quote(name)}"
        return parse_invalidate_query(
            self._ask(f"SELECT create_table_query FROM system.tables WHERE {where}", "TabSeparatedRaw")
        )

    def _reload(self, quoted_name: str, schedule: Schedule) -> None:
        # Asked before the load: rows that arrive between the two make the next answer differ, never go unseen.
        answer = self._ask(schedule.invalidate_query, "TabSeparated") if schedule.invalidate_query else None
        if answer is None or answer != schedule.answer:
            self._ask(f"SYSTEM RELOAD DICTIONARY {quoted_name}", "Null")
            schedule.answer = answer


def parse_invalidate_query(create: str) -> str | None:
    """The INVALIDATE_QUERY in a CREATE DICTIONARY statement, unescaped; None where there is none."""
    found = _INVALIDATE.search(create)
    if found is None:
        return None
    return re.sub(r"\\(.)|''", lambda part: _ESCAPES.get(part[1], part[1]) if part[1] else "'", found[1], flags=re.S)
