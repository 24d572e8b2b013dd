"""A worker that was killed: how long until its state is back and it stores again."""

import json
import os
import signal
import time
from datetime import UTC, datetime

from bench.context import Bench, new_plan, result
from bench.filling import fill_recent
from bench.results import Figure, Result, at_most
from bench.stack import BenchStack, bench_stack

_WAIT = 300.0


def run(bench: Bench) -> list[Result]:
    """With 1,000,000 active visitors and a trickle of events, so that a block is due at once."""
    visitors = int(bench.sized(1_000_000, 2_000))
    with bench_stack() as stack:
        bench.say("recovery: filling")
        filled = fill_recent(stack, visitors)
        killed: list[float] = []

        def kill(at: float) -> None:
            if at >= 2 and not killed:
                killed.append(time.time())
                os.kill(stack.pids["worker"], signal.SIGKILL)

        # Other visitors than those filled in, whose sessions the worker that is killed has not read.
        plan = new_plan(stack, seconds=bench.sized(40, 12), rate=400, seed=2)
        driven = bench.drive("recovery", stack, plan, kill)
        assigned, opened = _reopened(stack, killed[0])
        stored = int(stack.ask(_FIRST_BLOCK.format(since=int(assigned * 1000)))) / 1000
        figures = [
            Figure("assignment to first block", stored - assigned, "s", at_most(8)),
            Figure("assignment to state back", opened - assigned, "s"),
            Figure("kill -9 to first block", stored - killed[0], "s"),
            Figure("worker's memory", driven.memory_mb["worker"], "MB", at_most(600)),
        ]
        return [result(f"recovery of {visitors:,} active visitors", stack, driven, figures, filled)]


_FIRST_BLOCK = """
SELECT toUnixTimestamp64Milli(min(storedAt)) FROM blocks
WHERE logId != 'filled' AND toUnixTimestamp64Milli(storedAt) > {since}
"""


def restart_worker(stack: BenchStack) -> None:
    """Kill the worker and wait until its successor has read the state back."""
    killed = time.time()
    os.kill(stack.pids["worker"], signal.SIGKILL)
    _reopened(stack, killed)


def _reopened(stack: BenchStack, since: float) -> tuple[float, float]:
    """When partitions were assigned after `since`, and when the last of them had its state (s since the epoch)."""
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline:
        lines = (stack.folder / "data/logs/worker.log").read_text().splitlines()
        events = [(_time(line), line) for line in lines if '"partition' in line]
        assigned = [(at, json.loads(line)["partitions"]) for at, line in events if "partitions_assigned" in line]
        assigned = [(at, count) for at, count in assigned if at > since and count]
        if assigned:
            at, count = assigned[-1]
            opened = [when for when, line in events if "partition_opened" in line and when >= at]
            if len(opened) >= count:
                return at, max(opened)
        time.sleep(0.2)
    raise TimeoutError(f"No worker had its state back {_WAIT:.0f} s after it was killed.")


def _time(line: str) -> float:
    at = datetime.fromisoformat(json.loads(line)["timestamp"].removesuffix("Z"))
    return at.replace(tzinfo=UTC).timestamp()
