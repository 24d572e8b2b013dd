"""The figures of a running stack, gathered from what its parts publish."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from clickhouse_connect.driver.exceptions import ClickHouseError

from headrace.endpoints import Endpoints
from headrace.log_identity import BrokerUnavailable
from headrace.published import PartUnavailable, read_samples, worker_urls
from headrace.runfile import RunFile, read_run_file
from headrace.waiting import Positions, count_waiting, read_positions
from schemas.settings import BrokerSettings, ClickHouseSettings
from schemas.tenants import TenantsError, load_tenants
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse, ClickHouseUnavailable

_TIMEOUT: Final = 5.0
_LEDGER: Final = "SELECT sum(stored), sum(duplicate), sum(dead) FROM blocks WHERE topic = {topic:String}"


@dataclass(frozen=True, slots=True)
class Status:
    """A stack at one moment: what is `in_flight` is accepted and not yet in the ledger.

    Embedded, the collector's journal counts every event that was ever accepted. A log that keeps is counted itself:
    `in_flight` are its records, and the spool's, of one or more events each, and `accepted` is what they and the ledger
    come to.
    """

    ready: bool
    accepted: int
    rejected: int
    stored: int
    duplicate: int
    dead: int
    in_flight: int
    lag_seconds: float
    paused: int
    company_id: str
    write_key: str
    urls: Mapping[str, str]
    pids: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The document that `headrace status --json` prints."""
        return {
            "ready": self.ready,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "stored": self.stored,
            "duplicate": self.duplicate,
            "dead": self.dead,
            "inFlight": self.in_flight,
            "lagSeconds": round(self.lag_seconds, 1),
            "pausedPartitions": self.paused,
            "companyId": self.company_id,
            "writeKey": self.write_key,
            "urls": dict(self.urls),
            "pids": dict(self.pids),
        }


def read_status(port_base: int) -> Status:
    """Ask every part of the stack at this port base; a part that is away counts as zero and makes it not ready."""
    endpoints, run_file = Endpoints.found(port_base), read_run_file(port_base)
    ledger = _read_ledger(endpoints.clickhouse_url)
    company_id, write_key = _first_tenant(run_file["tenants_file"] if run_file else None)
    workers = worker_urls(endpoints, port_base)
    collector, by_worker = (
        _Published("collector", endpoints.collector_url),
        [_Published("worker", url) for url in workers],
    )
    accepted, in_flight, log_answers = _count_accepted(endpoints, run_file, ledger, collector)
    return Status(
        ready=run_file is not None and run_file["started"] and log_answers and _are_ready(endpoints, workers),
        accepted=accepted,
        rejected=collector.total("headrace_collector_rejected_total"),
        stored=ledger.stored,
        duplicate=ledger.duplicate,
        dead=ledger.dead,
        in_flight=in_flight,
        lag_seconds=max(
            (lag for worker in by_worker for lag in worker.values("headrace_worker_lag_seconds")), default=0.0
        ),
        paused=sum(worker.total("headrace_worker_paused_partitions") for worker in by_worker),
        company_id=company_id,
        write_key=write_key,
        urls={
            "collector": endpoints.collector_url,
            "clickhouse": endpoints.clickhouse_url,
            "broker": endpoints.broker,
        },
        pids=run_file["pids"] if run_file else {},
    )


def _count_accepted(
    endpoints: Endpoints, run_file: RunFile | None, ledger: "_Ledger", collector: "_Published"
) -> tuple[int, int, bool]:
    """Accepted, in flight, and whether the log could be asked where it had to be."""
    if run_file is None or run_file["log_forgets"]:
        accepted = collector.total("headrace_collector_journal_events")
        return accepted, max(accepted - ledger.events, 0), True
    spooled = collector.total("headrace_collector_spool_records")
    try:
        # The spool first: what goes from there to the log in between counts twice for a moment, and never not at all.
        waiting = spooled + asyncio.run(count_waiting(BrokerSettings(broker=endpoints.broker), ledger.positions))
    except BrokerUnavailable:
        return ledger.events + spooled, spooled, False
    return ledger.events + waiting, waiting, True


def _are_ready(endpoints: Endpoints, workers: Sequence[str]) -> bool:
    ready = (f"{url}/readyz" for url in (endpoints.collector_url, *workers))
    return all(map(_answers, (*ready, f"{endpoints.clickhouse_url}/ping")))


class _Published:
    """The figures of one part, asked for once; none where it does not answer."""

    def __init__(self, part: str, url: str) -> None:
        try:
            self._samples = read_samples(part, url)
        except PartUnavailable:
            self._samples = []

    def values(self, name: str) -> list[float]:
        """The values of a metric."""
        return [value for sample, _, value in self._samples if sample == name]

    def total(self, name: str) -> int:
        """Their sum."""
        return int(sum(self.values(name)))


@dataclass(frozen=True, slots=True)
class _Ledger:
    stored: int = 0
    duplicate: int = 0
    dead: int = 0
    positions: Positions = field(default_factory=Positions)

    @property
    def events(self) -> int:
        return self.stored + self.duplicate + self.dead


def _read_ledger(url: str) -> _Ledger:
    client = ClickHouse(ClickHouseSettings(clickhouse_url=url))
    try:
        positions = read_positions(client)
        stored, duplicate, dead = client.rows(_LEDGER, {"topic": COLLECTED})[0]
        return _Ledger(int(stored), int(duplicate), int(dead), positions)
    except (ClickHouseUnavailable, ClickHouseError):
        return _Ledger()
    finally:
        client.close()


def _first_tenant(tenants_file: str | None) -> tuple[str, str]:
    if tenants_file is None:
        return "", ""
    try:
        tenants = load_tenants(Path(tenants_file))
    except TenantsError:
        return "", ""
    return next(((tenant.company_id, key) for key, tenant in tenants.by_write_key.items()), ("", ""))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_TIMEOUT).status_code == 200
    except httpx.HTTPError:
        return False
