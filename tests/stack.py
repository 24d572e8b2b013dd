"""A whole stack for tests: `headrace up` as a user starts it, on free ports and a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from headrace.status import read_status
from tests.kafka.server import KafkaCluster, running_kafka

HEADRACE = (sys.executable, "-m", "headrace")
_PORTS = 8
#: So soon another worker takes over from a dead one on Kafka; tests need not wait the ten seconds of the default.
_SOON: Final = {"HEADRACE_GROUP_SESSION_SECONDS": "4"}
_T = TypeVar("_T")


def free_port_base() -> int:
    """The first of a run of ports that nobody listens on."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            base: int = probe.getsockname()[1]
        if base + _PORTS < 65_535 and all(_is_free(base + number) for number in range(_PORTS)):
            return base
    raise AssertionError("No run of free ports was found.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RunningStack:
    """One `headrace up`; `folder/data` is its data folder.

    It runs on the embedded broker, or on `kafka`, which is started and stopped by whoever made it; its first node's
    process id is that of the broker, and `kill` kills all of its nodes.
    """

    def __init__(self, folder: Path, port_base: int, workers: int = 1, kafka: KafkaCluster | None = None) -> None:
        self.folder, self.port_base, self.workers, self.kafka = folder, port_base, workers, kafka
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until ready."""
        command = [*HEADRACE, "up", "--port-base", str(self.port_base), "--workers", str(self.workers)]
        environment = dict(os.environ)
        if self.kafka:
            command += ["--broker", self.kafka.address]
            environment |= {"HEADRACE_REPLICATION_FACTOR": str(self.kafka.replicas), **_SOON}
        output = (self.folder / "up.log").open("ab")
        with output:
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
        code, _, error = self.run("status", "--wait", "--timeout", "90")
        assert code == 0, f"{error}\n{(self.folder / 'up.log').read_text()[-3000:]}"

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

    def kill(self, name: str) -> None:
        """kill -9 one of the stack's programs, which is started again: Kafka at once, on the same data."""
        if name == "broker" and self.kafka:
            for node in self.kafka.nodes:
                self.kafka.kill_node(node)
            for node in self.kafka.nodes:
                self.kafka.start_node(node)
            return
        os.kill(self.status()["pids"][name], signal.SIGKILL)

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
        """Events with a dead letter of a worker; one that arrived twice, or is on the log twice, has two letters."""
        counted = "SELECT uniqExact(companyId, eventId) FROM headrace.dead_letters WHERE source = 'streams'"
        return int(self.query(counted)[0][0])

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
    with ExitStack() as entered:
        kafka = entered.enter_context(running_kafka(folder / "kafka", brokers)) if broker == "kafka" else None
        yield entered.enter_context(_running(RunningStack(folder, free_port_base(), workers, kafka)))


@contextmanager
def _running(stack: RunningStack) -> Iterator[RunningStack]:
    try:
        stack.start()
        yield stack
    finally:
        stack.stop(signal.SIGTERM)
