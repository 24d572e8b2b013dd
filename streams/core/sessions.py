"""Sessions: runs of one visitor's events with no gap longer than `gap`, whatever order the events arrive in.

A late event can join two sessions. The one that starts later is then overridden to the one that starts earlier, and so
is every id overridden into it before, so that a reader resolves any id in one hop: the last override of an id holds.
Times are ms since the epoch. A visitor is its key, "companyId:visitor".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple


@dataclass(slots=True)
class Session:
    """One session: its first and last event's time, and the ids that are overridden to its own."""

    session_id: str
    start: int
    end: int
    merged: tuple[str, ...] = ()


class Override(NamedTuple):
    """Events stored under `session_id` belong to the session `target`, which starts earlier."""

    session_id: str
    target: str


@dataclass(slots=True)
class Placement:
    """The session an event is stored under, and what its arrival overrides."""

    session_id: str
    overrides: tuple[Override, ...] = ()


class Sessions:
    """The sessions of one partition: all that ended at or after `since`, and older ones that were loaded.

    What is older lies in the store. Before `put`, an event that `needs_lookup` has its visitor's stored sessions that
    lie within `gap` of it loaded. What the store answers may lag behind what is held here, but `evict` may only be
    called when the store has everything that was put, and not between a lookup and its `load`.
    """

    __slots__ = ("_earlier", "_gap", "_last", "since")

    def __init__(self, gap: int, since: int) -> None:
        self.since = since
        self._gap = gap
        # Nearly every visitor has one session here, and nearly every event belongs to the last: no list for those.
        self._last: dict[str, Session] = {}
        self._earlier: dict[str, list[Session]] = {}

    def __len__(self) -> int:
        """The number of sessions held."""
        return len(self._last) + sum(map(len, self._earlier.values()))

    def of(self, visitor: str) -> list[Session]:
        """The visitor's sessions that are held, by start."""
        last = self._last.get(visitor)
        return [] if last is None else [*self._earlier.get(visitor, ()), last]

    def needs_lookup(self, at: int) -> bool:
        """Whether an event at `at` could touch a session that is not held."""
        return at - self._gap < self.since

    def load(self, visitor: str, session: Session) -> None:
        """Hold a session that the store has; the object given is then this state's own.

        The store may know less than what is held: a session that shares an id with held ones becomes one with them.
        """
        if visitor not in self._last:
            self._last[visitor] = session
            return
        ids = {session.session_id, *session.merged}
        same = [session]
        others: list[Session] = []
        for held in self.of(visitor):
            (others if ids.isdisjoint((held.session_id, *held.merged)) else same).append(held)
        self._hold(visitor, [*others, _union(same)])

    def put(self, visitor: str, at: int) -> Placement:
        """Place an event: into the session within `gap` of it, across the two it bridges, or into a new one."""
        if session_id := self.extend(visitor, at):
            return Placement(session_id)
        last = self._last.get(visitor)
        if last is None or at > last.end:
            return self._open(visitor, at)
        return self._put_before_last(visitor, at)

    def extend(self, visitor: str, at: int) -> str:
        """As `put`, for an event in the visitor's last session or up to `gap` after it; any other is not placed: ''.

        Nearly every event is such a one, and overrides nothing.
        """
        last = self._last.get(visitor)
        if last is None or at < last.start or at - last.end > self._gap:
            return ""
        if at > last.end:
            last.end = at
        return last.session_id

    def evict(self, before: int) -> None:
        """Forget the sessions that ended before `before`; from now on they are looked up."""
        if before <= self.since:
            return
        self.since = before
        for visitor in [visitor for visitor, last in self._last.items() if last.end < before]:
            del self._last[visitor]
            self._earlier.pop(visitor, None)
        for visitor in list(self._earlier):
            self._hold(visitor, [session for session in self.of(visitor) if session.end >= before])

    def _put_before_last(self, visitor: str, at: int) -> Placement:
        held = self.of(visitor)
        touched = [session for session in held if session.start - self._gap <= at <= session.end + self._gap]
        if not touched:
            return self._open(visitor, at)
        first, *bridged = touched
        first.start = min(first.start, at)
        first.end = max(touched[-1].end, at)
        if not bridged:
            return Placement(first.session_id)
        moved = tuple(session_id for session in bridged for session_id in (session.session_id, *session.merged))
        first.merged += moved
        self._hold(visitor, [session for session in held if session not in bridged])
        return Placement(first.session_id, tuple(Override(session_id, first.session_id) for session_id in moved))

    def _open(self, visitor: str, at: int) -> Placement:
        session = Session(mint_session_id(visitor, at), at, at)
        if visitor in self._last:
            self._hold(visitor, [*self.of(visitor), session])
        else:
            self._last[visitor] = session
        return Placement(session.session_id)

    def _hold(self, visitor: str, sessions: list[Session]) -> None:
        *earlier, self._last[visitor] = sorted(sessions, key=_start)
        if earlier:
            self._earlier[visitor] = earlier
        else:
            self._earlier.pop(visitor, None)


def mint_session_id(visitor: str, at: int) -> str:
    """The id of the session that an event at `at` opens: the same on every replay, written like a UUID.

    It is unique: once a visitor has an event at `at`, no later one at `at` can open a session.
    """
    digest = blake2b(f"{visitor}\0{at}".encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def recompute(times: Iterable[int], gap: int) -> list[tuple[int, int, int]]:
    """The sessions of one visitor's events by definition, as (start, end, number of events)."""
    sessions: list[tuple[int, int, int]] = []
    for at in sorted(times):
        if sessions and at - sessions[-1][1] <= gap:
            start, _, count = sessions[-1]
            sessions[-1] = (start, at, count + 1)
        else:
            sessions.append((at, at, 1))
    return sessions


def _start(session: Session) -> int:
    return session.start


def _union(shapes: list[Session]) -> Session:
    """Several shapes of one session as one; the earliest start names it, as in every bridge."""
    first, *later = sorted(shapes, key=_start)
    for shape in later:
        first.end = max(first.end, shape.end)
        ids = dict.fromkeys((*first.merged, shape.session_id, *shape.merged))
        first.merged = tuple(session_id for session_id in ids if session_id != first.session_id)
    return first
