"""Sessions of the demo traffic: when which visitor comes, and the events of the visit, logins and logouts too."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from collector.ids import mint_uuid7
from headrace.traffic_actions import Act, Scene, acts, view_page
from headrace.traffic_people import Account, Visitor, mint_uuid4, session_shares

_SERVER_CONTEXT: Final = {"app": "backend", "library": "headrace-node", "libraryVersion": "1.4.0"}
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_MEAN_EVENTS: Final = 14
_MEAN_GAP_MS: Final = 18_000
_PAUSE: Final = 0.015
_PAUSE_MS: Final = (3 * 60_000, 40 * 60_000)
_LOGIN: Final = 0.3
_LOGOUT: Final = 0.15
_ALIAS: Final = 0.5
#: How many sessions begin in an hour of the day (UTC), the busiest being 1.
_DAYTIME: Final = (
    *(0.15, 0.12, 0.1, 0.1, 0.12, 0.2, 0.4, 0.7, 0.95, 1.0, 1.0, 0.95),
    *(0.9, 0.95, 1.0, 1.0, 0.95, 0.85, 0.75, 0.65, 0.5, 0.4, 0.3, 0.2),
)
#: Share, referrer, query of the landing page.
_WAYS_IN: Final[tuple[tuple[int, str, dict[str, str]], ...]] = (
    (40, "", {}),
    (26, "https://www.google.com/", {}),
    (5, "https://www.bing.com/", {}),
    (6, "https://www.google.com/", {"gclid": "EAIaIQobChMI-demo"}),
    (9, "", {"utm_source": "newsletter", "utm_medium": "email", "utm_campaign": "brakes-week"}),
    (6, "https://www.linkedin.com/", {"utm_source": "linkedin", "utm_medium": "social", "utm_campaign": "launch"}),
    (4, "https://www.youtube.com/", {}),
    (4, "https://forum.example.org/threads/timing-belts", {}),
)
_WAY_SHARES: Final = [way[0] for way in _WAYS_IN]
_HOSTS: Final = {"portal": "portal.example.com", "workshop": "workshop.example.com", "mobile": "m.example.com"}
_LANDINGS: Final = (("/", "Start"), ("/", "Start"), ("/manuals", "Manuals"), ("/videos", "Videos"), ("/news", "News"))

#: An event, and whether a robot sends it.
Browsed = tuple[dict[str, Any], bool]


class Session(NamedTuple):
    """A visit of so many events; `start` in ms since the epoch."""

    start: int
    visitor: Visitor
    events: int


def plan_sessions(
    events: int, visitors: Sequence[Visitor], now: int, days: float, rng: random.Random
) -> Iterator[Session]:
    """Sessions of together exactly `events` events in the order of their start, most of them in the daytime."""
    lengths: list[int] = []
    left = events
    while left > 0:
        lengths.append(min(left, 1 + int(rng.expovariate(1 / (_MEAN_EVENTS - 1)))))
        left -= lengths[-1]
    ranked = rng.sample(visitors, len(visitors))
    coming = ranked[: len(lengths)]  # each at least once, if there are as many sessions
    coming += rng.choices(ranked, cum_weights=session_shares(len(ranked)), k=len(lengths) - len(coming))
    rng.shuffle(coming)
    starts = sorted((_start(length, now, days, rng), length) for length in lengths)
    for (start, length), visitor in zip(starts, coming, strict=True):
        yield Session(start, visitor, length)


def _start(length: int, now: int, days: float, rng: random.Random) -> int:
    first = now - int(days * _DAY_MS)
    last = max(first, now - length * 5 * _MEAN_GAP_MS)
    for _ in range(8):
        start = rng.randint(first, last)
        if rng.random() < _DAYTIME[start // _HOUR_MS % 24]:
            break
    return start


def browse(sessions: Iterator[Session], now: int, rng: random.Random) -> Iterator[Browsed]:
    """The events of all sessions, one session after the other."""
    aliased: set[str] = set()
    for session in sessions:
        yield from _Visit(session, aliased, now, rng).events()


class _Visit:
    """One session while it goes on."""

    def __init__(self, session: Session, aliased: set[str], now: int, rng: random.Random) -> None:
        self._visitor, self._left, self._at = session.visitor, session.events, session.start
        self._aliased, self._now, self._rng = aliased, now, rng
        self._page: dict[str, Any] = {}
        self._url = ""

    def events(self) -> Iterator[Browsed]:
        visitor, rng = self._visitor, self._rng
        leaves = rng.random() < _LOGOUT
        path, title = rng.choice(_LANDINGS)
        self._land(path, title)
        yield self._do(view_page(path, title))
        while self._left > 0:
            if visitor.user is None and visitor.accounts and rng.random() < _LOGIN:
                yield from self._log_in(rng.choice(visitor.accounts))
            for act in acts(Scene(rng, visitor.user), visitor.bot):
                if self._left <= 0:
                    break
                if self._left == 1 and leaves and visitor.user:
                    act = Act("ui", "click", {"element": "button#log-out", "text": "Log out"}, "Log out")
                yield self._do(act)
        if leaves and visitor.user:
            visitor.user, visitor.anonymous_id = None, mint_uuid4(rng)

    def _land(self, path: str, title: str) -> None:
        _, referrer, query = self._rng.choices(_WAYS_IN, _WAY_SHARES)[0]
        self._show(path, title, f"?{urlencode(query)}" if query else "", referrer)

    def _show(self, path: str, title: str, query: str, referrer: str) -> None:
        context = self._visitor.context
        self._url = f"https://{_HOSTS[context['app']]}{path}{query}"
        self._page = {**context, "url": self._url, "path": path, "title": title}
        if referrer:
            self._page["referrer"] = referrer

    def _do(self, act: Act) -> Browsed:
        if act.page and act.page != self._page.get("path"):
            self._show(act.page, act.label or act.page, "", self._url)
        event: dict[str, Any] = {
            "type": "page" if act.category == "page" else "track",
            "eventCategory": act.category,
            "eventAction": act.action,
            "properties": act.properties,
        }
        if act.label:
            event["eventLabel"] = act.label
        if act.value is not None:
            event["value"] = act.value
        return self._by_server(event) if act.by_server else self._by_visitor(event)

    def _log_in(self, account: Account) -> Iterator[Browsed]:
        """identify, and what an application says of a user the first time that it sees them here."""
        visitor = self._visitor
        visitor.user, visitor.user_since = account, self._at
        said: list[dict[str, Any]] = [
            {"type": "identify", "eventAction": "identify", "properties": {"plan": account.plan, "role": account.role}}
        ]
        if account.user_id not in visitor.linked:
            visitor.linked.add(account.user_id)
            said.append({"type": "group", "eventAction": "group", "groupId": account.workshop})
        if account.legacy_id and account.user_id not in self._aliased and self._rng.random() < _ALIAS:
            self._aliased.add(account.user_id)
            said.append({"type": "alias", "eventAction": "alias", "previousId": account.legacy_id})
        for event in said[: self._left]:
            yield self._by_visitor({**event, "eventCategory": "identity"})

    def _by_visitor(self, event: dict[str, Any]) -> Browsed:
        visitor = self._visitor
        event["anonymousId"] = visitor.anonymous_id
        if visitor.user is not None and self._at >= visitor.user_since:  # another tab may have been first
            event["userId"] = visitor.user.user_id
        event["context"] = self._page
        return self._timed(event), visitor.bot

    def _by_server(self, event: dict[str, Any]) -> Browsed:
        """Under the id that the server knows the user by: the older system's, until the two are joined."""
        user = self._visitor.user
        assert user is not None, "a server tells of users only"
        known = user.user_id in self._aliased or not user.legacy_id
        event["userId"] = user.user_id if known else user.legacy_id
        event["context"] = _SERVER_CONTEXT
        return self._timed(event), False

    def _timed(self, event: dict[str, Any]) -> dict[str, Any]:
        event["timestamp"] = self._at
        event["eventId"] = mint_uuid7(self._at, self._rng.randbytes(10))
        self._left -= 1
        pause = self._rng.randint(*_PAUSE_MS) if self._rng.random() < _PAUSE else 0
        self._at = min(self._now, self._at + pause + 800 + int(self._rng.expovariate(1 / _MEAN_GAP_MS)))
        return event
