"""All checks in order, each repeated where arriving rows or a dictionary about to reload could explain what differs."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from warehouse.rollups import ROLLUPS
from warehouse.verification.findings import Findings
from warehouse.verification.ids import check_ids
from warehouse.verification.ledger import check_ledger
from warehouse.verification.persons import check_persons
from warehouse.verification.rollups import check_rollup, check_session_parts
from warehouse.verification.scope import Scope, Tick
from warehouse.verification.sessions import check_sessions

Check = Callable[[Scope, Tick], Findings]

#: By name, in the order in which they run.
CHECKS: Final[dict[str, Check]] = {
    "ledger": check_ledger,
    "event ids": check_ids,
    "persons": check_persons,
    **{rollup.view: partial(check_rollup, rollup) for rollup in ROLLUPS},
    "session_parts": check_session_parts,
    "sessions": check_sessions,
}
#: Seconds before a check that found a difference runs again. Dictionaries reload within two seconds of a change.
PAUSES: Final = (1.0, 2.0, 3.0)


def run_checks(
    scope: Scope, report: Callable[[str, float], None], pauses: Sequence[float] = PAUSES
) -> Iterator[Findings]:
    """Each check's findings as they come; `report` is told the check's name and how much of it is done.

    What differs while rows arrive, or until a dictionary has reloaded, is no difference: a check that finds one runs
    again after each of the pauses, and its last run holds.
    """
    for name, check in CHECKS.items():
        findings = check(scope, partial(report, name))
        for pause in pauses:
            if findings.agrees:
                break
            time.sleep(pause)
            scope.memo.clear()
            findings = check(scope, partial(report, name))
        report(name, 1.0)
        yield findings
