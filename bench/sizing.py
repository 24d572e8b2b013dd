"""What a load needs, from measured figures: the numbers of docs/guide/sizing.md."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Of the peak over the mean of a month, and how much of a core is planned to be used at the peak.
PEAK: Final = 5.0
USED: Final = 0.6
MONTH_SECONDS: Final = 30 * 86_400
LOADS: Final = (10_000_000, 1_000_000_000, 100_000_000_000)
_MONTHS_KEPT: Final = 24
_PARTITIONS: Final = (4, 12, 24, 48, 96, 192, 384, 768)


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured: CPU µs an event by process, bytes of ClickHouse's disk an event, memory of a worker by visitors."""

    cpu_us: Mapping[str, float]
    disk_bytes: float
    worker_mb: float
    visitor_bytes: float

    def per_core(self, program: str) -> float:
        """Events/s that one core of this program takes."""
        return 1e6 / self.cpu_us[program]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load of so many events a month needs."""

    mean: float
    peak: float
    cores: Mapping[str, float]
    collectors: int
    workers: int
    partitions: int
    disk_gb: float


def costs_of(results: Iterable[Mapping[str, Any]]) -> Costs:
    """From the results of a bench; raises LookupError where the scenarios plain and visitors are not among them."""
    named = {result["scenario"]: result for result in results}
    plain = named["end to end, 20 a request"]
    states = sorted(
        (int(name.split()[0].replace(",", "")), result)
        for name, result in named.items()
        if name.endswith("visitors in state")
    )
    (fewest, small), (most, large) = states[0], states[-1]
    grown = large["memory_mb"]["worker"] - small["memory_mb"]["worker"]
    return Costs(
        plain["cpu_us"],
        next(figure["value"] for figure in plain["figures"] if figure["name"] == "ClickHouse's disk"),
        small["memory_mb"]["worker"],
        max(grown, 0.0) * 1e6 / max(most - fewest, 1),
    )


def needs_of(costs: Costs, events: int) -> Needs:
    """For `events` a month, 20 a request."""
    mean = events / MONTH_SECONDS
    peak = mean * PEAK
    cores = {name: peak * costs.cpu_us[name] / 1e6 / USED for name in ("collector", "worker", "broker", "clickhouse")}
    workers = max(1, math.ceil(cores["worker"]))
    # Twice as many as workers: room to grow, since a partition's writer is one.
    partitions = next((count for count in _PARTITIONS if count >= 2 * workers), _PARTITIONS[-1])
    disk = costs.disk_bytes * events * _MONTHS_KEPT / 1e9
    return Needs(mean, peak, cores, max(1, math.ceil(cores["collector"])), workers, partitions, disk)


def markdown_of_sizing(costs: Costs) -> str:
    """Both tables of the page."""
    lines = ["| process | CPU µs/event | events/s a core |", "|---|---|---|"]
    lines += [
        f"| {name} | {costs.cpu_us[name]:.1f} | {costs.per_core(name):,.0f} |"
        for name in ("collector", "broker", "worker", "clickhouse")
    ]
    lines += [
        "",
        f"ClickHouse's disk: {costs.disk_bytes:,.0f} MB for a million events. A worker: {costs.worker_mb:,.0f} MB, and "
        f"{costs.visitor_bytes:,.0f} bytes more for each active visitor.",
        "",
        "| events a month | mean | peak | collectors | workers | partitions | broker, cores "
        f"| ClickHouse, cores with full blocks | disk, {_MONTHS_KEPT} months |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(events, needs_of(costs, events)) for events in LOADS]
    return "\n".join(lines) + "\n"


def _row(events: int, needs: Needs) -> str:
    disk = f"{needs.disk_gb:,.0f} GB" if needs.disk_gb < 10_000 else f"{needs.disk_gb / 1000:,.0f} TB"
    cells = (
        f"{events:,}",
        f"{needs.mean:,.0f}/s",
        f"{needs.peak:,.0f}/s",
        str(needs.collectors),
        str(needs.workers),
        str(needs.partitions),
        _cores(needs.cores["broker"]),
        _cores(needs.cores["clickhouse"]),
        disk,
    )
    return f"| {' | '.join(cells)} |"


def _cores(needed: float) -> str:
    return "under 0.1" if needed < 0.1 else f"{needed:.2g}" if needed < 10 else f"{needed:,.0f}"
