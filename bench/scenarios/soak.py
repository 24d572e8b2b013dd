"""A day's run compressed: 20 minutes at 60% of what the stack sustains; memory and lag must not grow."""

from statistics import mean

from bench.context import Bench, new_plan, result
from bench.driving import Sample
from bench.results import Figure, Result, at_most
from bench.stack import bench_stack

#: What the workers remember, compressed as the day is, so that it is full after a few minutes.
_COMPRESSED = {"HEADRACE_RECENT_IDS_MINUTES": "3", "HEADRACE_RECENT_SESSIONS_MINUTES": "35"}
_PARTS = ("collector", "worker", "clickhouse", "broker", "up")


def run(bench: Bench) -> list[Result]:
    """The third fifth of the run against the last one."""
    seconds = bench.sized(1_200, 10)
    with bench_stack(environment=_COMPRESSED) as stack:
        rate = bench.capacity(stack)
        plan = new_plan(stack, seconds=seconds, rate=0.6 * rate, window=0, seed=2)
        driven = bench.drive("soak", stack, plan)
        middle = [sample for sample in driven.samples if 0.4 * seconds <= sample.at < 0.6 * seconds]
        end = [sample for sample in driven.samples if 0.8 * seconds <= sample.at <= seconds]
        figures = [
            Figure(f"{part}: growth of its memory", _memory(end, part) / _memory(middle, part) - 1, "", at_most(0.05))
            for part in _PARTS
        ]
        lags = [mean(sample.accepted - sample.queryable for sample in part) / (0.6 * rate) for part in (middle, end)]
        figures += [
            Figure("growth of the lag", lags[1] - lags[0], "s", at_most(0.5)),
            Figure("lag at the end", lags[1], "s"),
            Figure("at", 0.6 * rate, "events/s"),
        ]
        found = result("soak, 20 minutes at 60%", stack, driven, figures)
        found.details["memoryMb"] = [
            sample.memory_mb for sample in driven.samples[:: max(len(driven.samples) // 40, 1)]
        ]
        return [found]


def _memory(samples: list[Sample], part: str) -> float:
    return mean(sample.memory_mb[part] for sample in samples)
