"""Sessions equal a recomputation from the stored events, whatever the order, the evictions and the restarts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.digests import bucket_of, key_digest
from streams.core.sessions import Override, Placement, Session, Sessions, mint_session_id, recompute

GAP = 3
ALICE = "acme:alice"
BUCKET = bucket_of(key_digest(ALICE))  # the others are of the same
BOB, CAROL = (
    next(key for key in (f"acme:{name} {n}" for n in count()) if bucket_of(key_digest(key)) == BUCKET)
    for name in ("bob", "carol")
)
unhurried = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

Event = tuple[str, int]


@dataclass
class Store:
    """What the database knows: rows as they were stored, and the last override of each id."""

    rows: list[tuple[str, str, int]] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)

    def commit(self, block: Sequence[tuple[Event, Placement]]) -> None:
        for (visitor, at), placement in block:
            self.rows.append((visitor, placement.session_id, at))
            self.overrides.update(placement.overrides)

    def resolve(self, session_id: str) -> str:
        return self.overrides.get(session_id, session_id)

    def sessions(self, visitor: str) -> list[Session]:
        times: dict[str, list[int]] = {}
        for owner, session_id, at in self.rows:
            if owner == visitor:
                times.setdefault(self.resolve(session_id), []).append(at)
        return [
            Session(target, min(found), max(found), tuple(i for i, to in self.overrides.items() if to == target))
            for target, found in times.items()
        ]

    def visitors(self) -> set[str]:
        return {visitor for visitor, _, _ in self.rows}


@dataclass
class Worker:
    """A partition's worker: looks up a block at once, places its events, commits now or later.

    With what an event needs it loads what lies up to `along` further to each side.
    """

    store: Store
    along: int = 0
    state: Sessions = field(default_factory=lambda: Sessions(GAP, -GAP))
    pending: list[tuple[Event, Placement]] = field(default_factory=list)

    def place(self, events: Sequence[Event]) -> list[Placement]:
        late = [event for event in events if self.state.needs_lookup(event[1]) and not self.state.has_loaded(*event)]
        for visitor, at in late:
            self.look_up(visitor, at)
        return [self.state.put(visitor, at) for visitor, at in events]

    def look_up(self, visitor: str, at: int) -> None:
        first, last = at - GAP - self.along, at + GAP + self.along
        for session in self.store.sessions(visitor):
            if session.start <= last and first <= session.end:
                self.state.load(visitor, session)
        self.state.note_loaded(visitor, first, last)

    def take(self, events: Sequence[Event]) -> None:
        self.pending += zip(events, self.place(events), strict=True)

    def commit(self) -> None:
        self.store.commit(self.pending)
        self.pending = []

    def evict(self, before: int) -> None:
        self.commit()
        self.state.evict(before)

    def restart(self, since: int) -> None:
        """Lose the memory; read back what is committed and take the rest again."""
        self.state = Sessions(GAP, since)
        for visitor in self.store.visitors():
            for session in self.store.sessions(visitor):
                if session.end >= since:
                    self.state.load(visitor, session)
        again = [event for event, _ in self.pending]
        assert self.place(again) == [placement for _, placement in self.pending]

    def read_again(self) -> None:
        """Load all that the store knows, which may lag behind the memory."""
        for visitor in self.store.visitors():
            for session in self.store.sessions(visitor):
                self.state.load(visitor, session)


moments = st.integers(0, 60)
blocks = st.lists(st.tuples(st.sampled_from([ALICE, BOB]), moments), max_size=8)
step = st.one_of(
    blocks.map(lambda events: ("take", events)),
    blocks.map(lambda events: ("take", events)),
    st.just(("commit", None)),
    moments.map(lambda before: ("evict", before)),
    moments.map(lambda since: ("restart", since)),
    st.just(("read_again", None)),
)


alongs = st.sampled_from([0, 4, 20])


def run(steps: Sequence[tuple[str, object]], along: int = 0) -> Worker:
    worker = Worker(Store(), along)
    for name, argument in steps:
        getattr(worker, name)(*([] if argument is None else [argument]))
    worker.commit()
    return worker


def grouped(rows: Sequence[tuple[str, str, int]], store: Store, visitor: str) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for owner, session_id, at in rows:
        if owner == visitor:
            groups.setdefault(store.resolve(session_id), []).append(at)
    return groups


@unhurried
@given(st.lists(step, max_size=25), alongs)
def test_sessions_equal_a_recomputation_over_the_stored_events(steps: list[tuple[str, object]], along: int) -> None:
    store = run(steps, along).store
    for visitor in (ALICE, BOB):
        groups = grouped(store.rows, store, visitor)
        expected = recompute((at for owner, _, at in store.rows if owner == visitor), GAP)
        assert sorted((min(times), max(times), len(times)) for times in groups.values()) == expected


@unhurried
@given(st.lists(step, max_size=25), alongs)
def test_every_event_is_stored_in_the_session_that_a_recomputation_gives_it(
    steps: list[tuple[str, object]], along: int
) -> None:
    store = run(steps, along).store
    for visitor in (ALICE, BOB):
        groups = grouped(store.rows, store, visitor)
        expected = recompute((at for owner, _, at in store.rows if owner == visitor), GAP)
        for owner, session_id, at in store.rows:
            if owner == visitor:
                (bounds,) = [(start, end) for start, end, _ in expected if start <= at <= end]
                mates = groups[store.resolve(session_id)]
                assert (min(mates), max(mates)) == bounds


@unhurried
@given(st.lists(step, max_size=25), alongs)
def test_overrides_take_one_hop_and_lead_to_an_earlier_start(steps: list[tuple[str, object]], along: int) -> None:
    store = run(steps, along).store
    starts: dict[str, int] = {}
    for _, session_id, at in store.rows:
        starts[session_id] = min(at, starts.get(session_id, at))
    for session_id, target in store.overrides.items():
        assert target not in store.overrides
        assert starts[target] < starts[session_id]


@unhurried
@given(st.lists(step, max_size=25), alongs)
def test_the_memory_holds_every_session_that_ended_since(steps: list[tuple[str, object]], along: int) -> None:
    worker = run(steps, along)
    for visitor in (ALICE, BOB):
        held = worker.state.of(visitor)
        stored = {session.session_id: session for session in worker.store.sessions(visitor)}
        assert {s.session_id for s in stored.values() if s.end >= worker.state.since} <= {s.session_id for s in held}
        for session in held:
            twin = stored[session.session_id]
            assert (session.start, session.end) == (twin.start, twin.end)
            assert sorted(session.merged) == sorted(twin.merged)
        assert all(later.start - earlier.end > GAP for earlier, later in pairwise(held))
    assert len(worker.state) == sum(len(worker.state.of(visitor)) for visitor in (ALICE, BOB))


@unhurried
@given(st.data(), st.lists(moments, max_size=12))
def test_every_order_of_arrival_gives_the_same_sessions(data: st.DataObject, times: list[int]) -> None:
    def groups(order: Sequence[int]) -> set[frozenset[int]]:
        store = run([("take", [(ALICE, times[index]) for index in order])]).store
        members: dict[str, set[int]] = {}
        for index, (_, session_id, _) in zip(order, store.rows, strict=True):
            members.setdefault(store.resolve(session_id), set()).add(index)
        return {frozenset(indexes) for indexes in members.values()}

    assert groups(range(len(times))) == groups(data.draw(st.permutations(range(len(times)))))


def fresh() -> Sessions:
    return Sessions(gap=10, since=0)


def test_an_event_within_the_gap_joins_and_one_beyond_it_opens_a_session() -> None:
    state = fresh()
    first = state.put(ALICE, 100)
    assert state.put(ALICE, 110) == first == Placement(mint_session_id(ALICE, 100), ())
    assert state.put(ALICE, 121).session_id == mint_session_id(ALICE, 121)
    assert [(session.start, session.end) for session in state.of(ALICE)] == [(100, 110), (121, 121)]


def test_a_late_event_extends_a_session_to_the_front() -> None:
    state = fresh()
    placement = state.put(ALICE, 100)
    assert state.put(ALICE, 90) == placement
    assert state.of(ALICE) == [Session(mint_session_id(ALICE, 100), 90, 100)]


def test_a_late_event_bridges_two_sessions_and_the_earlier_one_survives() -> None:
    state = fresh()
    later = state.put(ALICE, 120).session_id
    earlier = state.put(ALICE, 100).session_id
    assert state.put(ALICE, 110) == Placement(earlier, (Override(later, earlier),))
    assert state.of(ALICE) == [Session(earlier, 100, 120, (later,))]


def test_a_second_bridge_points_every_older_override_at_the_survivor() -> None:
    state = fresh()
    first, second, third = (state.put(ALICE, at).session_id for at in (60, 80, 100))
    state.put(ALICE, 90)
    assert state.put(ALICE, 70) == Placement(first, (Override(second, first), Override(third, first)))


def test_visitors_do_not_share_sessions() -> None:
    state = fresh()
    assert state.put(ALICE, 100).session_id != state.put(BOB, 100).session_id
    assert len(state) == 2


def test_a_lookup_is_needed_exactly_where_a_forgotten_session_may_lie_within_the_gap() -> None:
    state = Sessions(gap=10, since=100)
    assert state.needs_lookup(109)
    assert not state.needs_lookup(110)
    state.evict(200)
    assert state.needs_lookup(209)
    state.evict(150)
    assert state.since == 200


def test_what_was_loaded_is_known_for_its_visitor_and_time_until_the_next_eviction() -> None:
    state = Sessions(gap=10, since=1_000)
    assert not state.has_loaded(ALICE, 150)
    state.note_loaded(ALICE, 100, 200)
    assert [at for at in (109, 110, 190, 191) if state.has_loaded(ALICE, at)] == [110, 190]
    assert not state.has_loaded(BOB, 150)
    state.evict(1_000)
    assert state.has_loaded(ALICE, 150)
    state.evict(1_001)
    assert not state.has_loaded(ALICE, 150)


def test_two_times_that_were_loaded_are_one_where_they_meet_and_else_the_last_counts() -> None:
    state = Sessions(gap=10, since=1_000)
    state.note_loaded(ALICE, 100, 200)
    state.note_loaded(ALICE, 200, 300)
    assert all(state.has_loaded(ALICE, at) for at in (110, 200, 290))
    state.note_loaded(ALICE, 400, 500)
    assert [state.has_loaded(ALICE, at) for at in (200, 350, 450)] == [False, False, True]


def test_of_few_visitors_is_known_what_was_loaded() -> None:
    state = Sessions(gap=10, since=1_000)
    for number in range(60_000):
        state.note_loaded(f"acme:{number}", 0, 100)
    assert not state.has_loaded("acme:0", 50)
    assert state.has_loaded("acme:59999", 50)


def test_eviction_forgets_what_ended_before_and_keeps_the_rest() -> None:
    state = fresh()
    for at in (50, 100, 150):
        state.put(ALICE, at)
    state.put(BOB, 99)
    state.put(CAROL, 100)
    state.evict(100)
    assert [session.start for session in state.of(ALICE)] == [100, 150]
    assert state.of(BOB) == []
    assert [session.start for session in state.of(CAROL)] == [100]
    assert len(state) == 3


def test_an_older_shape_from_the_store_changes_nothing() -> None:
    state = fresh()
    later, earlier = state.put(ALICE, 120).session_id, state.put(ALICE, 100).session_id
    state.put(ALICE, 110)
    state.load(ALICE, Session(later, 120, 120))
    state.load(ALICE, Session(earlier, 100, 100))
    assert state.of(ALICE) == [Session(earlier, 100, 120, (later,))]


def test_a_session_id_is_the_same_on_every_replay_and_reads_as_a_uuid() -> None:
    assert mint_session_id(ALICE, 100) == mint_session_id(ALICE, 100) != mint_session_id(ALICE, 101)
    assert [len(part) for part in mint_session_id("acme:\ud800", 100).split("-")] == [8, 4, 4, 4, 12]


def test_recompute_cuts_at_gaps_and_counts_repeated_times() -> None:
    assert recompute([121, 100, 110, 110], 10) == [(100, 110, 3), (121, 121, 1)]
    assert recompute([], 10) == []
