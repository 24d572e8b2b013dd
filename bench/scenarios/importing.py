"""`headrace send` of an NDJSON file: in the order of time, each line with its context, 25 visitors at once."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import orjson

from bench.bodies import Bodies
from bench.context import Bench
from bench.driving import Driven
from bench.load import Count
from bench.results import Figure, Result, at_least, load_average, loop_ms
from bench.stack import BenchStack, bench_stack
from tests.stack import HEADRACE

_AT_ONCE: Final = 25
_LOOK_SECONDS: Final = 0.5


def run(bench: Bench) -> list[Result]:
    """Until every event of the file is queryable."""
    events = int(bench.sized(1_000_000, 20_000))
    with bench_stack() as stack:
        file = stack.folder / "events.ndjson"
        bench.say("import: writing the file")
        write_file(file, events)
        bench.say("import: sending")
        return [_measured(stack, file, events)]


def write_file(file: Path, events: int) -> None:
    """`events` lines, in rounds of 25 visitors' 20 events each."""
    bodies, at = Bodies(), time.time_ns() // 1_000_000 - 3_600_000
    with file.open("wb") as lines:
        for start in range(0, events, 20 * _AT_ONCE):
            made = [orjson.loads(bodies.make(at + start // 100).body) for _ in range(_AT_ONCE)]
            rows = [orjson.dumps({**body["batch"][n], "context": body["context"]}) for n in range(20) for body in made]
            lines.write(b"\n".join(rows[: events - start]) + b"\n")


def _measured(stack: BenchStack, file: Path, events: int) -> Result:
    cpu, own = stack.cpu_seconds(), _children_seconds()
    began = time.perf_counter()
    command = [*HEADRACE, "send", str(file), "--json", "--port-base", str(stack.port_base)]
    out, err, loop = _run_beside_loop(command, stack.folder)
    print(err, end="", file=sys.stderr)
    told = json.loads(out)
    sending = time.perf_counter() - began
    while stack.queryable() < told["accepted"]:
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    used = {name: (value - cpu[name]) / events * 1e6 for name, value in stack.cpu_seconds().items()}
    sender = (_children_seconds() - own) / events * 1e6
    figures = [
        Figure("accepted", events / sending, "events/s", at_least(60_000)),
        Figure("queryable, until the last", events / seconds, "events/s"),
        Figure("CPU of the stack", sum(used.values()), "µs/event"),
        Figure("CPU of headrace send", sender, "µs/event"),
    ]
    average, verify = load_average(), stack.verify_exit()
    driven = Driven(
        Count(events=events, accepted=told["accepted"], stored=events), seconds, used, {}, stack.accounted()
    )
    memory = {name: float(round(value)) for name, value in stack.memory_mb().items()}
    return Result("import by headrace send", figures, verify, driven.faults(), used, memory, average, loop)


def _run_beside_loop(command: Sequence[str], folder: Path) -> tuple[str, str, float]:
    """What a command writes to stdout and to stderr, and the median of loops timed meanwhile (ms)."""
    loops = [loop_ms()]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while True:
        try:
            out, err = process.communicate(timeout=_LOOK_SECONDS)
            return out, err, round(median(loops), 2)
        except subprocess.TimeoutExpired:
            loops.append(loop_ms())


def _children_seconds() -> float:
    """CPU of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
