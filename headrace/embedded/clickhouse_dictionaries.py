"""Dictionaries that reload by themselves: a ClickHouse server does that in the background, chdb does not.

As in a server, a loaded dictionary is due at a random moment between its LIFETIME's MIN and MAX; one with an
INVALIDATE_QUERY reloads only where that query's answer has changed. Dictionaries nobody has used stay unloaded.

A reload reads all of a dictionary again: a million links cost seconds of a core. So one that took long is due later,
that reloading may not take more than a part of a core however many rows there are.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_query import quote, quote_name

_INVALIDATE = re.compile(r"\bINVALIDATE_QUERY\s+'((?:[^'\\]|\\.|'')*)'", re.I)
#: A dictionary rests so many times as long as its last reload took, but not longer than so many seconds.
_REST, _LONGEST_REST = 4, 30.0
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

    def __init__(
        self, ask: Callable[[str, str], str], pick: Callable[[float, float], float], clock: Callable[[], float]
    ) -> None:
        """`ask(sql, format)` runs a query; `pick(a, b)` draws a number between two; `clock` tells s, monotonic."""
        self._ask = ask
        self._pick = pick
        self._clock = clock
        self._schedules: dict[str, Schedule] = {}

    def reload_due(self) -> dict[str, str]:
        """Reload what is due now. Returns the errors by dictionary; each is tried again."""
        errors, now = {}, self._clock()
        known, self._schedules = self._schedules, {}
        for row in self._ask(_LOADED, "JSONCompactEachRow").splitlines():
            database, name, uuid, least, most = json.loads(row)
            try:
                schedule = known.get(uuid) or Schedule(now, self._find_invalidate_query(database, name))
                self._schedules[uuid] = schedule
                if schedule.due <= now:
                    schedule.due = now + self._pick(float(least), float(most))
                    seconds = self._reload(f"{quote_name(database)}.{quote_name(name)}", schedule)
                    schedule.due = max(schedule.due, self._clock() + min(_REST * seconds, _LONGEST_REST))
            except QueryError as error:
                errors[f"{database}.{name}"] = error.text
        return errors

    def _find_invalidate_query(self, database: str, name: str) -> str | None:
        where = f"database = {quote(database)} AND name = {quote(name)}"
        return parse_invalidate_query(
            self._ask(f"SELECT create_table_query FROM system.tables WHERE {where}", "TabSeparatedRaw")
        )

    def _reload(self, quoted_name: str, schedule: Schedule) -> float:
        """Reload one that is stale; how long that took (s)."""
        began = self._clock()
        # Asked before the load: rows that arrive between the two make the next answer differ, never go unseen.
        answer = self._ask(schedule.invalidate_query, "TabSeparated") if schedule.invalidate_query else None
        if answer is None or answer != schedule.answer:
            self._ask(f"SYSTEM RELOAD DICTIONARY {quoted_name}", "Null")
            schedule.answer = answer
        return self._clock() - began


def parse_invalidate_query(create: str) -> str | None:
    """The INVALIDATE_QUERY in a CREATE DICTIONARY statement, unescaped; None where there is none."""
    found = _INVALIDATE.search(create)
    if found is None:
        return None
    return re.sub(r"\\(.)|''", lambda part: _ESCAPES.get(part[1], part[1]) if part[1] else "'", found[1], flags=re.S)
