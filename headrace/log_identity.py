"""What the broker says of the log: its identity, so that offsets of two logs are never mistaken, and its partitions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.settings import BrokerSettings
from schemas.topics import SPECS as TOPICS

#: What older Redpanda says until it has an identity.
_REDPANDA_UNSET: Final = "redpanda.initializing"


class BrokerUnavailable(Exception):
    """The broker does not answer; the message names its address."""


async def find_log_id(broker: BrokerSettings) -> str:
    """HEADRACE_LOG_ID where it is set, else the broker's cluster id. Raises BrokerUnavailable."""
    if broker.log_id:
        return broker.log_id
    async with _connected(broker) as admin:
        identity = (await admin.describe_cluster()).get("cluster_id")
    if not identity or identity == _REDPANDA_UNSET:
        raise BrokerUnavailable(f"The broker at {broker.broker} has no cluster id: set HEADRACE_LOG_ID.")
    return str(identity)


async def count_partitions(broker: BrokerSettings) -> Mapping[str, int]:
    """How many partitions each topic has now. Raises BrokerUnavailable."""
    async with _connected(broker) as admin:
        topics = await admin.describe_topics(list(TOPICS))
    return {topic["topic"]: len(topic["partitions"]) for topic in topics}


async def read_ends(broker: BrokerSettings, topic: str) -> Mapping[int, tuple[int, int]]:
    """The first offset that each partition still has, and the one after its last. Raises BrokerUnavailable."""
    consumer = AIOKafkaConsumer(topic, **broker.client_options(), enable_auto_commit=False)
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        firsts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {at.partition: (firsts[at], ends[at]) for at in partitions}
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {error!r}.") from error
    finally:
        await consumer.stop()


@asynccontextmanager
async def _connected(broker: BrokerSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**broker.client_options())
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {error!r}.") from error
    finally:
        await admin.close()
