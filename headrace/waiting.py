"""How many records of accepted events wait on a log that keeps: what lies between the ledger's end and the log's.

Such a log may have more than its collectors know of: a record whose acknowledgement was lost is there all the same. So
what is accepted is counted from the log's side, and never twice.
"""

from collections.abc import Mapping
from typing import Final

from headrace.log_identity import find_log_id, read_ends
from schemas.settings import BrokerSettings
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse

#: By log id and partition: the offset after the last block of the ledger.
Positions = Mapping[tuple[str, int], int]
_POSITIONS: Final = (
    "SELECT logId, partition, max(end) FROM blocks WHERE topic = {topic:String} GROUP BY logId, partition"
)


def read_positions(client: ClickHouse) -> Positions:
    """How far the ledger is. Read it before anything it is compared with: what comes between then shows as waiting."""
    rows = client.rows(_POSITIONS, {"topic": COLLECTED})
    return {(str(log_id), int(partition)): int(end) for log_id, partition, end in rows}


async def count_waiting(broker: BrokerSettings, positions: Positions) -> int:
    """Records on the log that the ledger had not at `positions`. Raises BrokerUnavailable."""
    log_id = await find_log_id(broker)
    ends = await read_ends(broker, COLLECTED)
    return sum(
        max(end - max(first, positions.get((log_id, partition), 0)), 0) for partition, (first, end) in ends.items()
    )
