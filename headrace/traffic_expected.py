"""What ClickHouse has to say after a run of demo traffic, from what was sent."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any, Final

from headrace.traffic import Fate, SentItem
from schemas.identifiers import visitor_of
from streams.core.identity import Alias, Link, link_or_alias, persons

_DAY_MS: Final = 86_400_000


class Expectation:
    """Counts items as they are sent. It holds for a tenant that had no events before."""

    def __init__(self) -> None:
        self.fates: Counter[Fate] = Counter()
        self.bad: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.bots = 0
        self._events: Counter[tuple[int, str, str]] = Counter()
        self._visitors: defaultdict[tuple[int, str, str], set[str]] = defaultdict(set)
        self._links: list[Link] = []
        self._aliases: list[Alias] = []

    def add(self, item: SentItem) -> None:
        """One more item that is sent."""
        self.fates[item.fate] += 1
        if item.fault is not None:
            self.bad[item.fault.name] += 1
            self.reasons[item.fault.reason.value] += item.fate is Fate.REJECTED
        elif item.fate is Fate.STORED:
            self._add_stored(item)

    def _add_stored(self, item: SentItem) -> None:
        event = item.event
        anonymous_id, user_id, at = event.get("anonymousId", ""), event.get("userId", ""), event["timestamp"]
        said = link_or_alias(event["type"], anonymous_id, user_id, event.get("previousId", ""), at)
        if isinstance(said, Link):
            self._links.append(said)
        elif said is not None:
            self._aliases.append(said)
        if item.bot:
            self.bots += 1
            return
        key = at // _DAY_MS, event["eventCategory"], event["eventAction"]
        self._events[key] += 1
        self._visitors[key].add(visitor_of(anonymous_id, user_id))

    def accounting(self) -> dict[str, Any]:
        """How many events were sent, and how many of them each has to be; names as in `headrace status`."""
        stored, duplicate, dead = (self.fates[fate] for fate in (Fate.STORED, Fate.DUPLICATE, Fate.DEAD))
        return {
            "sent": self.fates.total(),
            "distinct": self.fates.total() - duplicate,
            "accepted": stored + duplicate + dead,
            "stored": stored,
            "duplicate": duplicate,
            "dead": dead,
            "rejected": self.fates[Fate.REJECTED],
            "bots": self.bots,
            "bad": dict(sorted(self.bad.items())),
        }

    def aggregates(self) -> list[dict[str, Any]]:
        """Events and persons by UTC date, eventCategory and eventAction, bots left out, in this order."""
        people = persons(self._links, self._aliases)
        return [
            {
                "date": datetime.fromtimestamp(day * _DAY_MS / 1000, UTC).date().isoformat(),
                "eventCategory": category,
                "eventAction": action,
                "totalEvents": count,
                "uniqueUsers": len({people.get(visitor, visitor) for visitor in self._visitors[day, category, action]}),
            }
            for (day, category, action), count in sorted(self._events.items())
        ]
