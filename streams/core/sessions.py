"""Sessions: runs of one visitor's events with no gap longer than `gap`, whatever order the events arrive in.

A late event can join two sessions. The one that starts later is then overridden to the one that starts earlier, and so
is every id overridden into it before, so that a reader resolves any id in one hop: the last override of an id holds.
Times are ms since the epoch. A visitor is its key, "companyId:visitor".
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from schemas.digests import DIGEST_BYTES, PACKED_SESSION, bucket_of, find_digest, key_digest

_SIZE: Final = PACKED_SESSION.size
_START_AT: Final = 16  # where the first event's time lies in an entry
_END_AT: Final = 24  # and the last event's
_END: Final = Struct(">q")
_TIMES: Final = Struct(">qq")
_ENDS: Final = Struct(">24xq16x")
_NEVER: Final = 1 << 62
#: Visitors of whom is remembered what was loaded, some 300 bytes each; beyond, all of them are looked up again.
_LOADED_VISITORS: Final = 50_000
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    lie within `gap` of it loaded, unless `has_loaded` says that they were. What the store answers may lag behind what
    is held here, but `evict` may only be called when the store has everything that was put, and not between a lookup
    and its `load`.

    Sessions are held packed, 48 bytes each, those of one visitor in the order of their start; a `Session` is made of
    an entry where more than the last one's times matter.
    """

    __slots__ = (
        "_buckets",
        "_digest",
        "_end",
        "_entry",
        "_extras",
        "_gap",
        "_last_id",
        "_loaded",
        "_start",
        "_visitor",
        "since",
    )

    def __init__(self, gap: int, since: int) -> None:
        self.since = since
        self._gap = gap
        self._buckets: dict[int, bytearray] = {}
        # By visitor's and session's digest: ids that are no UUID, and ids overridden to a session's own.
        self._extras: dict[bytes, tuple[str, tuple[str, ...]]] = {}
        # By visitor: from when to when every session that the store has is held.
        self._loaded: dict[str, tuple[int, int]] = {}
        # The visitor asked for last, and its last session, from its start on; `_entry` is where its end is written.
        self._visitor, self._digest = "", key_digest("")
        self._start, self._end = _NEVER, -_NEVER
        self._last_id = ""
        self._entry = bytearray(), 0

    def __len__(self) -> int:
        """The number of sessions held."""
        return sum(map(len, self._buckets.values())) // _SIZE

    def __iter__(self) -> Iterator[tuple[bytes, Session]]:
        """The sessions held, each with its visitor's digest."""
        for bucket in self._buckets.values():
            for entry in PACKED_SESSION.iter_unpack(bucket):
                yield entry[0], self._session(*entry)

    def of(self, visitor: str) -> list[Session]:
        """The visitor's sessions that are held, by start."""
        digest = self._digest if visitor == self._visitor else key_digest(visitor)
        bucket = self._buckets.get(bucket_of(digest), b"")
        if digest not in bucket:
            return []
        return [self._session(*entry) for entry in PACKED_SESSION.iter_unpack(bucket) if entry[0] == digest]

    def needs_lookup(self, at: int) -> bool:
        """Whether an event at `at` could touch a session that is not held, of a visitor of whom none was loaded."""
        return at - self._gap < self.since

    def has_loaded(self, visitor: str, at: int) -> bool:
        """Whether every session of the visitor that an event at `at` could touch was loaded, and is held since."""
        first, last = self._loaded.get(visitor, (_NEVER, -_NEVER))
        return first <= at - self._gap and at + self._gap <= last

    def note_loaded(self, visitor: str, first: int, last: int) -> None:
        """Remember until the next eviction that every stored session that touches this time of the visitor is held.

        One span a visitor: the last, with the one before where they meet.
        """
        before = self._loaded.get(visitor)
        if before is None and len(self._loaded) >= _LOADED_VISITORS:
            self._loaded.clear()
        if before is not None and before[0] <= last and first <= before[1]:
            first, last = min(first, before[0]), max(last, before[1])
        self._loaded[visitor] = (first, last)

    def load_packed(self, runs: Iterable[bytes]) -> None:
        """Hold what a store knows, before anything is put: runs as in `RecentState.packed`."""
        for run in runs:
            self._buckets.setdefault(bucket_of(run), bytearray()).extend(run)

    def load(self, visitor: str, session: Session) -> None:
        """Hold a session that the store has.

        The store may know less than what is held: a session that shares an id with held ones becomes one with them.
        """
        ids = {session.session_id, *session.merged}
        same = [session]
        others: list[Session] = []
        for held in self.of(visitor):
            (others if ids.isdisjoint((held.session_id, *held.merged)) else same).append(held)
        self._hold(visitor, [*others, _union(same)])

    def put(self, visitor: str, at: int) -> Placement:
        """Place an event: into the session within `gap` of it, across the two it bridges, or into a new one."""
        if session_id := self.extend(visitor, at, at):
            return Placement(session_id)
        if at > self._end:
            return self._open_last(visitor, at)
        if session_id := self._join(at):
            return Placement(session_id)
        held = self.of(visitor)
        touched = [session for session in held if session.start - self._gap <= at <= session.end + self._gap]
        if not touched:
            session = Session(mint_session_id(visitor, at), at, at)
            self._hold(visitor, [*held, session])
            return Placement(session.session_id)
        first, *bridged = touched
        first.start = min(first.start, at)
        first.end = max(touched[-1].end, at)
        moved = tuple(session_id for session in bridged for session_id in (session.session_id, *session.merged))
        first.merged += moved
        self._hold(visitor, [session for session in held if session not in bridged])
        return Placement(first.session_id, tuple(Override(session_id, first.session_id) for session_id in moved))

    def extend(self, visitor: str, first: int, last: int) -> str:
        """As `put`, for events from `first` to `last` that are all in the visitor's last session or up to `gap` after
        its end; any others are not placed: ''.

        Nearly all events are such, and override nothing; nearly always they are of the same visitor as those before,
        whose last session is at hand.
        """
        if visitor != self._visitor:
            self._turn_to(visitor)
        if first < self._start or last - self._end > self._gap:
            return ""
        if last > self._end:
            self._end = last
            _END.pack_into(*self._entry, last)
        return self._last_id

    def evict(self, before: int) -> None:
        """Forget the sessions that ended before `before`; from now on they are looked up."""
        if before <= self.since:
            return
        self.since = before
        self._loaded.clear()
        for place, bucket in list(self._buckets.items()):
            ended = [index for index, (end,) in enumerate(_ENDS.iter_unpack(bucket)) if end < before]
            for index in reversed(ended):
                self._drop(bucket, index * _SIZE)
            if not bucket:
                del self._buckets[place]
        self._turn_to(self._visitor)

    def _turn_to(self, visitor: str) -> None:
        """Have the visitor's last session at hand; again after its entries have moved."""
        if visitor != self._visitor:
            self._visitor, self._digest = visitor, key_digest(visitor)
        bucket = self._buckets.get(bucket_of(self._digest))
        if not bucket or (at := find_digest(bucket, self._digest, _SIZE)) < 0:
            self._start, self._end = _NEVER, -_NEVER
            return
        _, self._start, self._end, uuid = PACKED_SESSION.unpack_from(bucket, at)
        self._last_id, _ = self._extras.get(self._digest + uuid) or (_uuid_text(uuid), ())
        self._entry = bucket, at + _END_AT

    def _open_last(self, visitor: str, at: int) -> Placement:
        """A new session of the visitor at hand, after all others of it: its entry lies behind theirs."""
        self._last_id = mint_session_id(visitor, at)
        bucket = self._buckets.setdefault(bucket_of(self._digest), bytearray())
        self._entry = bucket, len(bucket) + _END_AT
        bucket += PACKED_SESSION.pack(self._digest, at, at, bytes.fromhex(self._last_id.replace("-", "")))
        self._start = self._end = at
        return Placement(self._last_id)

    def _join(self, at: int) -> str:
        """Have the only session of the visitor at hand that lies within `gap` of `at` reach it; '': it is not one.

        Its place among the visitor's sessions stays, so its times are written where they lie.
        """
        bucket, digest, first, last = self._entry[0], self._digest, at - self._gap, at + self._gap
        touched = [
            (index, entry)
            for index, entry in enumerate(PACKED_SESSION.iter_unpack(bucket))
            if entry[0] == digest and entry[1] <= last and first <= entry[2]
        ]
        if len(touched) != 1:
            return ""
        ((index, (_, start, end, uuid)),) = touched
        _TIMES.pack_into(bucket, index * _SIZE + _START_AT, min(start, at), max(end, at))
        self._turn_to(self._visitor)
        session_id, _ = self._extras.get(digest + uuid) or (_uuid_text(uuid), ())
        return session_id

    def _session(self, visitor: bytes, start: int, end: int, uuid: bytes) -> Session:
        session_id, merged = self._extras.get(visitor + uuid) or (_uuid_text(uuid), ())
        return Session(session_id, start, end, merged)

    def _hold(self, visitor: str, sessions: list[Session]) -> None:
        """Hold these of the visitor's sessions, and no others."""
        self._turn_to(visitor)
        digest = self._digest
        bucket = self._buckets.setdefault(bucket_of(digest), bytearray())
        while (at := find_digest(bucket, digest, _SIZE)) >= 0:
            self._drop(bucket, at)
        for session in sorted(sessions, key=_start):
            is_uuid = _UUID.fullmatch(session.session_id)
            uuid = bytes.fromhex(session.session_id.replace("-", "")) if is_uuid else key_digest(session.session_id)
            bucket += PACKED_SESSION.pack(digest, session.start, session.end, uuid)
            if session.merged or not is_uuid:
                self._extras[digest + uuid] = session.session_id, session.merged
        self._turn_to(visitor)

    def _drop(self, bucket: bytearray, at: int) -> None:
        entry = bucket[at : at + _SIZE]
        del bucket[at : at + _SIZE]
        if self._extras:
            self._extras.pop(bytes(entry[:DIGEST_BYTES] + entry[-DIGEST_BYTES:]), None)


def mint_session_id(visitor: str, at: int) -> str:
    """The id of the session that an event at `at` opens: the same on every replay, written like a UUID.

    It is unique: once a visitor has an event at `at`, no later one at `at` can open a session.
    """
    digest = blake2b(f"{visitor}\0{at}".encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def _uuid_text(uuid: bytes) -> str:
    text = uuid.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
