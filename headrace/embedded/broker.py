"""The embedded broker: noida-db, a Kafka-compatible server that a wheel carries, as one child process.

It keeps the log in memory, so a log lives exactly as long as its process. Every start is a new log with a new identity,
which the broker itself reports: its cluster id is the log id.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

HOST = "127.0.0.1"

TOPIC_CONFIG: Mapping[str, str] = {"retention.bytes": str(64 << 20), "segment.bytes": str(1 << 20)}
"""Bounds what a topic may hold, 64 MiB a partition, when nobody stores it;
the collector keeps back what would be more. Only whole segments are freed, hence the
small ones. In ordinary running `drop_committed` keeps far less."""

SNAPSHOT = "kafka.json"
SNAPSHOT_DRAFT = "kafka.tmp"
"""Where the broker writes its next snapshot before it takes the last one's place. It is a pipe that nobody reads, so
that the thread which writes snapshots, and nothing else, waits for ever: about once a second it would write all that
the log holds as JSON, which no log of ours is ever read back from. That was nine tenths of the broker's work."""

_LOOK_AGAIN = 0.05


class BrokerError(Exception):
    """The embedded broker cannot be used.

    ├── BrokerMissing
    └── BrokerNotReady
    """


class BrokerMissing(BrokerError):
    """No broker program is installed."""


class BrokerNotReady(BrokerError):
    """The broker did not answer in time, or another log answers in its place."""


class EmbeddedBroker:
    """One embedded broker: `prepare` a log, spawn `command()`, `wait_ready`.

    End it with SIGKILL: on SIGTERM it would wait for its snapshot to be written, which never is. It listens on
    127.0.0.1 only: on `port`, and on a port of its own choice for its control command, which asks for a token from
    `data_dir`. `data_dir` belongs to the broker alone and is emptied by `prepare`.
    """

    def __init__(self, data_dir: Path, port: int) -> None:
        self._data_dir = data_dir
        self._port = port
        self._log_id = ""

    @property
    def address(self) -> str:
        """What clients take as bootstrap server."""
        return f"{HOST}:{self._port}"

    def prepare(self, log_id: UUID) -> None:
        """Forget the previous log and name the next one; call it before every spawn, while no broker runs.

        A broker that was killed would come back about a second behind what it had acknowledged, with offsets that were
        used before: worse than an empty one.
        """
        shutil.rmtree(self._data_dir, ignore_errors=True)
        self._data_dir.mkdir(mode=0o700, parents=True)
        self._log_id = str(log_id)
        (self._data_dir / SNAPSHOT).write_text(json.dumps(_empty_log(log_id, self._port)))
        os.mkfifo(self._data_dir / SNAPSHOT_DRAFT)

    def command(self) -> list[str]:
        """The command line to spawn. Raises BrokerMissing."""
        options = {"--only": "kafka", "--host": HOST, "--kafka-port": self._port, "--data-dir": self._data_dir}
        return [str(find_binary()), "start", *(str(part) for option in options.items() for part in option)]

    async def wait_ready(self, timeout: float) -> None:
        """Return once the prepared log answers a metadata request; raise BrokerNotReady after `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout) as limit:
                while not limit.expired():  # its one cancellation may come where aiokafka swallows it
                    if await self._is_ready():
                        return
                    await asyncio.sleep(_LOOK_AGAIN)
        raise BrokerNotReady(
            f"The embedded broker did not serve log {self._log_id} at {self.address} within {timeout:g} s; look at its "
            "output, and whether another program holds the port."
        )

    def is_ready(self) -> bool:
        """Whether the prepared log answers a metadata request now. Not to be called on an event loop's thread."""
        return asyncio.run(self._is_ready())

    async def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self._port), timeout=1):  # aiokafka logs an error for a closed port
                pass
            return await read_log_id(self.address) == self._log_id
        except (OSError, KafkaError):
            return False

    async def drop_committed(self, group: str) -> dict[TopicPartition, int]:
        """Free the records below `group`'s committed offsets and answer those offsets; call it about once a second.

        Raises KafkaError where the broker is away.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(group)
            committed = {tp: at.offset for tp, at in offsets.items() if at.offset > 0}
            if committed:
                await admin.delete_records({tp: RecordsToDelete(before_offset=at) for tp, at in committed.items()})
            return committed
        finally:
            await admin.close()

    async def members(self, group: str) -> dict[str, str]:
        """The ids of the members of `group`, each with its client's name. Raises KafkaError and OSError."""
        async with self._connection() as connection:
            return await _members(connection, group)

    async def remove_member(self, group: str, client: str) -> None:
        """Take the members of a client that has ended out of `group`.

        While a group forms anew, the broker waits for every member of before until the rebalance times out, also for
        those whose sessions have expired. Raises KafkaError and OSError where the broker is away.
        """
        async with self._connection() as connection:
            for member, name in (await _members(connection, group)).items():
                if name == client:
                    await connection.send(LeaveGroupRequest(group, member))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AIOKafkaConnection]:
        connection = await create_conn(HOST, self._port, client_id="headrace")
        try:
            yield connection
        finally:
            await connection.close()


async def _members(connection: AIOKafkaConnection, group: str) -> dict[str, str]:
    (described,) = (await connection.send(DescribeGroupsRequest([group]))).to_object()["groups"]
    return {member["member_id"]: member["client_id"] for member in described["members"]}


def find_binary(package: str = "noida_db") -> Path:
    """The broker program inside the installed wheel; raises BrokerMissing."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        binary = Path(folder) / "noida-db"
        if binary.is_file():
            return binary
    raise BrokerMissing(
        f"The embedded broker is not installed: no program in the Python package {package}; "
        "install noida-db==0.2.3 for this platform, or point Headrace at a Kafka broker of your own."
    )


async def read_log_id(bootstrap: str) -> str:
    """The cluster id of the broker at `bootstrap`; of an embedded one, its log id. Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()


def _empty_log(log_id: UUID, port: int) -> dict[str, object]:
    """The broker's own snapshot format, with no topics.

    Topics are never created by a client's metadata request, which would give them one partition. Producer ids start at
    a number of this log's own, so that an idempotent producer of the previous log is refused, not taken for another.
    """
    return {
        "topics": [],
        "broker_id": 1,
        "host": HOST,
        "port": port,
        "cluster_id": str(log_id),
        "next_producer_id": log_id.int >> 80,
        "committed_offsets": [],
        "offset_metadata": [],
        "broker_configs": {"auto.create.topics.enable": "false"},
    }
