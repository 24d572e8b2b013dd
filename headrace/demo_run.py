"""Sends demo traffic, at a rate or as fast as the collector takes it, and compares every answer with what is due."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from headrace.sending import BatchSender, Outcome, deliver
from headrace.traffic import Fate, TrafficBatch
from headrace.traffic_expected import Expectation


@dataclass(slots=True)
class DemoRun:
    """What has been answered so far; `expected` is of exactly that."""

    expected: Expectation = field(default_factory=Expectation)
    answered: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    unexpected: int = 0
    undelivered: str = ""

    def settle(self, batch: TrafficBatch, outcome: Outcome) -> None:
        """Count the verdicts of a batch; `unexpected` are those that are not the ones its items were made for."""
        for item in batch.items:
            self.expected.add(item)
        self.answered += len(batch.items)
        self.accepted += outcome.accepted
        self.rejected.update(refusal.reason for refusal in outcome.refused)
        due = {
            (at, item.fault.reason.value)
            for at, item in enumerate(batch.items)
            if item.fault is not None and item.fate is Fate.REJECTED
        }
        self.unexpected += len(due ^ {(refusal.position, refusal.reason) for refusal in outcome.refused})

    def as_json(self) -> dict[str, Any]:
        """The accounting, and what the collector answered."""
        answered = {"accepted": self.accepted, "rejected": dict(sorted(self.rejected.items()))}
        return {**self.expected.accounting(), "answered": answered, "unexpected": self.unexpected}


async def run_demo(
    next_batch: Callable[[], Awaitable[TrafficBatch | None]],
    sender: BatchSender,
    concurrency: int,
    show: Callable[[DemoRun], None],
) -> DemoRun:
    """Send all of it, or up to the first request that could not be delivered."""
    run = DemoRun()
    async with aclosing(deliver(next_batch, sender.send, concurrency)) as outcomes:
        async for batch, outcome in outcomes:
            if outcome.undelivered:
                run.undelivered = outcome.undelivered
                break
            run.settle(batch, outcome)
            show(run)
    return run


def paced(
    batches: Iterator[TrafficBatch],
    rate: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Callable[[], Awaitable[TrafficBatch | None]]:
    """Gives the batches one by one, no sooner than `rate` events a second (0: at once), and None after the last."""
    started, handed_out = clock(), 0

    async def next_batch() -> TrafficBatch | None:
        nonlocal handed_out
        batch = next(batches, None)
        if batch is not None and rate:
            await sleep(max(0.0, started + handed_out / rate - clock()))
            handed_out += len(batch.items)
        return batch

    return next_batch
