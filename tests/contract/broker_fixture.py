"""Real brokers for tests, that can be killed and started again: the embedded one without its memory, Kafka with it."""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import noida_db
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import PARTITIONS, SPECS, ensure_topics
from tests.kafka.server import KafkaCluster
from tests.pausing import pause, resume
from tests.ports import free_port


class Broker:
    """One noida-db process; it begins empty at every start."""

    keeps = False

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.options: dict[str, Any] = {
            "bootstrap_servers": f"127.0.0.1:{self.port}",
            "security_protocol": "PLAINTEXT",
        }
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return once it takes connections."""
        data = tempfile.mkdtemp(dir=self._directory)
        program = str(Path(noida_db.__file__).with_name("noida-db"))  # the console script would only be its parent
        command = [program, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", data]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(f"noida-db does not listen on port {self.port}.")

    def kill(self) -> None:
        """SIGKILL: what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it stand still: connections stay open and nobody answers."""
        assert self._process is not None
        pause(self._process)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        resume(self._process)

    def release(self) -> None:
        """The test is over."""
        self.kill()

    async def create_topics(self) -> None:
        """The topics of the log, four partitions each."""
        await ensure_topics(self.options["bootstrap_servers"], SPECS, {}, timeout=20)

    async def records(self, topic: str) -> dict[int, list[tuple[bytes, bytes]]]:
        """(key, value) of all that each partition of a topic holds, in the log's order."""
        consumer = AIOKafkaConsumer(**self.options, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(PARTITIONS)}
            for at in partitions:
                while await consumer.position(at) < ends[at]:
                    for message in (await consumer.getmany(at, timeout_ms=1000)).get(at, []):
                        found[at.partition].append((message.key, message.value))
            return found
        finally:
            await consumer.stop()


class KafkaBroker(Broker):
    """The Kafka that the tests of a run share; it keeps what it has through its deaths, `forget` makes it forget."""

    keeps = True

    def __init__(self, cluster: KafkaCluster) -> None:
        self.options = {"bootstrap_servers": cluster.address, "security_protocol": "PLAINTEXT"}
        self._cluster = cluster

    def start(self) -> None:
        """Start where it does not run, and return once it takes connections."""
        if not self._cluster.pids:
            self._cluster.start_node(1)
        self._cluster.wait_node(1)

    def kill(self) -> None:
        """SIGKILL."""
        self._cluster.kill_node(1)

    def pause(self) -> None:
        """Let it stand still: connections stay open and nobody answers."""
        self._cluster.pause_node(1)

    def resume(self) -> None:
        """Let it go on."""
        self._cluster.resume_node(1)

    def release(self) -> None:
        """The next test gets it running, with whatever it holds."""
        if self._cluster.pids:
            self.resume()

    async def forget(self) -> None:
        """Delete the topics, and return when they are gone."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.options["bootstrap_servers"])
        await admin.start()
        try:
            await admin.delete_topics(list(SPECS))
            await until(partial(_have_none, admin))
        finally:
            await admin.close()


async def _have_none(admin: AIOKafkaAdminClient) -> bool:
    return all(topic["error_code"] for topic in await admin.describe_topics(list(SPECS)))


async def new_broker(kind: str, request: pytest.FixtureRequest, folder: Path) -> Broker:
    """A broker that runs and has no topics: one of its own, or the run's Kafka. Call `release` afterwards."""
    if kind == "embedded":
        embedded = Broker(folder)
        embedded.start()
        return embedded
    kafka = KafkaBroker(request.getfixturevalue("kafka"))
    kafka.start()
    await kafka.forget()
    return kafka


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds; TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while True:
            result = holds()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.05)
