"""A real Kafka-compatible broker for tests, on a free port, that can be killed and started again without its memory."""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import noida_db
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import PARTITIONS, SPECS, ensure_topics


class Broker:
    """One noida-db process; it begins empty at every start."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
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

    def suspend(self, signal: int) -> None:
        """Send SIGSTOP or SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal)

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


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds; TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while True:
            result = holds()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.05)
