"""What a scenario is given: how large it may be, and how to show that it goes on."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.progress import Progress, TaskID

from bench.driving import Driven, Sample, drive
from bench.load import Plan
from bench.results import Figure, Result, load_average
from bench.stack import BenchStack

#: Events that may be under way: the load that the path sustains, not the one that its first part takes.
WINDOW = 200_000
WARM_UP = 10.0


@dataclass(slots=True)
class Bench:
    """One run of the bench. `quick` makes every scenario small: its figures then say nothing, its accounting does."""

    quick: bool
    progress: Progress
    task: TaskID

    def sized(self, full: float, quick: float) -> float:
        """The one or the other."""
        return quick if self.quick else full

    @property
    def warm_up(self) -> float:
        """Seconds that do not count."""
        return self.sized(WARM_UP, 1.0)

    def say(self, words: str) -> None:
        """Show what is going on."""
        self.progress.update(self.task, description=words)

    def shown(self, scenario: str, seconds: float) -> Callable[[Sample], None]:
        """Shows samples of a run that is to last so long."""
        self.progress.update(self.task, total=seconds, completed=0)

        def show(sample: Sample) -> None:
            rate = sample.queryable / sample.at if sample.at else 0
            words = f"{scenario}: {sample.accepted:,} accepted, {sample.queryable:,} queryable, {rate:,.0f}/s"
            self.progress.update(self.task, completed=sample.at, description=words)

        return show

    def drive(
        self, scenario: str, stack: BenchStack, plan: Plan, meanwhile: Callable[[float], None] = lambda _: None
    ) -> Driven:
        """Run the plan with its progress shown; `meanwhile` is called about twice a second with the seconds passed."""
        return drive(stack, plan, self.shown(scenario, plan.seconds), meanwhile)

    def capacity(self, stack: BenchStack, per_request: int = 20) -> float:
        """Queryable events/s that the stack sustains now; it warms the stack up."""
        seconds = self.sized(30, 4)
        driven = self.drive("capacity", stack, new_plan(stack, seconds=seconds, per_request=per_request))
        return driven.sustained_rate(self.warm_up) or driven.drained_rate


def new_plan(stack: BenchStack, **options: object) -> Plan:
    """A plan for this stack, bounded by what is under way."""
    plan = Plan(stack.port_base, stack.write_key, window=WINDOW)
    for name, value in options.items():
        setattr(plan, name, value)
    return plan


def result(
    scenario: str, stack: BenchStack, driven: Driven, figures: list[Figure], filled: int | None = None
) -> Result:
    """The result of a run; verifies the stack. `filled`: rows that came past the collector, verified with the rest."""
    average = load_average()
    accepted = None if filled is None else filled + sum(stack.accounted())
    count = driven.count
    details = {
        "events": count.events,
        "requests": count.requests,
        "retries": count.retries,
        "answeredMs": {"p50": round(count.p50_ms, 1), "p99": round(count.p99_ms, 1)},
        "generatorUs": round(count.cpu_seconds / max(count.events, 1) * 1e6, 2),
        "acceptedRate": round(driven.accepted_rate),
        "drainedRate": round(driven.drained_rate),
    }
    return Result(
        scenario,
        figures,
        stack.verify_exit(accepted),
        driven.faults(),
        {name: round(value, 2) for name, value in driven.cpu_us.items()},
        {name: round(value) for name, value in driven.memory_mb.items()},
        average,
        round(driven.loop_ms, 2),
        details,
    )
