import random
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest

from collector.answers import Refused
from collector.arrival import Arrival, Sender
from collector.checking import check_shapes, collect
from headrace.traffic import FAULTS, Fate, SentItem, generate, pack_requests
from headrace.traffic_expected import Expectation
from headrace.traffic_people import invent_visitors, session_shares
from headrace.traffic_sessions import plan_sessions
from schemas.catalog import FIRST_CLASS, check_properties
from schemas.context import CONTEXT_FIELDS
from streams.user_agents import parse_user_agent

NOW = 1_795_000_000_000
DAY = 86_400_000
ITEMS = list(generate(7, 20_000, 600, NOW, 3))


def expectation(items: list[SentItem]) -> Expectation:
    expected = Expectation()
    for item in items:
        expected.add(item)
    return expected


def arrival() -> Arrival:
    return Arrival("acme", Sender(), NOW, lambda: "minted")


def test_the_same_arguments_give_the_same_traffic_and_another_seed_another() -> None:
    assert list(generate(1, 500, 20, NOW, 2)) == list(generate(1, 500, 20, NOW, 2))
    assert list(generate(1, 500, 20, NOW, 2)) != list(generate(2, 500, 20, NOW, 2))


@pytest.mark.parametrize(("events", "visitors"), [(1, 1), (2, 5), (17, 1), (1_000, 3), (5_001, 200)])
def test_exactly_so_many_events_are_sent_all_of_them_before_now(events: int, visitors: int) -> None:
    items = list(generate(3, events, visitors, NOW, 0.5))
    assert len(items) == events
    assert all(NOW - DAY / 2 <= item.event["timestamp"] <= NOW for item in items)


def test_an_id_is_sent_twice_by_a_duplicate_and_only_by_one() -> None:
    first: dict[str, SentItem] = {}
    for item in ITEMS:
        again = first.setdefault(item.event["eventId"], item)
        assert (item.fate is Fate.DUPLICATE) == (again is not item)
        assert again.event == item.event
    assert Counter(item.fate for item in ITEMS)[Fate.DUPLICATE] == 200


def test_the_collector_takes_all_but_those_that_have_its_reason() -> None:
    for item in ITEMS:
        [sent] = check_shapes([item.event])
        taken = sent if isinstance(sent, Refused) else collect(sent, arrival())
        refused = taken.reason if isinstance(taken, Refused) else None
        assert refused == (item.fault.reason if item.fault and item.fate is Fate.REJECTED else None), item


def test_the_properties_of_first_class_events_fit_but_for_those_that_are_to_be_dead() -> None:
    for item in ITEMS:
        if item.fate is not Fate.REJECTED:
            event = item.event
            broken = check_properties(event["eventCategory"], event["eventAction"], event.get("properties", {}))
            assert (broken.reason if broken else None) == (item.fault.reason if item.fault else None), item


def test_every_first_class_event_every_identity_event_and_every_fault_occurs() -> None:
    stored = Counter((item.event["eventCategory"], item.event["eventAction"]) for item in ITEMS if not item.fault)
    assert set(stored) == {*FIRST_CLASS, ("identity", "identify"), ("identity", "alias"), ("identity", "group")}
    assert {item.fault.name for item in ITEMS if item.fault} == {fault.name for fault in FAULTS}
    searches = [
        item.event["properties"]["results"]
        for item in ITEMS
        if item.event["eventAction"] == "search" and not item.fault
    ]
    assert 0.05 < searches.count(0) / len(searches) < 0.3


def test_contexts_have_only_known_fields_and_robots_are_those_whose_user_agent_says_so() -> None:
    for item in ITEMS:
        context = item.event["context"]
        assert context.keys() <= set(CONTEXT_FIELDS)
        agent = parse_user_agent(context.get("userAgent", ""))
        assert agent.bot == item.bot
        assert agent.device_type or "userAgent" not in context
    assert any(item.bot for item in ITEMS)


def by_visitor(items: list[SentItem]) -> dict[str, list[dict[str, Any]]]:
    events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        if item.fate is Fate.STORED and "anonymousId" in item.event:
            events[item.event["anonymousId"]].append(item.event)
    return {visitor: sorted(own, key=lambda event: event["timestamp"]) for visitor, own in events.items()}


def test_a_visitor_is_anonymous_until_the_login_and_logs_in_to_one_account() -> None:
    after_login = 0
    for own in by_visitor(ITEMS).values():
        users = {event["userId"] for event in own if "userId" in event}
        assert len(users) <= 1
        logins = [event["timestamp"] for event in own if event["type"] == "identify"]
        for event in own:
            assert ("userId" not in event) or min(logins, default=event["timestamp"]) <= event["timestamp"]
            after_login += "userId" in event
    assert after_login > 1_000


def test_a_logout_mints_an_anonymous_id_and_some_persons_have_several() -> None:
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for own in by_visitor(ITEMS).values():
        for event in own:
            if event["type"] == "identify":
                ids[event["userId"]].add(event["anonymousId"])
    assert len(by_visitor(ITEMS)) > 600
    assert sum(len(own) > 1 for own in ids.values()) > 20


def test_most_events_come_in_the_order_of_time_and_some_come_late() -> None:
    starts = [item.event["timestamp"] for item in ITEMS if item.fate is Fate.STORED]
    hour = 3_600_000
    backwards = sum(later < earlier - hour for earlier, later in pairwise(starts))
    assert 50 < backwards < 0.03 * len(starts)


def test_visits_have_gaps_of_seconds_and_sometimes_of_over_half_an_hour() -> None:
    gaps = sorted(
        (later["timestamp"] - earlier["timestamp"]) / 1000
        for own in by_visitor(ITEMS).values()
        for earlier, later in pairwise(own)
    )
    assert 3 < gaps[len(gaps) // 2] < 60
    assert gaps[-1] > 1_800


def test_requests_hold_every_item_once_in_order() -> None:
    batches = list(pack_requests(iter(ITEMS[:1_050]), 100))
    assert [len(batch.items) for batch in batches] == [100] * 10 + [50]
    assert [item for batch in batches for item in batch.items] == ITEMS[:1_050]


def test_sessions_hold_exactly_the_events_and_begin_in_order() -> None:
    rng = random.Random(1)
    sessions = list(plan_sessions(5_000, invent_visitors(40, rng), NOW, 2, rng))
    assert sum(session.events for session in sessions) == 5_000
    assert sessions == sorted(sessions, key=lambda session: session.start)
    assert session_shares(3)[0] > session_shares(3)[2] - session_shares(3)[1]


def test_the_accounting_adds_up() -> None:
    counts = expectation(ITEMS).accounting()
    assert counts["sent"] == 20_000 == counts["accepted"] + counts["rejected"]
    assert counts["accepted"] == counts["stored"] + counts["duplicate"] + counts["dead"]
    assert counts["distinct"] == counts["sent"] - counts["duplicate"] == len({i.event["eventId"] for i in ITEMS})
    assert sum(counts["bad"].values()) == 100 == counts["dead"] + counts["rejected"]
    aggregates = expectation(ITEMS).aggregates()
    assert sum(row["totalEvents"] for row in aggregates) == counts["stored"] - counts["bots"]


def item(at: int, **fields: Any) -> SentItem:
    named = {"eventCategory": "page", "eventAction": "view"}
    return SentItem({"eventId": str(at), "type": "page", "timestamp": at, **named, **fields}, bot=False)


def test_persons_are_counted_not_visitors_whatever_the_order() -> None:
    items = [
        item(DAY, anonymousId="a"),
        item(DAY + 1, anonymousId="b"),
        item(DAY + 2, userId="old"),
        item(DAY + 3, anonymousId="nobody-we-know"),
        item(2 * DAY, anonymousId="a", userId="u", type="identify", eventCategory="identity", eventAction="identify"),
        item(2 * DAY, anonymousId="b", userId="u", type="identify", eventCategory="identity", eventAction="identify"),
        item(2 * DAY, userId="u", previousId="old", type="alias", eventCategory="identity", eventAction="alias"),
        item(DAY, anonymousId="a")._replace(fate=Fate.DUPLICATE),
        item(DAY, anonymousId="robot")._replace(bot=True),
    ]
    rows = [
        ("1970-01-02", "page", "view", 4, 2),
        ("1970-01-03", "identity", "alias", 1, 1),
        ("1970-01-03", "identity", "identify", 2, 1),
    ]
    for order in (items, items[::-1]):
        assert [tuple(row.values()) for row in expectation(order).aggregates()] == rows
