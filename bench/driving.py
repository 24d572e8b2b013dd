"""Drives a stack with the load generator and measures what comes out at its end."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import IO, Final

import msgspec

from bench.load import Count, Plan
from bench.results import loop_ms
from bench.stack import BenchStack

_LOOK_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 900.0


class Sample(msgspec.Struct):
    """What was seen at one moment, `at` in seconds since the load began; `loop_ms` is the machine's speed."""

    at: float
    accepted: int
    queryable: int
    memory_mb: dict[str, float]
    loop_ms: float


@dataclass(slots=True)
class Driven:
    """One run: what was sent and answered, and how it came out.

    `seconds` is until the last event was queryable; CPU is that of the whole run, over the accepted events.
    """

    count: Count
    seconds: float
    cpu_us: dict[str, float]
    memory_mb: dict[str, float]
    accounted: tuple[int, int, int]
    samples: list[Sample] = field(default_factory=list)

    @property
    def accepted_rate(self) -> float:
        """Accepted events/s while the load ran."""
        return self.count.accepted / self.count.seconds

    @property
    def drained_rate(self) -> float:
        """Queryable events/s from the first request until the last event could be queried."""
        return self.count.stored / self.seconds

    @property
    def total_us(self) -> float:
        """CPU of all processes but the generator, an event."""
        return sum(self.cpu_us.values())

    @property
    def loop_ms(self) -> float:
        """The median of what was seen while the load ran; 0 where nothing was."""
        return median([sample.loop_ms for sample in self.samples] or [0.0])

    def sustained_rate(self, warm_up: float) -> float:
        """Queryable events/s after the warm-up (s) and while the load ran."""
        seen = [sample for sample in self.samples if warm_up <= sample.at <= self.count.seconds]
        if len(seen) < 2:
            return self.drained_rate
        return (seen[-1].queryable - seen[0].queryable) / (seen[-1].at - seen[0].at)

    def faults(self) -> list[str]:
        """What is not accounted for as it should be; empty when every event is."""
        count = self.count
        due = (count.stored, count.duplicate, count.dead)
        found = [] if self.accounted == due else [f"stored, duplicate, dead are {self.accounted}, due {due}"]
        if count.unexpected or count.accepted != sum(due):
            found.append(f"{count.accepted} accepted, due {sum(due)}; {count.unexpected} verdicts unexpected")
        return found


def drive(
    stack: BenchStack,
    plan: Plan,
    show: Callable[[Sample], None] = lambda _: None,
    meanwhile: Callable[[float], None] = lambda _: None,
) -> Driven:
    """Run the plan, wait until all of it is queryable.

    `meanwhile` is called about twice a second with the seconds passed, and once when the load has ended. Raises
    TimeoutError when the rest takes a quarter of an hour.
    """
    before, already = stack.accounted(), stack.queryable()
    generator = _Generator(plan)
    cpu, began = stack.cpu_seconds(), time.perf_counter()
    samples: list[Sample] = []
    while not generator.done:
        generator.see(sum(stack.accounted()) - sum(before))
        at = time.perf_counter() - began
        stack.cpu_seconds()  # of a process that is killed meanwhile
        samples.append(Sample(at, generator.count.accepted, stack.queryable() - already, stack.memory_mb(), loop_ms()))
        show(samples[-1])
        meanwhile(at)
        time.sleep(_LOOK_SECONDS)
    count = generator.finish()
    meanwhile(count.seconds)
    memory = stack.memory_mb()
    while (queryable := stack.queryable() - already) < count.stored:
        if time.perf_counter() - began > count.seconds + _DRAIN_SECONDS:
            raise TimeoutError(f"{queryable} of {count.stored} events are queryable after {_DRAIN_SECONDS:.0f} s.")
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    used = {name: value - cpu.get(name, 0.0) for name, value in stack.cpu_seconds().items()}
    return Driven(
        count,
        seconds,
        {name: value / max(count.accepted, 1) * 1e6 for name, value in used.items()},
        memory,
        _since(stack, before, count),
        samples,
    )


def _since(stack: BenchStack, before: tuple[int, int, int], count: Count) -> tuple[int, int, int]:
    """The ledger's figures once they are complete: its row is written after the events'."""
    for _ in range(100):
        after = stack.accounted()
        if sum(after) - sum(before) >= count.accepted:
            break
        time.sleep(0.1)
    return (after[0] - before[0], after[1] - before[1], after[2] - before[2])


class _Generator:
    """The load generator's process, and the last that it said."""

    def __init__(self, plan: Plan) -> None:
        self.count = Count()
        command = [sys.executable, "-m", "bench.load", msgspec.json.encode(plan).decode()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, output = self._process.stdin, self._process.stdout
        output.readline()  # it is ready: bodies that have to be compressed before are
        self._reading = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reading.start()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def see(self, accounted: int) -> None:
        """Tell it how many events are accounted for."""
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._input.write(b"%d\n" % accounted)
            self._input.flush()

    def finish(self) -> Count:
        """The final count; raises RuntimeError where the generator failed."""
        self._reading.join(10)
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        if self._process.wait() or not self.count.done:
            raise RuntimeError(
                f"The load generator ended with status {self._process.returncode}; see its output above."
            )
        return self.count

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            self.count = msgspec.json.decode(line, type=Count)
