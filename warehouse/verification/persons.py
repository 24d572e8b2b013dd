"""Persons: what the dictionaries say of every visitor, against the links and aliases that `events` holds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from warehouse.client import ClickHouse
from warehouse.verification.findings import Findings, name_key
from warehouse.verification.scope import Scope, Tick

# One row for each different statement; the earliest time is the one that can matter.
_SAID: Final = """
SELECT companyId, type, anonymousId, userId, previousId, groupUniqArray(identity),
    toUnixTimestamp64Milli(min(timestamp))
FROM events WHERE type IN ('identify', 'alias') OR identity != ''
GROUP BY companyId, type, anonymousId, userId, previousId
"""
_OLD_LINKS: Final = """
SELECT companyId, anonymousId, tupleElement(earliest, 2), toUnixTimestamp64Milli(tupleElement(earliest, 1))
FROM (SELECT companyId, anonymousId, min(link) AS earliest FROM identity_links GROUP BY companyId, anonymousId)
WHERE NOT {keeps}
"""
_OLD_ALIASES: Final = """
SELECT DISTINCT companyId, previousId, userId FROM identity_aliases
WHERE companyId IN (SELECT companyId FROM session_parts WHERE NOT {keeps})
"""
_VISITORS: Final = """
SELECT companyId, visitorId, hash,
    dictGetOrDefault('visitor_users', 'userId', hash, visitorId) AS user,
    dictGetOrDefault('user_persons', 'personId', sipHash64(companyId, user), user) AS person,
    dictGetOrDefault('visitor_users', 'user', hash, hash) AS userHash,
    dictGetOrDefault('user_persons', 'person', userHash, userHash) = sipHash64(companyId, person)
FROM (
    SELECT companyId, visitorId, any(visitor) AS hash FROM events WHERE visitor % {buckets} = {bucket}
    GROUP BY companyId, visitorId
)
"""

#: The person of every id that a link or an alias names, by tenant.
People = Mapping[str, Mapping[str, str]]


def check_persons(scope: Scope, tick: Tick) -> Findings:
    """Every visitor resolves to the person that the events make it, and every event says of identity what it should.

    A link whose event retention removed, and the aliases of a tenant that it reached, are taken from what is kept.
    """
    findings = Findings("persons")
    people = recompute_people(scope, findings)
    tick(0.2)
    buckets = scope.visitor_buckets()
    for bucket in range(buckets):
        for company, visitor, _, _, found, _, same in _visitors(scope.client, buckets, bucket):
            expected = people.get(company, {}).get(visitor, visitor)
            key = name_key(("companyId", "visitorId"), (company, visitor))
            findings.compare(key, "person", expected, found)
            if not same:
                findings.differ(key, "hash of the person", f"that of {found}", "another")
        tick(0.2 + 0.8 * (bucket + 1) / buckets)
    return findings


def recompute_people(scope: Scope, findings: Findings | None = None) -> People:
    """Persons from `events` alone; what an event says of identity wrongly goes to `findings`."""
    links: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    aliases: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for company, kind, anonymous, user, previous, said, at in scope.client.rows(_SAID):
        identity = scope.rules.identity(kind, anonymous, user, previous)
        if findings is not None:
            names = ("companyId", "type", "anonymousId", "userId", "previousId")
            key = name_key(names, (company, kind, anonymous, user, previous))
            findings.compare(key, "identity", [identity], list(said))
        if identity == "link":
            links[company].append((anonymous, user, at))
        elif identity == "alias":
            aliases[company].append((previous, user))
    _put_old(scope, links, aliases)
    return {
        company: scope.rules.persons(links.get(company, ()), aliases.get(company, ()))
        for company in links.keys() | aliases.keys()
    }


def number_people(scope: Scope) -> Mapping[int, int]:
    """Visitor's hash -> a number of its person, for the visitors that a link or an alias names.

    Every other visitor is a person by itself; these numbers are negative, so that they meet no visitor's hash.
    """
    known: Mapping[int, int] | None = scope.memo.get("person numbers")
    if known is None:
        known = scope.memo["person numbers"] = _number(scope, recompute_people(scope))
    return known


def _number(scope: Scope, people: People) -> dict[int, int]:
    numbers: dict[tuple[str, str], int] = {}
    person_of: dict[int, int] = {}
    buckets = scope.visitor_buckets() if people else 0
    for bucket in range(buckets):
        for company, visitor, hashed, *_ in _visitors(scope.client, buckets, bucket):
            person = people.get(company, {}).get(visitor)
            if person is not None:
                person_of[hashed] = numbers.setdefault((company, person), -1 - len(numbers))
    return person_of


def _visitors(client: ClickHouse, buckets: int, bucket: int) -> Iterable[tuple[Any, ...]]:
    return client.rows(_VISITORS.format(buckets=buckets, bucket=bucket))


def _put_old(
    scope: Scope, links: dict[str, list[tuple[str, str, int]]], aliases: dict[str, list[tuple[str, str]]]
) -> None:
    keeps_link = scope.retention.keeps("toDate(tupleElement(earliest, 1))")
    for company, anonymous, user, at in scope.client.rows(_OLD_LINKS.format(keeps=keeps_link)):
        links[company].append((anonymous, user, at))
    keeps_month = scope.retention.keeps("makeDate32(intDiv(month, 100), month % 100, 1)")
    for company, previous, user in scope.client.rows(_OLD_ALIASES.format(keeps=keeps_month)):
        aliases[company].append((previous, user))
