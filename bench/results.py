"""What a scenario found: figures, some of them with a target, and what makes them comparable."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import psutil

ROOT: Final = Path(__file__).parents[1]
_LOOP: Final = 100_000
_PACKAGES: Final = ("aiokafka", "chdb", "clickhouse-connect", "fastavro", "faust-streaming", "noida-db", "uvloop")


class Target(msgspec.Struct, frozen=True):
    """A bound that a figure should keep: at least it where `more` is better, else at most."""

    bound: float
    more: bool

    def kept(self, value: float) -> bool:
        """Whether the value is within the bound."""
        return value >= self.bound if self.more else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.more else '≤'} {self.bound:,g}"


class Figure(msgspec.Struct, frozen=True):
    """One measured number."""

    name: str
    value: float
    unit: str
    target: Target | None = None


class Result(msgspec.Struct):
    """One run of a scenario. `verify` is the exit code of `headrace verify`; `faults` what is not accounted for.

    `loop_ms` is the median of `loop_ms()` while it ran.
    """

    scenario: str
    figures: list[Figure]
    verify: int
    faults: list[str] = []
    cpu_us: dict[str, float] = {}
    memory_mb: dict[str, float] = {}
    load_average: float = 0.0
    loop_ms: float = 0.0
    details: dict[str, Any] = {}

    @property
    def sound(self) -> bool:
        """Whether every event was accounted for and all numbers agree."""
        return self.verify == 0 and not self.faults


def at_least(bound: float) -> Target:
    """A target of a figure that should be large."""
    return Target(bound, more=True)


def at_most(bound: float) -> Target:
    """A target of a figure that should be small."""
    return Target(bound, more=False)


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)


def loop_ms() -> float:
    """CPU ms of a loop that is always the same: how fast the machine is at this moment, whatever is measured on it."""
    began = time.thread_time()
    for _ in range(_LOOP):
        pass
    return (time.thread_time() - began) * 1000


def machine_facts() -> Mapping[str, Any]:
    """What a reader needs to compare figures of two runs."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "memoryMb": round(psutil.virtual_memory().total / 1e6),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "loadAverage": list(os.getloadavg()),
        "loopMs": round(median(loop_ms() for _ in range(100)), 2),
        "version": described.stdout.strip(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()
