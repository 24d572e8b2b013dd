"""From the request to the rollup: what the whole stack sustains, and what an event costs each process."""

from collections.abc import Sequence

from bench.context import Bench, new_plan, result
from bench.disk import bytes_on_disk
from bench.driving import Driven
from bench.results import Figure, Result, at_least, at_most
from bench.stack import bench_stack

_BAD_SHARE = 1.25
#: Of each kind. The machine's speed changes within a minute, which many short turns share fairly.
_BAD_TURNS = 5


def run_plain(bench: Bench) -> list[Result]:
    """20 events a request, plain JSON."""
    return [_run(bench, "end to end, 20 a request", 50_000, 35)]


def run_gzip(bench: Bench) -> list[Result]:
    """20 events a request, gzip."""
    return [_run(bench, "end to end, 20 a request, gzip", 50_000, 35, packed=True)]


def run_one(bench: Bench) -> list[Result]:
    """One event a request."""
    return [_run(bench, "end to end, 1 a request", 8_000, None, per_request=1, connections=64)]


def _run(bench: Bench, scenario: str, rate: float, cost: float | None, **options: object) -> Result:
    seconds = bench.sized(60, 5)
    with bench_stack() as stack:
        if options.get("packed"):
            options |= {"events": int(bench.sized(2_000_000, 40_000)), "due_rate": bench.capacity(stack), "seed": 2}
        driven = bench.drive(scenario, stack, new_plan(stack, seconds=seconds, **options))
        figures = [
            Figure("queryable, sustained", driven.sustained_rate(bench.warm_up), "events/s", at_least(rate)),
            Figure("CPU, all processes", driven.total_us, "µs/event", at_most(cost) if cost else None),
            Figure("collector's memory", driven.memory_mb["collector"], "MB", at_most(200)),
        ]
        found = result(scenario, stack, driven, figures)
        sizes = bytes_on_disk(stack)
        found.figures.append(Figure("ClickHouse's disk", sum(sizes.values()) / stack.accounted()[0], "MB/million"))
        found.details["bytesOnDisk"] = sizes
        return found


def run_bad(bench: Bench) -> list[Result]:
    """5% invalid, 5% duplicate and 5% late events, and the same without, by turns on one stack."""
    scenario = "bad input at full speed"
    seconds, turns = bench.sized(30, 4), int(bench.sized(_BAD_TURNS, 1))
    runs: dict[bool, list[Driven]] = {False: [], True: []}
    with bench_stack() as stack:
        bench.capacity(stack)
        for turn in range(2 * turns):
            bad = turn % 4 in (1, 2)  # merges grow from turn to turn: neither kind may always be the later
            plan = new_plan(stack, seconds=seconds, visitors=5_000, seed=turn + 2, bad=bad)
            words = f"{scenario}: {'with' if bad else 'without'}, turn {turn + 1} of {2 * turns}"
            runs[bad].append(bench.drive(words, stack, plan))
        found = result(scenario, stack, runs[True][-1], [])
    without, spoiled = _us_an_event(runs[False]), _us_an_event(runs[True])
    found.figures = [
        Figure(
            "CPU an event, of that without", sum(spoiled.values()) / sum(without.values()), "×", at_most(_BAD_SHARE)
        ),
        Figure("CPU without, all processes", sum(without.values()), "µs/event"),
        Figure("CPU with, all processes", sum(spoiled.values()), "µs/event"),
    ]
    found.faults = [fault for driven in runs[False] + runs[True] for fault in driven.faults()]
    found.cpu_us = {name: round(value, 2) for name, value in spoiled.items()}
    found.details |= {"cpuUsWithout": without}
    return [found]


def _us_an_event(runs: Sequence[Driven]) -> dict[str, float]:
    """CPU of each process over the events that were sent: refused ones are work too."""
    events = sum(driven.count.events for driven in runs)
    names = runs[0].cpu_us
    return {name: sum(each.cpu_us[name] * each.count.accepted for each in runs) / events for name in names}
