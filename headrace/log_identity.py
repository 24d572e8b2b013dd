"""What the broker says of the log: its identity, so that offsets of two logs are never mistaken, and its extent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError

from headrace.topic_metadata import TopicsRequest
from schemas.fit import LogExtent
from schemas.settings import BrokerSettings
from schemas.topics import SPECS as TOPICS

#: What older Redpanda says until it has an identity.
_REDPANDA_UNSET: Final = "redpanda.initializing"
_At = TypeVar("_At", bound=tuple[str, int])


class BrokerUnavailable(Exception):
    """The broker does not answer; the message names its address."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now: the cluster it is of, its own id (empty where brokers give none), its partitions."""

    cluster: str
    topic_id: str
    partitions: int


async def describe_topics(broker: BrokerSettings) -> Mapping[str, Topic]:
    """Every topic of the log. Raises BrokerUnavailable, also where a topic is missing."""
    answer = await _ask(broker, TopicsRequest(list(TOPICS)))
    cluster = broker.log_id or answer["cluster_id"]
    if not cluster or cluster == _REDPANDA_UNSET:
        raise BrokerUnavailable(f"The broker at {broker.broker} has no cluster id: set HEADRACE_LOG_ID.")
    found = {
        topic["topic"]: Topic(cluster, _text(topic.get("topic_id")), len(topic["partitions"]))
        for topic in answer["topics"]
        if topic["partitions"]
    }
    for name in TOPICS:
        if name not in found:
            raise BrokerUnavailable(f"The broker at {broker.broker} has no topic {name}: run `headrace migrate`.")
    return found


def _text(topic_id: Any) -> str:
    return str(topic_id) if topic_id is not None and topic_id.int else ""


async def _ask(broker: BrokerSettings, request: TopicsRequest) -> dict[str, Any]:
    options = broker.client_options()
    hosts, failed = collect_hosts(options.pop("bootstrap_servers")), KafkaError("no address")
    for host, port, _ in hosts:
        try:
            connection = await create_conn(host, port, client_id="headrace", request_timeout_ms=10_000, **options)
            try:
                answer: dict[str, Any] = (await connection.send(request)).to_object()
                return answer
            finally:
                await connection.close()
        except (KafkaError, OSError, TimeoutError) as error:
            failed = error
    raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {failed!r}.") from failed


async def read_extents(broker: BrokerSettings, partitions: Iterable[_At]) -> Mapping[_At, LogExtent]:
    """What the log holds of these (topic, number). Raises BrokerUnavailable."""
    asked = {TopicPartition(*at): at for at in partitions}
    if not asked:
        return {}
    consumer = AIOKafkaConsumer(**broker.client_options(), enable_auto_commit=False)
    try:
        await consumer.start()
        begins, ends = await consumer.beginning_offsets(list(asked)), await consumer.end_offsets(list(asked))
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {error!r}.") from error
    finally:
        await consumer.stop()
    return {at: LogExtent(begins[tp], ends[tp]) for tp, at in asked.items()}
