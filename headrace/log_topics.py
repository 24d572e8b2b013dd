"""The topics of a log that keeps: created, and given more partitions, as the settings say."""

from headrace.waiting import Positions, count_waiting
from schemas.settings import BrokerSettings
from schemas.topics import COLLECTED, SPECS, TopicError, ensure_topics, grow_topics


async def ensure_set_topics(broker: BrokerSettings, timeout: float) -> dict[str, int]:
    """Create the topics that are missing and return the partitions that each has; raises TopicError.

    `timeout` is in seconds.
    """
    return await ensure_topics(
        broker.broker,
        dict.fromkeys(SPECS, broker.partitions),
        {"retention.ms": str(broker.topic_retention_minutes * 60_000)},
        timeout,
        replication_factor=broker.replication_factor,
        client_options=broker.client_options(),
    )


async def grow_set_topics(broker: BrokerSettings, positions: Positions, timeout: float) -> dict[str, int]:
    """Give the topics that have fewer partitions than set so many, and return what each has.

    With another number of partitions a visitor's next events may be in another partition than its last ones. So the log
    must have nothing that the ledger, at `positions`, has not. Raises TopicError and BrokerUnavailable.
    """
    if waiting := await count_waiting(broker, positions):
        raise TopicError(
            f"{waiting} records of {COLLECTED} are not stored yet, so its partitions are left as they are; "
            "stop the collectors, let the workers store what is there, and try again."
        )
    return await grow_topics(dict.fromkeys(SPECS, broker.partitions), timeout, broker.client_options())
