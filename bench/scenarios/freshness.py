"""From the request to the rollup, in time: at half of what the stack sustains."""

import time
from typing import Final

from bench.context import Bench, new_plan, result
from bench.results import Figure, Result, at_most
from bench.stack import BenchStack, bench_stack

#: Seconds: merging what the search for the capacity left behind is no part of half load.
_REST: Final = 15

# The ledger's row follows the events' rows and their rollups, so that its time is no earlier than their visibility.
_AGES = """
SELECT quantileExact(0.5)(age), quantileExact(0.99)(age), max(age) FROM (
    SELECT dateDiff('millisecond', e.receivedAt, b.storedAt) AS age
    FROM (SELECT logId, logPartition, logOffset, receivedAt FROM events WHERE storedAt >= '{since}') AS e
    ASOF JOIN (
        SELECT logId, partition AS logPartition, start, storedAt FROM blocks WHERE topic = 'events.collected'
    ) AS b
    ON e.logId = b.logId AND e.logPartition = b.logPartition AND e.logOffset >= b.start
) FORMAT TabSeparated
"""


def ages(stack: BenchStack, since: str) -> tuple[float, float, float]:
    """Seconds from the collector's receipt to visibility, of every event stored since then: p50, p99, longest."""
    p50, p99, longest = map(float, stack.ask(_AGES.format(since=since)).split())
    return p50 / 1000, p99 / 1000, longest / 1000


def run(bench: Bench) -> list[Result]:
    """Every event counts, not a sample; the request's own time is in the details."""
    scenario = "freshness at half load"
    with bench_stack() as stack:
        rate = bench.capacity(stack)
        time.sleep(bench.sized(_REST, 0))
        since = stack.ask("SELECT now64(3, 'UTC')").strip()
        plan = new_plan(stack, seconds=bench.sized(60, 5), rate=rate / 2, seed=2)
        driven = bench.drive(scenario, stack, plan)
        p50, p99, longest = ages(stack, since)
        figures = [
            Figure("p50", p50, "s"),
            Figure("p99", p99, "s", at_most(2)),
            Figure("longest", longest, "s"),
            Figure("at", rate / 2, "events/s"),
        ]
        return [result(scenario, stack, driven, figures)]
