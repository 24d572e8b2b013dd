"""Whether so many of a partition's events become dead letters that a person should look before more of them do."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.stages import Rejection
from schemas.tenants import Tenant


@dataclass(frozen=True, slots=True)
class DeadLimit:
    """Of the last `events` events of a partition at most `share` may be dead; 1: all of them."""

    share: float
    events: int


NEVER: Final = DeadLimit(1.0, 1)


class DeadShare:
    """The dead among a partition's last events, in whole blocks: at least as many as the limit asks, once there are."""

    def __init__(self, limit: DeadLimit) -> None:
        self._limit = limit
        self._blocks: deque[tuple[int, int]] = deque()
        self._events = self._dead = 0

    def is_over(self, events: int, dead: int) -> bool:
        """Whether a further block of so many events, `dead` of them dead, would bring the share above the limit."""
        events, dead = self._events + events, self._dead + dead
        return events >= self._limit.events and dead > self._limit.share * events

    def add(self, events: int, dead: int) -> None:
        """A block was let through."""
        if not events:
            return
        self._blocks.append((events, dead))
        self._events += events
        self._dead += dead
        while self._events - self._blocks[0][0] >= self._limit.events:
            events, dead = self._blocks.popleft()
            self._events -= events
            self._dead -= dead


def judged(rejections: Sequence[Rejection], tenants: Mapping[str, Tenant]) -> list[Rejection]:
    """The rejections that count: those of a tenant who accepts its dead letters do not."""
    accepting = {company for company, tenant in tenants.items() if tenant.accept_dead_letters}
    return [rejection for rejection in rejections if rejection.company_id not in accepting]


def tell_pause(limit: DeadLimit, events: int, rejections: Sequence[Rejection]) -> str:
    """What is wrong with a block that is held back, and what to do about it."""
    (company, reason), count = Counter((each.company_id, each.reason.value) for each in rejections).most_common(1)[0]
    return (
        f"{len(rejections)} of the next {events} events would become dead letters, {count} of them of tenant "
        f"{company or '(unknown)'} for {reason}; over the last {limit.events} events the share would be above "
        f"HEADRACE_DEAD_SHARE_LIMIT ({limit.share:g}), so nothing is stored and nothing is lost. Mend the tenant or "
        "its plan in the tenants file, or let the letters be written: set acceptDeadLetters: true for the tenant "
        "there, or raise the limit and restart the workers."
    )
