"""Dictionaries that reload by themselves: a ClickHouse server does that in the background, chdb does not.

As in a server, a loaded dictionary is due at a random moment between its LIFETIME's MIN and MAX; one with an
INVALIDATE_QUERY reloads only where that query's answer has changed. Dictionaries nobody has used stay unloaded.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.embedded.clickhouse_errors import QueryError

_INVALIDATE = re.compile(r"\bINVALIDATE_QUERY\s+'((?:[^'\\]|\\.|'')*)'", re.I)

_LOADED = """
SELECT concat(d.database, '.', d.name), d.uuid, d.lifetime_min, d.lifetime_max, t.create_table_query,
       concat('`', replaceAll(d.database, '`', '\\\\`'), '`.`', replaceAll(d.name, '`', '\\\\`'), '`')
FROM system.dictionaries AS d INNER JOIN system.tables AS t ON t.database = d.database AND t.name = d.name
WHERE d.status IN ('LOADED', 'LOADED_AND_RELOADING', 'FAILED_AND_RELOADING') AND d.lifetime_max > 0"""


@dataclass(slots=True)
class Schedule:
    """When a dictionary is due next, and what its INVALIDATE_QUERY answered before its last load."""

    due: float
    answer: str | None = None


class DictionaryReloader:
    """Reloads the due dictionaries of one engine each time `reload_due` is called."""

    def __init__(self, ask: Callable[[str, str], str], pick: Callable[[float, float], float]) -> None:
        """`ask(sql, format)` runs a query; `pick(a, b)` draws a number between two."""
        self._ask = ask
        self._pick = pick
        self._schedules: dict[tuple[str, str], Schedule] = {}

    def reload_due(self, now: float) -> dict[str, str]:
        """Reload what is due at `now` (s, monotonic). Returns the errors by dictionary; it stays due after one."""
        errors = {}
        seen = set()
        for row in self._ask(_LOADED, "JSONCompactEachRow").splitlines():
            name, uuid, least, most, create, quoted = json.loads(row)
            seen.add((name, uuid))
            wait = self._pick(float(least), float(most))
            schedule = self._schedules.setdefault((name, uuid), Schedule(now))
            if schedule.due > now:
                continue
            try:
                self._reload(quoted, create, schedule)
            except QueryError as error:
                errors[name] = error.text
            schedule.due = now + wait
        self._schedules = {key: value for key, value in self._schedules.items() if key in seen}
        return errors

    def _reload(self, quoted_name: str, create: str, schedule: Schedule) -> None:
        query = parse_invalidate_query(create)
        # Asked before the load: rows that arrive between the two make the next answer differ, never go unseen.
        answer = self._ask(query, "TabSeparated") if query else None
        if answer is None or answer != schedule.answer:
            self._ask(f"SYSTEM RELOAD DICTIONARY {quoted_name}", "Null")
            schedule.answer = answer


def parse_invalidate_query(create: str) -> str | None:
    """The INVALIDATE_QUERY in a CREATE DICTIONARY statement, unescaped; None where there is none."""
    found = _INVALIDATE.search(create)
    if found is None:
        return None
    return re.sub(r"\\(.)|''", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]) if m[1] else "'", found[1])
