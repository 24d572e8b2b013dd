"""The stack under measurement: `headrace up` as a user starts it, its processes, and what it has stored."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from headrace.runfile import read_run_file
from tests.stack import RunningStack, free_port_base

_ENOUGH: Final = 1_800.0


class BenchStack(RunningStack):
    """A running stack that can be asked for its processes and for what has become queryable."""

    def __init__(self, folder: Path, port_base: int, workers: int) -> None:
        super().__init__(folder, port_base, workers)
        self._asked = httpx.Client(timeout=60)

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids by name; `up` is the supervisor."""
        noted = read_run_file(self.port_base)
        assert noted is not None, "the stack does not run"
        return {"up": noted["supervisor"], **noted["pids"]}

    def queryable(self) -> int:
        """Events that `aggregated_events` counts now: its parts, without mapping visitors to persons."""
        return self.number("SELECT sum(totalEvents) FROM headrace.daily_parts")

    def accounted(self) -> int:
        """Events that the ledger has: stored, duplicate or dead."""
        return self.number("SELECT sum(events) FROM headrace.blocks WHERE topic = 'events.collected'")

    def number(self, sql: str) -> int:
        """The one number that a query answers."""
        answer = self._asked.post(f"http://127.0.0.1:{self.port_base + 2}", content=sql)
        assert answer.status_code == 200, answer.text
        return int(answer.text)


@contextmanager
def bench_stack(workers: int = 1, **environment: str) -> Iterator[BenchStack]:
    """A stack in a folder of its own; `environment` are HEADRACE_ settings without their prefix, in small letters."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=os.environ.get("BENCH_DIR")))
    settings = {f"HEADRACE_{name.upper()}": value for name, value in environment.items()}
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    stack = BenchStack(folder, free_port_base(), workers)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(folder, ignore_errors=True)


def until(deadline: float, seconds: float) -> Iterator[None]:
    """Once every `seconds` until the deadline (time.monotonic)."""
    while time.monotonic() < deadline:
        yield
        time.sleep(seconds)
