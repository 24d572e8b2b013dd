"""The table of all reasons, generated from their list."""

import inspect
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from collector.answers import STATUS
from schemas.reasons import COLLECTOR_EVENT_REASONS, Reason

#: A member's meaning stands as the comment behind it.
_MEMBER: Final = re.compile(r'^    [A-Z_]+ = "(\w+)"  # (.+)$', re.MULTILINE)


class DescribedReason(NamedTuple):
    """A reason: who decides it, what the HTTP answer is, and what it means."""

    reason: Reason
    decided_by: str
    answer: str
    meaning: str


def all_reasons() -> Iterator[DescribedReason]:
    """Every reason there is, in the order of the path."""
    meanings = dict(_MEMBER.findall(inspect.getsource(Reason)))
    for reason in Reason:
        if status := STATUS.get(reason):
            letter = "; a dead letter with the body" if reason in COLLECTOR_EVENT_REASONS else "; nothing is stored"
            yield DescribedReason(reason, "collector", f"{status} for the request{letter}", meanings[reason])
        elif reason in COLLECTOR_EVENT_REASONS:
            yield DescribedReason(reason, "collector", "200, the event `rejected`; a dead letter", meanings[reason])
        else:
            yield DescribedReason(reason, "worker", "200, the event `accepted`; a dead letter", meanings[reason])


def reasons_markdown() -> str:
    """docs/guide/reasons.md."""
    rows = [
        f"| `{described.reason}` | {described.meaning} | {described.decided_by} | {described.answer} |"
        for described in all_reasons()
    ]
    head = [
        "# Reasons",
        "",
        "Why an event or a request was not taken, or not stored: the same value in the HTTP answer, the dead letter "
        "and the metric.",
        "This page is the output of `headrace schemas reasons`.",
        "",
        "| reason | what it means | decided by | answer |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"
