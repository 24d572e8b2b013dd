"""A whole stack for tests: `headrace up` as a user starts it, on free ports and a folder of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from headrace.embedded.broker import EmbeddedBroker
from headrace.runfile import read_run_file
from headrace.status import read_status
from streams.settings import WorkerSettings
from tests.kafka.server import KafkaCluster, running_kafka
from tests.ports import free_port_base

HEADRACE = (sys.executable, "-m", "headrace")
#: So soon another worker takes over from a dead one on Kafka; tests need not wait the ten seconds of the default.
_SOON: Final = {"HEADRACE_GROUP_SESSION_SECONDS": "4"}
_T = TypeVar("_T")


class RunningStack:
    """One `headrace up`; `folder/data` is its data folder.

    It runs on the embedded broker, or on `kafka`, which is started and stopped by whoever made it; its first node's
    process id is that of the broker, and `kill` kills all of its nodes.
    """

    def __init__(self, folder: Path, port_base: int, workers: int = 1, kafka: KafkaCluster | None = None) -> None:
        self.folder, self.port_base, self.workers, self.kafka = folder, port_base, workers, kafka
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def collector_at(self) -> tuple[str, int]:
        """Where the collector listens."""
        return "127.0.0.1", self.port_base

    @property
    def clickhouse_at(self) -> tuple[str, int]:
        """Where ClickHouse listens."""
        return "127.0.0.1", self.port_base + 2

    @property
    def brokers_at(self) -> list[tuple[str, int]]:
        """Where each broker listens."""
        addresses = self.kafka.address.split(",") if self.kafka else [f"127.0.0.1:{self.port_base + 3}"]
        return [(host, int(port)) for host, _, port in (address.partition(":") for address in addresses)]

    def detour(self, brokers: list[int], clickhouse: int) -> None:
        """Before the start: collector and workers shall connect to these ports of 127.0.0.1 instead."""
        self.environment["HEADRACE_UP_BROKER"] = ",".join(f"127.0.0.1:{port}" for port in brokers)
        self.environment["HEADRACE_UP_CLICKHOUSE_URL"] = f"http://127.0.0.1:{clickhouse}"

    def start(self) -> None:
        """Start and wait until ready."""
        self.begin()
        self.await_ready()

    def begin(self) -> None:
        """Start, and do not wait."""
        command = [*HEADRACE, "up", "--port-base", str(self.port_base), "--workers", str(self.workers)]
        environment = dict(os.environ)
        if self.kafka:
            command += ["--broker", self.kafka.address]
            environment |= {"HEADRACE_REPLICATION_FACTOR": str(self.kafka.replicas), **_SOON}
        with self._said.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment | self.environment, stdout=output, stderr=output
            )

    def await_ready(self) -> None:
        """Return once `headrace status --wait` has; fails when that takes too long."""
        code, _, error = self.run("status", "--wait", "--timeout", "90")
        assert code == 0, f"{error}\n{self._said.read_text()[-3000:]}"

    @property
    def _said(self) -> Path:
        return self.folder / "up.log"

    def members(self) -> dict[str, str]:
        """The members of the workers' group on the embedded broker, each with its client's name."""
        broker = EmbeddedBroker(self.folder, self.port_base + 3)
        return asyncio.run(broker.members(WorkerSettings().consumer_group))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal and return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(90)

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """A command of the command line against this stack: exit code, stdout, stderr."""
        done = subprocess.run(
            [*HEADRACE, *arguments, "--port-base", str(self.port_base)],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def status(self) -> dict[str, Any]:
        """What `headrace status --json` prints, without a process for each time it is asked."""
        with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop
            found = thread.submit(read_status, self.port_base).result().as_json()
        if self.kafka and (pid := self.kafka.pids.get(1)):
            found["pids"]["broker"] = pid
        return found

    @property
    def pids(self) -> Mapping[str, int]:
        """The process of each program that `headrace up` runs now, by the program's name."""
        note = read_run_file(self.port_base)
        return note["pids"] if note else {}

    def kill(self, name: str) -> None:
        """kill -9 one of the stack's programs, which is started again: Kafka at once, on the same data."""
        if name == "broker" and self.kafka:
            for node in self.kafka.nodes:
                self.kafka.kill_node(node)
            for node in self.kafka.nodes:
                self.kafka.start_node(node)
        else:
            self.send_signal(name, signal.SIGKILL)

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of the stack's programs; raises KeyError or ProcessLookupError where it does not run."""
        if name == "broker" and self.kafka:
            self.kafka.signal_node(1, number)
        else:
            os.kill(self.pids[name], number)

    def crash(self) -> None:
        """kill -9 everything at once; a Kafka is started again."""
        assert self._process is not None
        for pid in (self._process.pid, *self.pids.values()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.kafka:
            self.kill("broker")
        self._process.wait(30)

    def rescale(self, workers: int) -> None:
        """Go on with so many workers."""
        self.stop(signal.SIGTERM)
        self.workers = workers
        self.start()

    def query(self, sql: str) -> list[list[Any]]:
        """Rows of a query, as ClickHouse's HTTP interface gives them to anybody."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.port_base + 2}", content=f"{sql} FORMAT JSONCompactEachRow", timeout=60
        )
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def execute(self, sql: str) -> None:
        """A statement that answers nothing."""
        answer = httpx.post(f"http://127.0.0.1:{self.port_base + 2}", content=sql, timeout=60)
        assert answer.status_code == 200, answer.text

    def post(self, body: Any, path: str = "/v1/batch", key: str = "") -> dict[str, Any]:
        """Send like a client that retries until it is told."""
        key = key or self.write_key
        for _ in range(150):
            try:
                answer = httpx.post(f"http://127.0.0.1:{self.port_base}{path}", json=body, auth=(key, ""), timeout=30)
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code < 500:
                found: dict[str, Any] = answer.json()
                return found
            time.sleep(0.2)
        raise AssertionError("The collector did not take the request in time.")

    @property
    def write_key(self) -> str:
        """The first tenant's write key."""
        text = (self.folder / "data" / "tenants.yaml").read_text()
        return text.split("writeKeys:")[1].split("- ")[1].split()[0].strip("'\"")

    def dead_events(self) -> int:
        """Dead letters of the workers: one for each event."""
        return int(self.query("SELECT count() FROM headrace.dead_letters FINAL WHERE source = 'streams'")[0][0])

    def settled(self) -> Mapping[str, int]:
        """Wait until nothing is in flight; the figures then."""
        return eventually(self.status, lambda status: bool(status["ready"]) and status["inFlight"] == 0)

    def verify(self) -> tuple[int, dict[str, Any]]:
        """Exit code and document of `headrace verify --json`."""
        code, out, error = self.run("verify", "--json", "--wait", "90")
        assert out, error
        found: dict[str, Any] = json.loads(out)
        return code, found


def eventually(ask: Callable[[], _T], holds: Callable[[_T], bool], seconds: float = 120.0) -> _T:
    """Ask until the answer holds; fails with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if holds(answer):
            return answer
        assert time.monotonic() < deadline, f"The last answer was {answer!r}."
        time.sleep(0.25)


BROKERS: Final = ("embedded", "kafka")


@contextmanager
def running_stack(folder: Path, workers: int = 1, broker: str = "embedded", brokers: int = 1) -> Iterator[RunningStack]:
    """A stack that is stopped with the block; on "kafka", with so many nodes that are started and stopped with it.

    Skips the test, with the reason, where Kafka cannot be had.
    """
    with new_stack(folder, broker, workers, brokers) as stack, _running(stack):
        yield stack


@contextmanager
def new_stack(folder: Path, broker: str = "embedded", workers: int = 1, brokers: int = 1) -> Iterator[RunningStack]:
    """As running_stack, but the stack is not started yet, and whoever starts it stops it."""
    with ExitStack() as entered:
        kafka = entered.enter_context(running_kafka(folder / "kafka", brokers)) if broker == "kafka" else None
        yield RunningStack(folder, free_port_base(), workers, kafka)


@contextmanager
def _running(stack: RunningStack) -> Iterator[RunningStack]:
    try:
        stack.start()
        yield stack
    finally:
        stack.stop(signal.SIGTERM)
