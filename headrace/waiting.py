"""How many records of accepted events wait on a log that keeps: what lies between the ledger's end and the log's.

Such a log may have more than its collectors know of: a record whose acknowledgement was lost is there all the same. So
what is accepted is counted from the log's side, and never twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from headrace.log_identity import describe_topics, read_extents
from schemas.settings import BrokerSettings
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse

_ENDS: Final = "SELECT logId, partition, max(end) FROM blocks WHERE topic = {topic:String} GROUP BY logId, partition"
_LOG_IDS: Final = "SELECT clusterId, argMax(logId, number) FROM logs WHERE topic = {topic:String} GROUP BY clusterId"


@dataclass(frozen=True, slots=True)
class Positions:
    """By log id and partition, the offset after the last block of the ledger; and the log id of each cluster."""

    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)
    log_ids: Mapping[str, str] = field(default_factory=dict)


def read_positions(client: ClickHouse) -> Positions:
    """How far the ledger is. Read it before anything it is compared with: what comes between then shows as waiting."""
    where = {"topic": COLLECTED}
    ends = {(str(log_id), int(number)): int(end) for log_id, number, end in client.rows(_ENDS, where)}
    return Positions(ends, dict(client.rows(_LOG_IDS, where)))


async def count_waiting(broker: BrokerSettings, positions: Positions) -> int:
    """Records on the log that the ledger had not at `positions`. Raises BrokerUnavailable."""
    topic = (await describe_topics(broker))[COLLECTED]
    log_id = positions.log_ids.get(topic.cluster, topic.cluster)
    extents = await read_extents(broker, [(COLLECTED, number) for number in range(topic.partitions)])
    return sum(
        max(extent.end - max(extent.begin, positions.ends.get((log_id, number), 0)), 0)
        for (_, number), extent in extents.items()
    )
