"""From the request to the rollup: what the whole stack sustains, and what an event costs each process."""

from bench.context import Bench, new_plan, result
from bench.disk import bytes_on_disk
from bench.results import Figure, Result, at_least, at_most
from bench.stack import bench_stack

_BAD_SHARE = 1.25


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
    events = int(bench.sized(2_000_000, 40_000)) if options.get("packed") else 0
    with bench_stack() as stack:
        driven = bench.drive(scenario, stack, new_plan(stack, seconds=seconds, events=events, **options))
        figures = [
            Figure("queryable, sustained", driven.sustained_rate(bench.warm_up), "events/s", at_least(rate)),
            Figure("CPU, all processes", driven.total_us, "µs/event", at_most(cost) if cost else None),
            Figure("collector's memory", driven.memory_mb["collector"], "MB", at_most(200)),
        ]
        found = result(scenario, stack, driven, figures)
        sizes = bytes_on_disk(stack)
        found.figures.append(Figure("ClickHouse's disk", sum(sizes.values()) / driven.count.stored, "MB/million"))
        found.details["bytesOnDisk"] = sizes
        return found


def run_bad(bench: Bench) -> list[Result]:
    """5% invalid, 5% duplicate and 5% late events, against the same without, on one stack."""
    scenario = "bad input at full speed"
    seconds = bench.sized(90, 5)
    with bench_stack() as stack:
        bench.capacity(stack)
        clean = bench.drive(f"{scenario}: without", stack, new_plan(stack, seconds=seconds, visitors=5_000, seed=2))
        bad = bench.drive(
            f"{scenario}: with", stack, new_plan(stack, seconds=seconds, visitors=5_000, seed=3, bad=True)
        )
        # Of the events sent: refused ones are work too.
        sent = bad.count.accepted / bad.count.events
        share = bad.total_us * sent / clean.total_us
        figures = [
            Figure("CPU an event, of that without", share, "×", at_most(_BAD_SHARE)),
            Figure("CPU without, all processes", clean.total_us, "µs/event"),
            Figure("CPU with, all processes", bad.total_us * sent, "µs/event"),
        ]
        found = result(scenario, stack, bad, figures)
        found.faults += clean.faults()
        found.details |= {"cpuUsWithout": clean.cpu_us, "rejected": bad.count.rejected}
        return [found]
