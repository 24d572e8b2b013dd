"""Apache Kafka for tests: one broker, or a cluster, each node broker and controller at once, on free ports."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.pausing import pause, resume
from tests.ports import free_port_base

ROOT: Final = Path(__file__).parents[2]
POM: Final = Path(__file__).with_name("pom.xml")
#: Where `make kafka` puts the jars.
JARS: Final = ROOT / "build" / "kafka"
_FETCH_SECONDS: Final = 600.0
_START_SECONDS: Final = 60.0
_JVM: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def why_no_kafka() -> str:
    """Why Apache Kafka cannot be run here; "" where it can."""
    needed = ["java"] if _is_fetched() else ["java", "mvn"]
    missing = [program for program in needed if shutil.which(program) is None]
    return f"Apache Kafka needs {' and '.join(missing)} on the path (make kafka)" if missing else ""


def fetch_kafka() -> None:
    """Copy Kafka's jars, as the pom says, into JARS; nothing where they are there. Raises CalledProcessError.

    One process fetches, others that ask meanwhile wait for it.
    """
    JARS.parent.mkdir(exist_ok=True)
    with JARS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_fetched():
            return
        draft = JARS.with_name(f"kafka.{os.getpid()}")
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={draft}"]
        subprocess.run(command, check=True, timeout=_FETCH_SECONDS, stdin=subprocess.DEVNULL)
        (draft / POM.name).write_bytes(POM.read_bytes())
        shutil.rmtree(JARS, ignore_errors=True)
        draft.replace(JARS)


def require_kafka() -> None:
    """Fetch Kafka, or skip the test and say why."""
    if why := why_no_kafka():
        pytest.skip(why)
    fetch_kafka()


def _is_fetched() -> bool:
    """Whether the jars of this pom are there: it is copied beside them last."""
    copied = JARS / POM.name
    return copied.is_file() and copied.read_bytes() == POM.read_bytes()


class KafkaCluster:
    """`brokers` nodes with their data below `folder`; topics get as many replicas as there are nodes, at most three.

    Nodes are numbered from 1. One that was killed comes back with `start_node` on the same data and port.
    """

    def __init__(self, folder: Path, brokers: int = 1) -> None:
        self.folder, self.replicas = folder, min(brokers, 3)
        base = free_port_base(2 * brokers)
        self._clients = {node: base + node - 1 for node in range(1, brokers + 1)}
        self._controllers = {node: port + brokers for node, port in self._clients.items()}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    @property
    def address(self) -> str:
        """The bootstrap servers: every node."""
        return ",".join(f"127.0.0.1:{port}" for port in self._clients.values())

    @property
    def nodes(self) -> list[int]:
        """The numbers of all nodes, running or not."""
        return list(self._clients)

    @property
    def pids(self) -> Mapping[int, int]:
        """Process ids of the nodes that run."""
        return {node: process.pid for node, process in self._processes.items() if process.poll() is None}

    def start(self) -> None:
        """Format the storage where it is new, start every node and wait until each listens."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._format, self.nodes))
        for node in self.nodes:
            self.start_node(node)
        for node in self.nodes:
            self.wait_node(node)

    def stop(self) -> None:
        """End every node with SIGKILL; the data stays."""
        for node in self.nodes:
            self.kill_node(node)

    def kill_node(self, node: int) -> None:
        """SIGKILL."""
        if process := self._processes.pop(node, None):
            process.kill()
            process.wait()

    def end_node(self, node: int) -> None:
        """SIGTERM, and wait: a controlled shutdown, which hands leadership over first."""
        process = self._processes.pop(node)
        process.send_signal(signal.SIGTERM)
        process.wait(_START_SECONDS)

    def signal_node(self, node: int, number: int) -> None:
        """Send a signal."""
        self._processes[node].send_signal(number)

    def pause_node(self, node: int) -> None:
        """Let a node stand still: connections stay open and nobody answers."""
        pause(self._processes[node])

    def resume_node(self, node: int) -> None:
        """Let a paused node go on."""
        resume(self._processes[node])

    def wait_replicated(self) -> None:
        """Return once every partition of every topic has all its replicas in sync."""
        deadline = time.monotonic() + _START_SECONDS
        while not asyncio.run(self._is_replicated()):
            assert time.monotonic() < deadline, "The replicas of a partition are not in sync in time."
            time.sleep(0.2)

    async def _is_replicated(self) -> bool:
        async with self._admin() as admin:
            topics = await admin.describe_topics()
        partitions = [partition for topic in topics for partition in topic["partitions"]]
        return all(len(partition["isr"]) == self.replicas for partition in partitions)

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition."""

        async def ask() -> int:
            async with self._admin() as admin:
                (found,) = await admin.describe_topics([topic])
            return next(int(each["leader"]) for each in found["partitions"] if each["partition"] == partition)

        return asyncio.run(ask())

    def coordinator(self, group: str) -> int:
        """The node that coordinates a consumer group."""

        async def ask() -> int:
            async with self._admin() as admin:
                return int(await admin.find_coordinator(group))

        return asyncio.run(ask())

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    def start_node(self, node: int) -> None:
        """Start a node that does not run, and do not wait for it."""
        command = _java(self._properties_file(node).parent, "kafka.Kafka", str(self._properties_file(node)))
        with (self.folder / f"kafka-{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_node(self, node: int) -> None:
        """Return once the node takes connections."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self._processes[node].poll() is None, self.last_words(node)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._clients[node])) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"Kafka node {node} does not listen. {self.last_words(node)}")

    def last_words(self, node: int) -> str:
        """The end of the node's log."""
        return (self.folder / f"kafka-{node}.log").read_text()[-2000:]

    def _properties_file(self, node: int) -> Path:
        return self.folder / f"node-{node}" / "server.properties"

    def _format(self, node: int) -> None:
        path = self._properties_file(node)
        if path.exists():
            return
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{name}={value}\n" for name, value in self._properties(node).items()))
        command = _java(
            path.parent, "kafka.tools.StorageTool", "format", f"--cluster-id={self._cluster_id}", "-c", str(path)
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _properties(self, node: int) -> dict[str, object]:
        enough = max(self.replicas - 1, 1)
        client, controller = (f"127.0.0.1:{ports[node]}" for ports in (self._clients, self._controllers))
        return {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controllers.items()),
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / f"node-{node}" / "data",
            "auto.create.topics.enable": "false",
            "default.replication.factor": self.replicas,
            "min.insync.replicas": enough,
            "offsets.topic.replication.factor": self.replicas,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": self.replicas,
            "transaction.state.log.min.isr": enough,
            "transaction.state.log.num.partitions": 3,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # So long is a dead node not noticed, and so long is its successor of the same number not let in.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }


def _java(folder: Path, main: str, *arguments: str) -> list[str]:
    return ["java", *_JVM, f"-Dkafka.logs.dir={folder}", "-cp", f"{JARS}/*", main, *arguments]


@contextmanager
def running_kafka(folder: Path, brokers: int = 1) -> Iterator[KafkaCluster]:
    """A cluster that ends with the block; skips the test, with the reason, where Kafka cannot be had."""
    require_kafka()
    cluster = KafkaCluster(folder, brokers)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":  # make kafka
    if reason := why_no_kafka():
        raise SystemExit(reason)
    fetch_kafka()
