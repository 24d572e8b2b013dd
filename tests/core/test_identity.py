"""Persons are a function of the set of links and aliases."""

from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.core.identity import Alias, Link, link_or_alias, merge_aliases, persons

unhurried = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

T = TypeVar("T")

# The two alphabets overlap: an id may be used as an anonymousId here and as a userId there.
anonymous_ids = st.sampled_from(["a1", "a2", "a3", "u1", "u2"])
user_ids = st.sampled_from(["u1", "u2", "u3", "u4", "u5", "u6", "a1"])
links_of = st.lists(st.builds(Link, anonymous_ids, user_ids, st.integers(0, 4)), max_size=12)
aliases_of = st.lists(st.builds(Alias, user_ids, user_ids), max_size=8)


def repetitions(items: list[T]) -> st.SearchStrategy[list[T]]:
    return st.lists(st.sampled_from(items), max_size=4) if items else st.just([])


def component(of: str, aliases: list[Alias]) -> set[str]:
    members = {of}
    while True:
        reached = members.union(*(alias for alias in aliases if members & set(alias)))
        if reached == members:
            return members
        members = reached


@unhurried
@given(st.data(), links_of, aliases_of)
def test_persons_are_a_function_of_the_set(data: st.DataObject, links: list[Link], aliases: list[Alias]) -> None:
    more_links = data.draw(st.permutations(links + data.draw(repetitions(links))))
    more_aliases = data.draw(st.permutations(aliases + data.draw(repetitions(aliases))))
    assert persons(more_links, more_aliases) == persons(links, aliases)


@unhurried
@given(links_of, aliases_of)
def test_persons_equal_the_definition(links: list[Link], aliases: list[Alias]) -> None:
    def person(member: str) -> str:
        linked = sorted((link.at, link.user_id) for link in links if link.anonymous_id == member)
        user = linked[0][1] if linked else member
        shown = {alias.user_id for alias in aliases} & component(user, aliases)
        return min(shown, default=user)

    named = {name for link in links for name in link[:2]} | {name for alias in aliases for name in alias}
    assert persons(links, aliases) == {name: person(name) for name in named}


@unhurried
@given(aliases_of)
def test_all_members_of_a_component_show_one_of_its_users(aliases: list[Alias]) -> None:
    shown = merge_aliases(aliases)
    for member, representative in shown.items():
        assert representative == shown[representative]
        assert representative in {alias.user_id for alias in aliases}
        assert {shown[mate] for mate in component(member, aliases)} == {representative}


@unhurried
@given(links_of.filter(bool), aliases_of, user_ids, st.integers(0, 9))
def test_a_later_link_changes_the_person_of_nobody(
    links: list[Link], aliases: list[Alias], user_id: str, later: int
) -> None:
    second = Link(links[0].anonymous_id, user_id, max(link.at for link in links) + 1 + later)
    before = persons(links, aliases)
    after = persons([*links, second], aliases)
    assert {member: after[member] for member in before} == before


def test_the_earliest_link_wins_and_the_smaller_user_at_the_same_time() -> None:
    assert persons([Link("a", "late", 2), Link("a", "early", 1)], [])["a"] == "early"
    assert persons([Link("a", "u2", 1), Link("a", "u1", 1)], [])["a"] == "u1"


def test_a_shared_device_does_not_merge_two_users() -> None:
    people = persons([Link("tablet", "ann", 1), Link("tablet", "ben", 2)], [])
    assert people == {"tablet": "ann", "ann": "ann", "ben": "ben"}


def test_an_alias_shows_the_new_id_for_visitors_of_the_old_one() -> None:
    assert persons([Link("a", "aaa-old", 1)], [Alias("aaa-old", "new")]) == {"a": "new", "aaa-old": "new", "new": "new"}


def test_chains_and_cycles_of_aliases_resolve() -> None:
    chain = [Alias(f"u{number:05}", f"u{number + 1:05}") for number in range(20_000)]
    assert set(merge_aliases(chain).values()) == {"u00001"}
    assert set(merge_aliases(reversed(chain)).values()) == {"u00001"}
    assert merge_aliases([Alias("x", "y"), Alias("y", "x")]) == {"x": "x", "y": "x"}


def test_a_linked_user_is_not_looked_up_as_an_anonymous_id_again() -> None:
    assert persons([Link("a", "b", 1), Link("b", "c", 1)], []) == {"a": "b", "b": "c", "c": "c"}


@pytest.mark.parametrize(
    ("event_type", "anonymous_id", "user_id", "previous_id", "said"),
    [
        ("identify", "a", "u", "", Link("a", "u", 7)),
        ("identify", "a", "u", "other", Link("a", "u", 7)),
        ("identify", "a", "", "", None),
        ("identify", "", "u", "", None),
        ("identify", "undefined", "u", "", None),
        ("identify", "a", "Guest ", "", None),
        ("alias", "", "new", "old", Alias("old", "new")),
        ("alias", "a", "new", "old", Alias("old", "new")),
        ("alias", "a", "u", "a", Link("a", "u", 7)),
        ("alias", "a", "new", "", None),
        ("alias", "a", "", "old", None),
        ("alias", "", "new", "null", None),
        ("alias", "0", "new", "0", None),
        ("alias", "", "same", "same", None),
        ("track", "a", "u", "old", None),
        ("group", "a", "u", "", None),
    ],
)
def test_an_event_says_a_link_an_alias_or_nothing(
    event_type: str, anonymous_id: str, user_id: str, previous_id: str, said: Link | Alias | None
) -> None:
    assert link_or_alias(event_type, anonymous_id, user_id, previous_id, 7) == said
