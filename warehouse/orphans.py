"""Takes over blocks that an earlier log left half written when it was lost with its broker."""

from collections.abc import Mapping, Set
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas.blocks import Accounts, Block, BlockRows, Partition, StoreUnavailable
from schemas.stages import EVENT_COLUMNS, runs_of
from warehouse.blocks import ClickHouseBlockStore
from warehouse.client import ClickHouse, ClickHouseUnavailable

# Both tables are sorted by topic, partition and log: of the log that is there now, a month's blocks are passed over.
_LOST: Final = "topic = {topic:String} AND partition = {number:UInt32} AND logId != {log:String}"
_UNFINISHED: Final = f"""
SELECT logId, start, argMin(end, claimedAt) FROM block_claims
WHERE {_LOST} AND (logId, start) NOT IN (SELECT logId, start FROM blocks WHERE {_LOST})
GROUP BY logId, start
"""
_EVENT_COLUMNS: Final = ", ".join(
    f"toUnixTimestamp64Milli({name})" if name in ("timestamp", "receivedAt") else name for name in EVENT_COLUMNS
)
_IN_BLOCK: Final = (
    "logId = {log:String} AND logPartition = {number:UInt32} "
    "AND logOffset >= {start:UInt64} AND logOffset < {end:UInt64}"
)
_FORGET_LETTERS: Final = (
    "DELETE FROM dead_letters WHERE source = 'streams' AND logId = {log:String} AND topic = {topic:String} "
    "AND partition = {number:Int32} AND offset >= {start:Int64} AND offset < {end:Int64}"
)
#: An adopted block has a row in the ledger that counts nothing: its events count where their records come again.
_ADOPTED: Final = f"SELECT logId, start, end FROM blocks WHERE {_LOST} AND records = 0"
_ADOPTED_EVENTS: Final = f"SELECT companyId, eventId, journal, sequence FROM events WHERE {_IN_BLOCK}"


class ClickHouseOrphans:
    """The OrphanStore of production and of `headrace up`."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client
        self._blocks = ClickHouseBlockStore(client)

    def adopt(self, partition: Partition, journals: Mapping[str, int]) -> Set[tuple[str, str]]:
        """Complete unfinished blocks of other logs; their events whose records are still to come again."""
        where = {"log": partition.log_id, "topic": partition.topic, "number": partition.number}
        try:
            for log_id, start, end in self._client.rows(_UNFINISHED, where):
                self._complete(Block(Partition(log_id, partition.topic, partition.number), int(start), int(end)))
            blocks = self._client.rows(_ADOPTED, where)
            return {
                (company, event)
                for log_id, start, end in blocks
                for company, event, journal, sequence in self._client.rows(
                    _ADOPTED_EVENTS, {"log": log_id, "number": partition.number, "start": start, "end": end}
                )
                if journal and sequence > journals.get(journal, -1)
            }
        except (ClickHouseUnavailable, ClickHouseError) as error:
            raise StoreUnavailable(str(error)) from error

    def _complete(self, block: Block) -> None:
        """Insert the rows that are there once more under their tokens: it fills the views that missed them."""
        partition = block.partition
        where: dict[str, Any] = {"log": partition.log_id, "number": partition.number}
        where |= {"start": block.start, "end": block.end}
        rows = self._client.rows(f"SELECT {_EVENT_COLUMNS} FROM events WHERE {_IN_BLOCK}", where)
        self._blocks.write(block, BlockRows(events=runs_of(rows)))
        self._client.command(_FORGET_LETTERS, {**where, "topic": partition.topic})
        self._blocks.finish(block, Accounts(), worker="adopted")
