"""One part at a time: the collector while the workers stand still, then the workers while nobody sends."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.context import Bench, new_plan, result
from bench.results import Figure, Result, at_least
from bench.stack import BenchStack, bench_stack

#: What the collector takes while nothing is stored has to fit.
_ROOM = {"HEADRACE_JOURNAL_MAX_BYTES": str(16 << 30)}


def run(bench: Bench) -> list[Result]:
    """The collector's events are acknowledged when they are fsynced, as in every embedded run."""
    with bench_stack(environment=_ROOM) as stack:
        bench.capacity(stack)
        plan = new_plan(stack, seconds=bench.sized(20, 3), window=0, seed=2)
        began: list[tuple[float, dict[str, float], int]] = []
        cpu = stack.cpu_seconds()

        def go_on(at: float) -> None:
            """The workers start as the load ends."""
            if at >= plan.seconds and not began:
                began.append((time.time(), stack.cpu_seconds(), sum(stack.accounted())))
                _signal_workers(stack, signal.SIGCONT)

        with _workers_stopped(stack):
            driven = bench.drive("collector alone", stack, plan, go_on)
        (resumed, then, stored), now = began[0], stack.cpu_seconds()
        events = sum(stack.accounted()) - stored
        collector = (then["collector"] - cpu["collector"]) / driven.count.accepted * 1e6
        used = {name: (now[name] - then[name]) / events * 1e6 for name in now}
        rate = _drain_rate(stack, resumed)
        figures = [
            Figure("collector alone, acknowledged", driven.accepted_rate, "events/s", at_least(90_000)),
            Figure("collector alone, CPU", collector, "µs/event"),
            Figure("worker alone, draining", rate, "events/s", at_least(60_000)),
            Figure("worker alone, CPU", used["worker"], "µs/event"),
        ]
        found = result("collector alone, then worker alone", stack, driven, figures)
        found.cpu_us = {name: round(value, 2) for name, value in used.items()}
        return [found]


@contextmanager
def _workers_stopped(stack: BenchStack) -> Iterator[None]:
    """Stopped, not ended: an ended worker would be started again."""
    _signal_workers(stack, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal_workers(stack, signal.SIGCONT)


def _signal_workers(stack: BenchStack, number: signal.Signals) -> None:
    for name, pid in stack.pids.items():
        if name.startswith("worker"):
            os.kill(pid, number)


_DRAINED = """
SELECT sum(events) / (dateDiff('millisecond', {began}, max(storedAt)) / 1000) FROM blocks
WHERE topic = 'events.collected' AND storedAt > {began}
"""
_BEGAN = """
(SELECT min(claimedAt) FROM block_claims
 WHERE topic = 'events.collected' AND toUnixTimestamp64Milli(claimedAt) > {resumed})
"""


def _drain_rate(stack: BenchStack, resumed: float) -> float:
    """Events/s from the first claim after the workers went on (s since the epoch) to the last block."""
    return float(stack.ask(_DRAINED.format(began=_BEGAN.format(resumed=int(resumed * 1000)))))
