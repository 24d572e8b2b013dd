"""The topics of the log: their names, and how they come to exist."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError

COLLECTED = "events.collected"
DEAD_LETTER = "events.dead_letter"

PARTITIONS = 4
"""Partitions of a topic where no setting says otherwise. A partition is the unit that workers share out."""

MAX_RECORD_BYTES = 1_000_000
"""Bytes of a record with key and value that every broker with default limits takes, alone in its batch."""

RECORD_OVERHEAD = 32
"""What a record adds to a batch besides key and value, at most."""

SPECS: Mapping[str, int] = {COLLECTED: PARTITIONS, DEAD_LETTER: PARTITIONS}

_LOOK_AGAIN = 0.05
_TRY_AGAIN = 1.0  # seconds after which a broker that did not answer is asked again


class TopicError(Exception):
    """The broker refused a topic, or did not serve it in time."""


async def ensure_topics(
    bootstrap: str,
    specs: Mapping[str, int],
    config: Mapping[str, str],
    timeout: float,
    *,
    replication_factor: int = 1,
    client_options: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Create the topics that are missing and wait until every partition has a leader.

    `specs` maps a topic to its partitions, `config` holds Kafka topic settings for the new ones, `timeout` is in
    seconds, `client_options` are further arguments of aiokafka's clients (SASL, TLS). A topic that exists is left as it
    is: the answer maps each topic to the partitions it really has. Calling it again, or from several processes at once,
    is harmless.

    Raises TopicError where the broker cannot be reached, refuses a topic or has not served it in time.
    """
    async with _admin({**(client_options or {}), "bootstrap_servers": bootstrap}, specs, timeout) as admin:
        await _create(admin, [_new_topic(name, n, replication_factor, config) for name, n in specs.items()])
        return await _partitions(admin, list(specs))


async def grow_topics(specs: Mapping[str, int], timeout: float, client_options: Mapping[str, Any]) -> dict[str, int]:
    """Give topics that have fewer partitions than `specs` says so many; the answer, and what is raised, as above.

    A visitor whose partition changes has its events in two of them: only for a topic all of whose records are stored.
    """
    async with _admin(client_options, specs, timeout) as admin:
        found = await _partitions(admin, list(specs))
        wanted = {name: NewPartitions(count) for name, count in specs.items() if found[name] < count}
        if wanted:
            await admin.create_partitions(wanted)
        while any(count < specs[name] for name, count in found.items()):
            found = await _partitions(admin, list(specs))
        return found


@asynccontextmanager
async def _admin(
    client_options: Mapping[str, Any], topics: Collection[str], timeout: float
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for `timeout` seconds, of which it may wait for the broker; what goes wrong is a TopicError."""
    admin, bootstrap = AIOKafkaAdminClient(**client_options), client_options["bootstrap_servers"]
    answers = False
    try:
        async with asyncio.timeout(timeout):
            while not answers:
                answers = await _starts(admin)
            yield admin
    except TimeoutError:
        if not answers:
            raise TopicError(
                f"No broker answered at {bootstrap} within {timeout:g} s, for the topics {', '.join(topics)}; "
                "check the address, and that the broker runs."
            ) from None
        raise TopicError(
            f"The broker at {bootstrap} did not serve the topics {', '.join(topics)} within {timeout:g} s; "
            "look at its log, or allow more time."
        ) from None
    except KafkaError as error:
        raise TopicError(
            f"The topics {', '.join(topics)} could not be created at {bootstrap}: {error}; "
            "check the address, the credentials and the replication factor."
        ) from error
    finally:
        await admin.close()


async def _starts(admin: AIOKafkaAdminClient) -> bool:
    """Whether the broker answers; where it does not, it may be starting: some time has passed then."""
    try:
        await admin.start()
    except KafkaConnectionError:
        await asyncio.sleep(_TRY_AGAIN)
        return False
    return True


def _new_topic(name: str, partitions: int, replication_factor: int, config: Mapping[str, str]) -> NewTopic:
    return NewTopic(name, partitions, replication_factor, topic_configs=dict(config))


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    answer = await admin.create_topics(topics)
    for topic, code, message in answer.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicError(f"The broker refused the topic {topic}: {message or f'error {code}'}.")


async def _partitions(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    while True:
        topics = await admin.describe_topics(names)
        if all(_is_served(topic) for topic in topics):
            return {topic["topic"]: len(topic["partitions"]) for topic in topics}
        await asyncio.sleep(_LOOK_AGAIN)


def _is_served(topic: Mapping[str, Any]) -> bool:
    partitions = topic["partitions"]
    return bool(partitions) and all(partition["leader"] >= 0 for partition in partitions)
