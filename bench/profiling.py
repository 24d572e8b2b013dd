"""`python -m bench profile PROGRAM`: where the CPU of one process of the running pipeline goes, per event.

The stack and the load are those of the end-to-end scenario; the program's own sampler is switched on once it is warm.
"""

import os
import tempfile
import threading
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
    """Stacks with how often each was seen while `events` events passed and the process used `cpu_us` for each."""

    program: str
    stacks: Counter[Stack]
    cpu_us: float
    events: int

    @property
    def us_per_sample(self) -> float:
        """What one sample stands for, an event."""
        return self.cpu_us / max(sum(self.stacks.values()), 1)

    def stages(self) -> list[tuple[str, float]]:
        """µs an event by stage, the most expensive first; "elsewhere" is what no stage claims."""
        seen: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            seen[stage_of(self.program, stack)] += count
        return [(name, count * self.us_per_sample) for name, count in seen.most_common()]

    def functions(self, own: bool) -> list[tuple[str, float]]:
        """µs an event by function: of its own, or with what it calls."""
        seen: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for name in (stack[-1],) if own else set(stack):
                seen[name] += count
        return [(name, count * self.us_per_sample) for name, count in seen.most_common()]

    def folded(self) -> str:
        """For a flame graph program."""
        return folded(self.stacks)


def profile(bench: Bench, program: str, per_request: int, seconds: float) -> Profile:
    """Run the stack under load and sample the program for so many seconds."""
    folder = tempfile.mkdtemp(prefix="headrace-profile-")
    path = os.pathsep.join(filter(None, (str(INJECTED), str(INJECTED.parents[1]), os.environ.get("PYTHONPATH"))))
    with bench_stack(environment={"PYTHONPATH": path, "BENCH_PROFILE": f"{program}={folder}"}) as stack:
        sampling = _Sampling(stack, program, Path(folder), bench.warm_up, seconds)
        sampling.start()
        plan = new_plan(stack, seconds=bench.warm_up + seconds + 2, per_request=per_request)
        bench.drive(f"profile of the {program}", stack, plan)
        sampling.join()
        return sampling.profile()


class _Sampling(threading.Thread):
    """Switches the sampler on and off beside the load, and counts what passed meanwhile."""

    def __init__(self, stack: BenchStack, program: str, folder: Path, after: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self._stack, self._program = stack, program
        self._base = folder / str(stack.pids[program])
        self._after, self._seconds = after, seconds
        self._cpu, self._events = 0.0, 0

    def run(self) -> None:
        """Once."""
        time.sleep(self._after)
        on = self._base.with_suffix(".on")
        on.touch()
        cpu, events = self._stack.cpu_seconds()[self._program], self._passed()
        time.sleep(self._seconds)
        self._cpu = self._stack.cpu_seconds()[self._program] - cpu
        self._events = self._passed() - events
        on.unlink()

    def _passed(self) -> int:
        """Events that the program has dealt with."""
        return self._stack.accepted() if self._program == "collector" else sum(self._stack.accounted())

    def profile(self) -> Profile:
        """What was sampled; raises RuntimeError where the sampler wrote nothing."""
        done = self._base.with_suffix(".done")
        for _ in range(100):
            if done.exists():
                return Profile(self._program, read_stacks(done), self._cpu / max(self._events, 1) * 1e6, self._events)
            time.sleep(0.1)
        raise RuntimeError(f"The sampler in the {self._program} wrote nothing; did the process start again meanwhile?")
