"""What more workers, partitions, visitors and stored rows change."""

import time

from bench.context import Bench, new_plan, result
from bench.filling import fill_past, fill_recent, remove_past
from bench.results import Figure, Result, at_most
from bench.scenarios.recovery import restart_worker
from bench.stack import BenchStack, bench_stack

_SHAPES = ((1, 4), (2, 4), (4, 4), (1, 12), (1, 48), (4, 48))
_VISITORS = (10_000, 100_000, 1_000_000)
_ROWS = (1_000_000, 10_000_000, 50_000_000)


def run_workers(bench: Bench) -> list[Result]:
    """(workers, partitions): on two cores more workers add no capacity, but must not cost any either."""
    shapes = ((1, 4), (2, 12)) if bench.quick else _SHAPES
    return [_run_shape(bench, workers, partitions) for workers, partitions in shapes]


def _run_shape(bench: Bench, workers: int, partitions: int) -> Result:
    scenario = f"{workers} workers, {partitions} partitions"
    with bench_stack(workers, {"HEADRACE_PARTITIONS": str(partitions)}) as stack:
        driven = bench.drive(scenario, stack, new_plan(stack, seconds=bench.sized(40, 4)))
        figures = [
            Figure("queryable, sustained", driven.sustained_rate(bench.warm_up), "events/s"),
            Figure("CPU, all processes", driven.total_us, "µs/event"),
            Figure("memory of the workers together", driven.memory_mb["worker"], "MB"),
        ]
        return result(scenario, stack, driven, figures)


def run_visitors(bench: Bench) -> list[Result]:
    """Visitors in the workers' state: read back, then met by the load."""
    return [_run_visitors(bench, visitors) for visitors in ((2_000,) if bench.quick else _VISITORS)]


def _run_visitors(bench: Bench, visitors: int) -> Result:
    scenario = f"{visitors:,} visitors in state"
    with bench_stack() as stack:
        bench.say(f"{scenario}: filling")
        filled = fill_recent(stack, visitors)
        restart_worker(stack)
        plan = new_plan(stack, seconds=bench.sized(40, 4), visitors=visitors)
        driven = bench.drive(scenario, stack, plan)
        largest = visitors == _VISITORS[-1]
        figures = [
            Figure("queryable, sustained", driven.sustained_rate(bench.warm_up), "events/s"),
            Figure("CPU of the worker", driven.cpu_us["worker"], "µs/event"),
            Figure("CPU of ClickHouse", driven.cpu_us["clickhouse"], "µs/event"),
            Figure("worker's memory", driven.memory_mb["worker"], "MB", at_most(600) if largest else None),
        ]
        return result(scenario, stack, driven, figures, filled)


def run_rows(bench: Bench) -> list[Result]:
    """Rows stored: the same load on one stack, its tables filled further between the runs."""
    with bench_stack() as stack:
        bench.capacity(stack)
        found, there = [], 0
        for rows in (10_000, 20_000) if bench.quick else _ROWS:
            bench.say(f"{rows:,} rows: filling")
            fill_past(stack, there, rows - there)
            there = rows
            _await_merges(stack)
            found.append(_run_rows(bench, stack, rows))
        bench.say("rows: verifying")
        remove_past(stack)
        verify = stack.verify_exit()
    for each in found:
        each.verify = verify
    return found


def _run_rows(bench: Bench, stack: BenchStack, rows: int) -> Result:
    scenario = f"{rows:,} rows stored"
    driven = bench.drive(scenario, stack, new_plan(stack, seconds=bench.sized(180, 4), seed=rows))
    parts = int(stack.ask("SELECT count() FROM system.parts WHERE active AND database = 'headrace'"))
    figures = [
        Figure("queryable, sustained", driven.sustained_rate(bench.warm_up), "events/s"),
        Figure("CPU of ClickHouse, merges included", driven.cpu_us["clickhouse"], "µs/event"),
        Figure("ClickHouse's memory", driven.memory_mb["clickhouse"], "MB"),
        Figure("active parts", parts, ""),
    ]
    found = Result(scenario, figures, 0, driven.faults())
    found.cpu_us = {name: round(value, 2) for name, value in driven.cpu_us.items()}
    found.memory_mb = {name: round(value) for name, value in driven.memory_mb.items()}
    found.loop_ms = round(driven.loop_ms, 2)
    return found


def _await_merges(stack: BenchStack, seconds: float = 180) -> None:
    """Until nothing has merged for a while, so that the filling is not measured."""
    quiet, deadline = 0, time.monotonic() + seconds
    while quiet < 4 and time.monotonic() < deadline:
        quiet = 0 if int(stack.ask("SELECT count() FROM system.merges")) else quiet + 1
        time.sleep(0.5)
