"""The topics of a log that keeps, created as the settings say."""

from schemas.settings import BrokerSettings
from schemas.topics import SPECS, ensure_topics


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
