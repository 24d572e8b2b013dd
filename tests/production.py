"""The parts as one runs them in production: each a process of its own, on Kafka, started and stopped by the test."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from headrace.published import PartUnavailable, read_samples
from schemas.settings import ClickHouseSettings
from schemas.tenants import write_tenants
from tests.contract.clickhouse_fixture import EmbeddedClickHouse, running
from tests.kafka.server import KafkaCluster, running_kafka
from tests.ports import free_port
from tests.stack import HEADRACE, eventually
from warehouse.client import ClickHouse

WRITE_KEY = "key-of-the-test"


class Production:
    """A Kafka and a ClickHouse that run, and the programs that the test runs on them, each by a name."""

    def __init__(self, folder: Path, kafka: KafkaCluster, clickhouse: EmbeddedClickHouse, partitions: int) -> None:
        self.collector_port = free_port()
        self._folder = folder
        self._clickhouse = ClickHouse(ClickHouseSettings(clickhouse_url=clickhouse.url))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {"collector": self.collector_port}
        tenants = folder / "tenants.yaml"
        write_tenants(tenants, "demo", WRITE_KEY, "read-token-of-the-test")
        self.environment = {
            "HEADRACE_BROKER": kafka.address,
            "HEADRACE_CLICKHOUSE_URL": clickhouse.url,
            "HEADRACE_COLLECTOR_PORT": str(self.collector_port),
            "HEADRACE_COLLECTOR_URL": f"http://127.0.0.1:{self.collector_port}",
            "HEADRACE_GROUP_SESSION_SECONDS": "4",
            "HEADRACE_JOURNAL_DIR": str(folder / "journal"),
            "HEADRACE_PARTITIONS": str(partitions),
            "HEADRACE_TENANTS_FILE": str(tenants),
        }

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """A query's rows."""
        return self._clickhouse.rows(sql)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            [*HEADRACE, *arguments],
            cwd=self._folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start_collector(self) -> None:
        """Start it and wait until it is ready."""
        self._start("collector", "collector", {})
        eventually(lambda: self._answers("collector"), bool)

    def start_workers(self, *names: str) -> None:
        """Start them, and wait until the partitions of both topics are shared by all that run now."""
        for name in names:
            self._ports[name] = free_port()
            self._start(name, "worker", {"HEADRACE_WORKER_PORT": str(self._ports[name])})
        self.await_shared()

    def stop(self, *names: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send all of them a signal and wait for their end, which has to be what the signal asked for."""
        for name in names:
            self._running[name].send_signal(number)
        codes = {name: self._running.pop(name).wait(60) for name in names}
        assert set(codes.values()) == {0 if number is signal.SIGTERM else -number}, codes

    def await_shared(self) -> None:
        """Return once every worker has partitions, and together they have all, each once."""
        partitions = 2 * int(self.environment["HEADRACE_PARTITIONS"])
        eventually(self.shares, lambda shares: all(shares.values()) and sum(shares.values()) == partitions)

    def shares(self) -> Mapping[str, int]:
        """How many partitions each worker that runs has now."""
        return {name: self._partitions(name) for name in self._running if name != "collector"}

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._running.values():
            process.kill()
            process.wait()
        self._clickhouse.close()

    def _start(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*HEADRACE, command],
                cwd=self._folder,
                env={**os.environ, **self.environment, **environment},
                stdout=log,
                stderr=log,
            )

    def _answers(self, name: str) -> bool:
        assert self._running[name].poll() is None, (self._folder / f"{name}.log").read_text()[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[name]}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _partitions(self, name: str) -> int:
        assert self._running[name].poll() is None, (self._folder / f"{name}.log").read_text()[-3000:]
        try:
            samples = read_samples(name, f"http://127.0.0.1:{self._ports[name]}")
        except PartUnavailable:
            return 0
        return sum(int(value) for sample, _, value in samples if sample == "headrace_worker_partitions")


@contextmanager
def production(folder: Path, partitions: int) -> Iterator[Production]:
    """Kafka and ClickHouse, migrated; skips the test, with the reason, where Kafka cannot be had."""
    with running_kafka(folder / "kafka") as kafka, running(folder / "clickhouse") as clickhouse:
        parts = Production(folder, kafka, clickhouse, partitions)
        try:
            done = parts.run("migrate")
            assert done.returncode == 0, done.stderr
            yield parts
        finally:
            parts.end()
