"""One chaos run: by seed, faults while producers send; then everything is checked, and a table is printed."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.chaos.checks import Outcome, check, missing
from tests.chaos.ground import Ground, prepared
from tests.chaos.kinds import ALONE, KINDS
from tests.chaos.producers import Record
from tests.chaos.schedule import Step, plan
from tests.stack import RunningStack, eventually

RATE = 300.0
#: After the end of a fault; a program that dies again and again is started again after 10 s only.
RECOVERY_SECONDS = 90.0
SETTLE_SECONDS = 180.0


@dataclass(slots=True)
class Report:
    """What a run did and found."""

    seed: int
    injected: Counter[str] = field(default_factory=Counter)
    longest_recovery: float = 0.0
    slowest: str = ""
    record: Record = field(default_factory=Record)
    outcome: Outcome = field(default_factory=lambda: Outcome(Counter(), Counter(), []))
    ledger: tuple[int, int, int] = (0, 0, 0)

    def table(self) -> str:
        """For people, and for whoever closes an issue with it."""
        stored, duplicate, dead = self.ledger
        figures = {
            "events sent": self.record.sent,
            "accepted": len(self.record.accepted),
            "stored": stored,
            "duplicate": duplicate,
            "dead": dead,
            "lost": len(self.outcome.lost(self.record)),
            "doubled": len(self.outcome.doubled(self.record)),
            "longest recovery (s)": f"{self.longest_recovery:.1f} after {self.slowest}",
        }
        rows = [(f"  {kind}", self.injected[kind]) for kind in KINDS if self.injected[kind]]
        lines = [("faults injected", self.injected.total()), *rows, *figures.items()]
        return "\n".join(f"{name:<34}{figure:>8}" for name, figure in lines)


def run(
    stack: RunningStack,
    seed: int,
    seconds: float,
    kinds: Sequence[str] = tuple(KINDS),
    say: Callable[[str], object] = print,
    recovering: float = 0.6,
) -> Report:
    """Inject for `seconds`, settle, check. What is wrong is in the report's outcome; a stack that stops raises."""
    report = Report(seed)
    with prepared(stack, seed, RATE, int(RATE * (seconds + 120) * 1.2)) as ground:
        report.record = ground.producers.record
        ground.producers.start()
        end = time.monotonic() + seconds
        for step in plan(seed, kinds, ALONE, recovering):
            _take(step, ground, report, say)
            if time.monotonic() >= end:
                break
        ground.producers.stop(RECOVERY_SECONDS)
        _settle(ground, report)
    return report


def _take(step: Step, ground: Ground, report: Report, say: Callable[[str], object]) -> None:
    names, rng = " + ".join(step.kinds), random.Random(step.seed)
    say(f"{time.strftime('%H:%M:%S')} {names}, {step.hold:.1f} s")
    with ExitStack() as faults:
        for kind in step.kinds:
            faults.enter_context(KINDS[kind](ground, rng))
        time.sleep(step.hold)
    report.injected.update(step.kinds)
    if step.recover:
        took = ground.recovery(time.monotonic(), RECOVERY_SECONDS)
        if took > report.longest_recovery:
            report.longest_recovery, report.slowest = took, names
    time.sleep(step.pause)


def _settle(ground: Ground, report: Report) -> None:
    for point in ground.faults.iterdir():
        point.unlink()  # a fault that nobody came to meet
    began = time.monotonic()
    while missing(ground, report.record) and time.monotonic() - began < SETTLE_SECONDS:
        time.sleep(0.5)
    eventually(lambda: ground.stack.status()["ready"], bool)
    code, document = ground.stack.verify()
    report.outcome = check(ground, report.record)
    if code:
        report.outcome.faults.append(f"headrace verify ended with {code}: {document}")
    sql = "SELECT sum(stored), sum(duplicate), sum(dead) FROM headrace.blocks WHERE topic = 'events.collected'"
    stored, duplicate, dead = map(int, ground.rows(sql)[0])
    report.ledger = stored, duplicate, dead
