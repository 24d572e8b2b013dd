"""A letter is known for as long as `since` says, and no event has one that was not added."""

from hypothesis import given
from hypothesis import strategies as st

from streams.core.recent_letters import RecentLetters

START = 1000

# A step is (event's number, delay of its receipt, evict after it?, how far back to keep); each step is a tick.
steps_of = st.lists(st.tuples(st.integers(0, 9), st.integers(-6, 6), st.booleans(), st.integers(0, 20)), max_size=40)


@given(steps_of)
def test_a_letter_of_an_event_received_at_or_after_since_is_known_and_no_other(
    steps: list[tuple[int, int, bool, int]],
) -> None:
    letters, added = RecentLetters(START - 10), dict[tuple[str, str], int]()
    for tick, (number, jitter, evicts, window) in enumerate(steps):
        event, received_at = ("acme", str(number)), START + tick + jitter
        if event not in letters:
            letters.add(event, received_at)
            added[event] = max(received_at, added.get(event, received_at))
        if evicts:
            letters.evict(START + tick - window)
        assert [each for each, at in added.items() if letters.covers(at) and each not in letters] == []
        assert [("acme", str(n)) in letters for n in range(10) if ("acme", str(n)) not in added].count(True) == 0


def test_what_was_received_before_is_dropped() -> None:
    letters = RecentLetters(0)
    letters.add(("acme", "a"), 10)
    letters.add(("acme", "b"), 20)
    letters.evict(11)
    assert (("acme", "a") in letters, ("acme", "b") in letters, letters.since) == (False, True, 11)


def test_no_more_than_a_number_are_held_and_the_latest_are() -> None:
    letters = RecentLetters(0)
    for number in range(30_000):
        letters.add(("acme", str(number)), number)
    letters.evict(0)
    assert (len(letters), letters.since) == (20_000, 10_000)
    assert ("acme", "29999") in letters


def test_without_a_beginning_nothing_is_covered() -> None:
    assert not RecentLetters().covers(1_795_600_000_000)
