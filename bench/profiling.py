"""`python -m bench profile PROGRAM`: where the CPU of one process of the running pipeline goes, per event.

The stack and the load are those of the end-to-end scenario; the program's own sampler is switched on once it is warm.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.context import Bench, new_plan
from bench.stack import BenchStack, bench_stack
from bench.stages import STAGES, stage_of
from bench.traces import Stack, folded, read_stacks

INJECTED: Final = Path(__file__).parent / "injected"
PROGRAMS: Final = tuple(STAGES)


@dataclass(slots=True)
class Profile:
    """Stacks with the CPU (ns) that each was seen using, while `events` passed and the process used `cpu_us` an event.

    `faults` is what the run did not account for, `verify` the exit code of `headrace verify`, `loop_ms` the machine's
    speed.
    """

    program: str
    stacks: Counter[Stack]
    cpu_us: float
    events: int
    faults: list[str]
    verify: int
    loop_ms: float

    @property
    def scale(self) -> float:
        """From what was seen of a stack to its µs an event: the process used somewhat more than was seen."""
        return self.cpu_us / max(sum(self.stacks.values()), 1)

    def stages(self) -> list[tuple[str, float]]:
        """µs an event by stage, the most expensive first; "elsewhere" is what no stage claims."""
        seen: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            seen[stage_of(self.program, stack)] += count
        return [(name, count * self.scale) for name, count in seen.most_common()]

    def functions(self, own: bool) -> list[tuple[str, float]]:
        """µs an event by function: of its own, or with what it calls."""
        seen: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for name in (stack[-1],) if own else set(stack):
                seen[name] += count
        return [(name, count * self.scale) for name, count in seen.most_common()]

    def folded(self) -> str:
        """For a flame graph program."""
        return folded(self.stacks)


def profile(bench: Bench, program: str, per_request: int, seconds: float) -> Profile:
    """Run the stack under load and sample the program for so many seconds."""
    folder = tempfile.mkdtemp(prefix="headrace-profile-")
    path = os.pathsep.join(filter(None, (str(INJECTED), str(INJECTED.parents[1]), os.environ.get("PYTHONPATH"))))
    with bench_stack(environment={"PYTHONPATH": path, "BENCH_PROFILE": f"{program}={folder}"}) as stack:
        sampling = _Sampling(stack, program, Path(folder), bench.warm_up, seconds)
        plan = new_plan(stack, seconds=bench.warm_up + seconds + 2, per_request=per_request)
        driven = bench.drive(f"profile of the {program}", stack, plan, sampling.look)
        cpu_us = sampling.cpu_seconds / max(sampling.events, 1) * 1e6
        stacks, faults, loop = sampling.stacks(), driven.faults(), round(driven.loop_ms, 2)
        found = Profile(program, stacks, cpu_us, sampling.events, faults, stack.verify_exit(), loop)
    shutil.rmtree(folder)
    return found


class _Sampling:
    """Switches the sampler on and off while the load runs, and counts what passed meanwhile."""

    def __init__(self, stack: BenchStack, program: str, folder: Path, start: float, seconds: float) -> None:
        self._stack, self._program = stack, program
        base = folder / str(stack.pids[program])
        self._on, self._out = base.with_suffix(".on"), base.with_suffix(".stacks")
        self._start, self._end = start, start + seconds
        self.cpu_seconds, self.events = 0.0, 0

    def look(self, at: float) -> None:
        """`at` seconds have passed since the load began."""
        if not self._on.exists() and not self.events and at >= self._start:
            self._on.touch()
            self.cpu_seconds, self.events = -self._used(), -self._passed()
        elif self._on.exists() and at >= self._end:
            self._on.unlink()
            self.cpu_seconds += self._used()
            self.events += self._passed()

    def stacks(self) -> Counter[Stack]:
        """What was sampled; raises RuntimeError where the sampler wrote nothing."""
        for _ in range(100):
            if self._out.exists():
                return read_stacks(self._out)
            time.sleep(0.1)
        raise RuntimeError(f"The sampler in the {self._program} wrote nothing; did the process start again meanwhile?")

    def _used(self) -> float:
        return self._stack.cpu_seconds()[self._program]

    def _passed(self) -> int:
        """Events that the program has dealt with."""
        return self._stack.accepted() if self._program == "collector" else sum(self._stack.accounted())
