"""What a run has to have left, by what the producers know and by nothing that the pipeline says of itself."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.traffic import Fate
from headrace.traffic_expected import Expectation
from schemas.identifiers import visitor_of
from streams.core.sessions import recompute
from tests.chaos.producers import Record

_GAP_MS = 30 * 60_000


class Warehouse(Protocol):
    """Where the rows of a query come from."""

    def rows(self, sql: str) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often each event is stored and dead, and what is wrong, in sentences."""

    events: Counter[str]
    letters: Counter[str]
    faults: list[str]

    def lost(self, record: Record) -> set[str]:
        """Accepted, and neither stored nor dead."""
        return {event for event in record.accepted if not self.events[event] and not self.letters[event]}

    def doubled(self, record: Record) -> set[str]:
        """Stored twice, stored and dead, or dead twice."""
        both = {event for event in record.accepted if self.events[event] and self.letters[event]}
        twice = {event for event, count in self.events.items() if count > 1}
        return both | twice | {event for event in record.accepted if self.letters[event] > 1}


def missing(warehouse: Warehouse, record: Record) -> int:
    """How many accepted events are neither stored nor dead yet."""
    return len(_found(warehouse).lost(record))


def _found(warehouse: Warehouse) -> Outcome:
    events = Counter({event: int(count) for event, count in warehouse.rows(_counted("events"))})
    letters = Counter({event: int(count) for event, count in warehouse.rows(_counted("dead_letters FINAL"))})
    return Outcome(events, letters, [])


def _counted(table: str) -> str:
    return f"SELECT eventId, count() FROM headrace.{table} WHERE eventId != '' GROUP BY eventId"


def check(warehouse: Warehouse, record: Record) -> Outcome:
    """Compare everything; an empty list of faults is a pass."""
    outcome = _found(warehouse)
    faults = outcome.faults
    _tell(faults, "events were lost", outcome.lost(record))
    _tell(faults, "events were doubled", outcome.doubled(record))
    _tell(faults, "verdicts were wrong", record.unexpected)
    _tell(faults, "rejected events were stored", record.rejected & outcome.events.keys())
    _tell(faults, "events were stored that nobody sent", outcome.events.keys() - record.posts.keys())
    due = {event for event in record.accepted if record.items[event].fate is Fate.DEAD}
    _tell(faults, "events should be dead and are stored", due & outcome.events.keys())
    _tell(faults, "events should be stored and are dead", (record.accepted - due) & outcome.letters.keys())
    _tell(faults, "rollup rows differ from what was sent", _differing_rollups(warehouse, record))
    _tell(faults, "visitors' sessions differ from what was sent", _differing_sessions(warehouse, record))
    return outcome


def _tell(faults: list[str], what: str, wrong: Iterable[object]) -> None:
    if found := list(wrong):
        faults.append(f"{len(found)} {what}: {', '.join(map(str, sorted(map(str, found))[:5]))}")


def _stored(record: Record) -> Iterable[Mapping[str, Any]]:
    return (record.items[event].event for event in record.accepted if record.items[event].fate is not Fate.DEAD)


def _differing_rollups(warehouse: Warehouse, record: Record) -> Iterable[object]:
    """Events and persons a day and action, the persons by the links that were sent."""
    expectation = Expectation()
    for event in record.accepted:
        if record.items[event].fate is not Fate.DEAD:
            expectation.add(record.items[event]._replace(fate=Fate.STORED))
    expected = {tuple(row.values()) for row in expectation.aggregates()}
    user = "dictGetOrDefault('headrace.visitor_users', 'user', v, v)"
    person = f"dictGetOrDefault('headrace.user_persons', 'person', {user}, {user})"
    sql = (
        "SELECT toString(date), eventCategory, eventAction, sum(d.totalEvents), "
        f"arrayUniq(arrayMap(v -> {person}, groupUniqArrayMerge(d.visitors))) "
        "FROM headrace.daily_parts AS d GROUP BY date, eventCategory, eventAction"
    )
    found = {(*key, int(events), int(users)) for *key, events, users in warehouse.rows(sql)}
    return expected ^ found


def _differing_sessions(warehouse: Warehouse, record: Record) -> Iterable[object]:
    times: defaultdict[str, list[int]] = defaultdict(list)
    for event in _stored(record):
        times[visitor_of(event.get("anonymousId", ""), event.get("userId", ""))].append(event["timestamp"])
    expected = {visitor: recompute(at, _GAP_MS) for visitor, at in times.items()}
    sql = (
        "SELECT visitorId, "
        "groupArray((toUnixTimestamp64Milli(s.startedAt), toUnixTimestamp64Milli(s.endedAt), s.events)) "
        "FROM headrace.sessions AS s GROUP BY visitorId"
    )
    found = {visitor: sorted(tuple(map(int, row)) for row in rows) for visitor, rows in warehouse.rows(sql)}
    return {visitor for visitor in expected.keys() | found.keys() if expected.get(visitor) != found.get(visitor)}
