"""Persons: what visitors resolve to, as a function of the set of links and aliases, never of their order.

All ids of one call belong to one tenant. Ids compare by code point, which is also the order of their UTF-8 bytes, so
a database that compares bytes finds the same representatives.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.identifiers import is_placeholder

#: The types of event that say something about identity.
IDENTIFYING: Final = ("identify", "alias")


class Link(NamedTuple):
    """An anonymousId was used by a user; `at` is the event's time in ms since the epoch."""

    anonymous_id: str
    user_id: str
    at: int


class Alias(NamedTuple):
    """Two ids of users belong to one person, who shall be shown as `user_id`."""

    previous_id: str
    user_id: str


def link_or_alias(event_type: str, anonymous_id: str, user_id: str, previous_id: str, at: int) -> Link | Alias | None:
    """What an event says about identity; an absent id is "". Placeholders say nothing.

    An alias away from the event's own anonymousId is the same statement as an identify: a link. An alias of an id to
    itself says nothing.
    """
    if event_type not in IDENTIFYING or is_placeholder(user_id):
        return None
    linked = anonymous_id if event_type == "identify" else previous_id
    if is_placeholder(linked):
        return None
    if linked == anonymous_id:
        return Link(anonymous_id, user_id, at)
    return Alias(previous_id, user_id) if previous_id != user_id else None


def persons(links: Iterable[Link], aliases: Iterable[Alias]) -> dict[str, str]:
    """The person of each id named: the representative of the user it is linked to, else of the id itself.

    The link with the smallest (at, user_id) wins, so an anonymousId never belongs to two users. Resolution takes one
    step: a user's id is not looked up as an anonymousId again.
    """
    representative = merge_aliases(aliases)
    people = dict(representative)
    earliest: dict[str, tuple[int, str]] = {}
    for anonymous_id, user_id, at in links:
        people.setdefault(user_id, user_id)
        if anonymous_id not in earliest or (at, user_id) < earliest[anonymous_id]:
            earliest[anonymous_id] = (at, user_id)
    for anonymous_id, (_, user_id) in earliest.items():
        people[anonymous_id] = representative.get(user_id, user_id)
    return people


def merge_aliases(aliases: Iterable[Alias]) -> dict[str, str]:
    """The representative of each id in an alias: of its component, the smallest id that an alias leads to."""
    parent: dict[str, str] = {}
    users: set[str] = set()
    for previous_id, user_id in aliases:
        users.add(user_id)
        parent[_root(parent, previous_id)] = _root(parent, user_id)
    smallest: dict[str, str] = {}
    for user_id in users:
        root = _root(parent, user_id)
        smallest[root] = min(user_id, smallest.get(root, user_id))
    return {member: smallest[_root(parent, member)] for member in list(parent)}


def _root(parent: dict[str, str], member: str) -> str:
    """The root of a union-find tree, halving the path to it on the way."""
    parent.setdefault(member, member)
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member
