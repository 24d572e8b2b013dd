"""What every check is given: the connection, what retention may have removed, and the rules to recompute by."""

from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from warehouse.client import ClickHouse

_EPOCH: Final = date(1970, 1, 1)

#: Ends a query whose groups may be more than fit in memory. Bytes.
ON_DISK: Final = "SETTINGS max_bytes_before_external_group_by = 1000000000"
#: Such a query's parts may be so many times larger, and still be shown to go on.
_LARGER: Final = 16
#: A visitor counts for so many events: its names are held, of an event only a time or a number.
_EVENTS_OF_A_VISITOR: Final = 8

#: Told how much of a check is done, from 0 to 1.
Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Recomputation:
    """The rules of the core, which the warehouse does not import.

    `sessions` maps times and the gap (ms) to (start, end, events). `identity` says 'link', 'alias' or '' of (type,
    anonymousId, userId, previousId). `persons` maps links (anonymousId, userId, ms) and aliases (previousId, userId) of
    one tenant to the person of each id.
    """

    gap: int
    sessions: Callable[[Iterable[int], int], list[tuple[int, int, int]]]
    identity: Callable[[str, str, str, str], str]
    persons: Callable[[Iterable[tuple[str, str, int]], Iterable[tuple[str, str]]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Retention:
    """Until when events may have been removed; each tenant may have months of its own.

    ClickHouse removes rows some time after they expire, so what is older than the cutoff is neither expected nor
    wrong. Rollups, sessions and links are kept: they are compared where their events must still be there.
    """

    months: int
    today: date
    by_company: Mapping[str, int] = field(default_factory=dict)

    def cutoff(self, company: str = "") -> date:
        """The last day whose events may be gone."""
        return _months_before(self.today, self.by_company.get(company, self.months))

    def keeps(self, day: str) -> str:
        """The SQL condition that the events of `day`, a date expression beside companyId, must still be there."""
        default = _date_literal(self.cutoff())
        if not self.by_company:
            return f"({day} > {default})"
        companies = ", ".join(map(quote, self.by_company))
        cutoffs = ", ".join(_date_literal(self.cutoff(company)) for company in self.by_company)
        return f"({day} > transform(toString(companyId), [{companies}], [{cutoffs}], {default}))"

    def kept_from(self, company: str) -> int:
        """The first ms whose events must be there."""
        return int(datetime.combine(self.cutoff(company) + timedelta(1), time(), UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Scope:
    """A warehouse under verification. Large tables are compared in parts of about `part_rows` events.

    Every part reads the table again, so parts are as large as memory allows. `memo` holds what several checks need; it
    is cleared before a check runs again.
    """

    client: ClickHouse
    retention: Retention
    rules: Recomputation
    part_rows: int = 4_000_000
    memo: dict[str, Any] = field(default_factory=dict)

    def count_events(self) -> int:
        """The rows of `events`."""
        return int(self.client.rows("SELECT count() FROM events")[0][0])

    def visitor_buckets(self) -> int:
        """In how many buckets of visitors to read what there is one of for each visitor."""
        return self.buckets_for(int(self.client.rows("SELECT uniq(visitor) FROM events")[0][0]) * _EVENTS_OF_A_VISITOR)

    def buckets_for(self, rows: int) -> int:
        """In how many buckets to read so many rows."""
        return rows // self.part_rows + 1

    def buckets_on_disk(self, rows: int) -> int:
        """In how many buckets to read so many rows by a query that ends with `ON_DISK`."""
        return rows // (self.part_rows * _LARGER) + 1


def quote(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _months_before(day: date, months: int) -> date:
    months_since = day.year * 12 + day.month - 1 - months
    year, month = divmod(months_since, 12)
    if year < _EPOCH.year:
        return _EPOCH
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _date_literal(day: date) -> str:
    return f"toDate32('{day}')"
