"""Where the CPU of the two programs that are ours goes, by stage: a budget that has to account for nearly all of it."""

from bench.context import Bench
from bench.profiling import Profile, profile
from bench.results import Figure, Result, at_least, load_average


def run(bench: Bench) -> list[Result]:
    """Worker and collector, 20 events a request."""
    return [_run(bench, program) for program in ("worker", "collector")]


def _run(bench: Bench, program: str) -> Result:
    found = profile(bench, program, 20, bench.sized(30, 4))
    figures = [Figure(stage, cost, "µs/event") for stage, cost in found.stages()]
    figures.append(Figure("given to a stage", _share(found), "%", at_least(90)))
    result = Result(f"{program} by stage", figures, found.verify, found.faults)
    result.cpu_us, result.load_average = {program: round(found.cpu_us, 2)}, load_average()
    result.loop_ms = found.loop_ms
    result.details = {"functions": found.functions(own=True)[:40]}
    return result


def _share(found: Profile) -> float:
    return 100 * sum(cost for stage, cost in found.stages() if stage != "elsewhere") / max(found.cpu_us, 1e-9)
