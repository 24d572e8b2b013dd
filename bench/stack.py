"""The stack under measurement: `headrace up` as a user starts it, its processes, and what it has stored."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil

from headrace.published import read_samples
from headrace.runfile import read_run_file
from tests.ports import free_port_base
from tests.stack import HEADRACE, RunningStack

_LONG: Final = 1_800
#: Events that `aggregated_events` counts, read from its parts: visitors need not be mapped to persons to count events.
_QUERYABLE: Final = "SELECT sum(totalEvents) FROM headrace.daily_parts WHERE companyId = 'demo'"
_ACCOUNTED: Final = (
    "SELECT sum(stored), sum(duplicate), sum(dead) FROM headrace.blocks "
    "WHERE topic = 'events.collected' AND logId != 'filled' FORMAT TabSeparated"
)


class BenchStack(RunningStack):
    """A running stack that can be asked for its processes and for what has become queryable."""

    def __init__(self, folder: Path, port_base: int, workers: int) -> None:
        super().__init__(folder, port_base, workers)
        self._client = httpx.Client(timeout=_LONG)
        self._used: dict[int, tuple[str, float]] = {}

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids by name; `up` is the supervisor."""
        noted = read_run_file(self.port_base)
        assert noted is not None, "the stack does not run"
        return {"up": noted["supervisor"], **noted["pids"]}

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each program, with what processes that ended since had used when last asked."""
        for name, process in self._processes():
            self._used[process.pid] = (name, sum(process.cpu_times()[:2]))
        return _summed(self._used.values())

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each program; workers together."""
        return _summed((name, process.memory_info().rss / 1e6) for name, process in self._processes())

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for name, pid in self.pids.items():
            if psutil.pid_exists(pid):  # one that was killed may not have a successor yet
                yield name.split("-")[0], psutil.Process(pid)

    def queryable(self) -> int:
        """Events that the rollup counts now, without those that were filled in."""
        return int(self.ask(_QUERYABLE))

    def accepted(self) -> int:
        """Events that the collector's process has accepted."""
        samples = read_samples("collector", f"http://127.0.0.1:{self.port_base}")
        return int(sum(value for name, _, value in samples if name == "headrace_collector_accepted_total"))

    def accounted(self) -> tuple[int, int, int]:
        """Events that the ledger has as stored, duplicate and dead, without those that were filled in."""
        stored, duplicate, dead = map(int, self.ask(_ACCOUNTED).split())
        return stored, duplicate, dead

    def ask(self, sql: str) -> str:
        """What a query answers, as text."""
        answer = self._client.post(
            f"http://127.0.0.1:{self.port_base + 2}", content=sql, params={"database": "headrace"}
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    def verify_exit(self, accepted: int | None = None) -> int:
        """Exit code of `headrace verify`; `accepted` where events came by another way than the collector."""
        options = [] if accepted is None else ["--accepted", str(accepted)]
        command = [*HEADRACE, "verify", "--wait", "120", "--port-base", str(self.port_base), *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=_LONG, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
        return done.returncode


def _summed(figures: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in figures:
        sums[name] = sums.get(name, 0.0) + value
    return sums


@contextmanager
def bench_stack(workers: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[BenchStack]:
    """A stack in a folder of its own, with further environment variables; BENCH_DIR says where folders are made.

    Folders are deleted when the bench ends: where ext4 has no journal, a new file takes no inode that was deleted in
    the last minutes, and thousands of them cost whoever makes files next a tenth of its time.
    """
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=os.environ.get("BENCH_DIR")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    before = dict(os.environ)
    os.environ.update(environment or {})
    stack = BenchStack(folder, free_port_base(), workers)
    try:
        try:
            stack.start()
        except AssertionError:  # somebody took one of the ports meanwhile
            stack.stop()
            stack = BenchStack(folder, free_port_base(), workers)
            stack.start()
        yield stack
    finally:
        stack.stop()
        os.environ.clear()
        os.environ.update(before)
