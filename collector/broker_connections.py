"""Connections to the brokers, one a broker, and what the brokers say about topics.

A connection is never replaced behind the caller's back. A broker process that dies takes its connections with it, so
as long as a connection lives, the process that acknowledged over it still holds what it acknowledged; `on_drop` tells
when one ends.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError, LeaderNotAvailableError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition


class BrokerConnections:
    """Connections that are opened when asked for, and the leaders of partitions as of the last `refresh`.

    `options` are those of `BrokerSettings.client_options()`, `timeout` is in seconds for each connect and request.
    """

    def __init__(self, options: Mapping[str, Any], timeout: float, on_drop: Callable[[], None]) -> None:
        self._bootstrap: str = options["bootstrap_servers"]
        self._options = {name: value for name, value in options.items() if name != "bootstrap_servers"}
        self._options |= {"client_id": "headrace-collector", "request_timeout_ms": int(timeout * 1000)}
        self._on_drop = on_drop
        self._cluster = ClusterMetadata()
        self._connections: dict[int, AIOKafkaConnection] = {}
        self._topics: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 where it is not known."""
        return len(self._cluster.partitions_for_topic(topic) or ())

    def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition; -1 where none is known."""
        leader: int | None = self._cluster.leader_for_partition(TopicPartition(topic, partition))
        return -1 if leader is None else leader

    async def connection(self, node: int) -> AIOKafkaConnection:
        """The open connection to a broker, opened if there is none. Raises KafkaError, OSError or TimeoutError."""
        known = self._connections.get(node)
        if known is not None and known.connected():
            return known
        self.drop(node)
        broker = self._cluster.broker_metadata(node)
        if broker is None:
            raise LeaderNotAvailableError("No broker leads the partition.")
        opened = await create_conn(broker.host, broker.port, on_close=self._dropped, **self._options)
        self._connections[node] = opened
        return opened

    def drop(self, node: int) -> None:
        """Close the connection to a broker, if there is one."""
        connection = self._connections.pop(node, None)
        if connection is not None:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)

    async def refresh(self, *topics: str) -> None:
        """Ask for the leaders of these and all earlier topics. Callers at the same time share one request.

        Raises KafkaConnectionError when no broker answers.
        """
        if not self._topics.issuperset(topics) and self._refreshing is not None:
            # The request under way does not ask for a new topic; what becomes of it is its own callers' concern.
            await asyncio.wait((self._refreshing,))
        self._topics.update(topics)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        known = [(broker.host, broker.port) for broker in self._cluster.brokers()]
        seeds = [(host, port) for host, port, _ in collect_hosts(self._bootstrap)]
        for host, port in dict.fromkeys(seeds + known):
            try:
                return await self._ask(host, port)
            except (KafkaError, OSError, TimeoutError):
                continue
        raise KafkaConnectionError(f"No broker answers at {self._bootstrap}.")

    async def _ask(self, host: str, port: int) -> None:
        connection = await create_conn(host, port, **self._options)
        try:
            request = MetadataRequest(sorted(self._topics), allow_auto_topic_creation=False)
            self._cluster.update_metadata(await connection.send(request))
        finally:
            await connection.close()

    def _dropped(self, _connection: AIOKafkaConnection, _reason: CloseReason) -> None:
        self._on_drop()

    async def close(self) -> None:
        """Close every connection; one that cannot send what it still holds is left behind after a second."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        closing = [future for connection in self._connections.values() if (future := connection.close())]
        self._connections.clear()
        if closing:
            await asyncio.wait(closing, timeout=1.0)
