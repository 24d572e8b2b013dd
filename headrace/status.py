"""The figures of a running stack, gathered from what its parts publish."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from clickhouse_connect.driver.exceptions import ClickHouseError

from headrace.endpoints import Endpoints
from headrace.published import PartUnavailable, read_samples, worker_urls
from headrace.runfile import read_run_file
from schemas.settings import ClickHouseSettings
from schemas.tenants import TenantsError, load_tenants
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse, ClickHouseUnavailable

_TIMEOUT: Final = 5.0
_LEDGER: Final = "SELECT sum(stored), sum(duplicate), sum(dead) FROM blocks WHERE topic = {topic:String}"


@dataclass(frozen=True, slots=True)
class Status:
    """A stack at one moment: `in_flight` events are accepted and not yet in the ledger."""

    ready: bool
    accepted: int
    rejected: int
    stored: int
    duplicate: int
    dead: int
    lag_seconds: float
    company_id: str
    write_key: str
    urls: Mapping[str, str]
    pids: Mapping[str, int]

    @property
    def in_flight(self) -> int:
        """What is on its way from the collector to the ledger."""
        return max(self.accepted - self.stored - self.duplicate - self.dead, 0)

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
            "companyId": self.company_id,
            "writeKey": self.write_key,
            "urls": dict(self.urls),
            "pids": dict(self.pids),
        }


def read_status(port_base: int) -> Status:
    """Ask every part of the stack at this port base; a part that is away counts as zero and makes it not ready."""
    endpoints = Endpoints.at(port_base)
    run_file = read_run_file(port_base)
    stored, duplicate, dead = _ledger(endpoints.clickhouse_url)
    company_id, write_key = _first_tenant(run_file["tenants_file"] if run_file else None)
    pids = run_file["pids"] if run_file else {}
    workers = worker_urls(endpoints, port_base)
    lags = [lag for url in workers for lag in _values("worker", url, "headrace_worker_lag_seconds")]
    ready = all(
        _answers(url)
        for url in (
            f"{endpoints.collector_url}/readyz",
            f"{endpoints.clickhouse_url}/ping",
            *(f"{url}/readyz" for url in workers),
        )
    )
    return Status(
        ready=ready and run_file is not None,
        accepted=int(sum(_values("collector", endpoints.collector_url, "headrace_collector_journal_events"))),
        rejected=int(sum(_values("collector", endpoints.collector_url, "headrace_collector_rejected_total"))),
        stored=stored,
        duplicate=duplicate,
        dead=dead,
        lag_seconds=max(lags, default=0.0),
        company_id=company_id,
        write_key=write_key,
        urls={
            "collector": endpoints.collector_url,
            "clickhouse": endpoints.clickhouse_url,
            "broker": endpoints.broker,
        },
        pids=pids,
    )


def _values(part: str, url: str, name: str) -> list[float]:
    """The values of a metric; none where the part does not answer."""
    try:
        return [value for sample, _, value in read_samples(part, url) if sample == name]
    except PartUnavailable:
        return []


def _ledger(url: str) -> tuple[int, int, int]:
    client = ClickHouse(ClickHouseSettings(clickhouse_url=url))
    try:
        stored, duplicate, dead = client.rows(_LEDGER, {"topic": COLLECTED})[0]
    except (ClickHouseUnavailable, ClickHouseError):
        return 0, 0, 0
    finally:
        client.close()
    return int(stored), int(duplicate), int(dead)


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
