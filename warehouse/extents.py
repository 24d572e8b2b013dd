"""How far the ledger of a partition reaches, and how it is mended where it does not fit the log."""

from typing import Any, Final

from schemas.blocks import Accounts, Block, Partition
from schemas.fit import LedgerExtent
from warehouse.blocks import ClickHouseBlockStore
from warehouse.client import ClickHouse, available

_OURS: Final = "logId = {log:String} AND topic = {topic:String} AND partition = {number:UInt32}"
_EXTENT: Final = f"SELECT count(), min(start), max(end), sum(end - start) FROM blocks WHERE {_OURS}"
_CLAIMED: Final = f"SELECT count(), argMin(end, claimedAt) FROM block_claims WHERE {_OURS} AND start = {{start:UInt64}}"
_HOLES: Final = f"""
SELECT before, start FROM (
    SELECT start, lagInFrame(toNullable(end)) OVER (ORDER BY start) AS before FROM blocks WHERE {_OURS}
)
WHERE before < start
"""
_WRITTEN: Final = (
    "SELECT count() FROM events WHERE logId = {log:String} AND logPartition = {number:UInt32} "
    "AND logOffset >= {start:UInt64}"
)
REPAIRED: Final = "repair"  # the worker that the ledger names for what no worker wrote


class ClickHouseExtents:
    """Reads and mends the ledger. Raises StoreUnavailable."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client

    def read(self, partition: Partition) -> LedgerExtent:
        """The partition's extent now."""
        where = _where(partition)
        blocks, start, end, covered = map(int, self._rows(_EXTENT, where)[0])
        claims, claimed = map(int, self._rows(_CLAIMED, {**where, "start": end})[0])
        return LedgerExtent(blocks, start, end, covered, claimed if claims else None)

    def fill_gaps(self, partition: Partition, log_begin: int) -> list[Block]:
        """Put a block that holds nothing where blocks are missing, up to the log's beginning; answer those blocks."""
        holes = [(int(start), int(end)) for start, end in self._rows(_HOLES, _where(partition))]
        end = self.read(partition).end
        if log_begin > end:
            holes.append((end, log_begin))
        blocks = [Block(partition, start, end) for start, end in holes]
        for block in blocks:
            # A row that was lost may have left its token behind: this one is another's.
            ClickHouseBlockStore(self._client).finish(block, Accounts(), REPAIRED, token_suffix=f"/{REPAIRED}")
        return blocks

    def replace_claim(self, partition: Partition) -> bool:
        """Replace the damaged claim at the ledger's end by one of the single record there.

        False, and nothing is done, where rows of that block are stored: with another end they would be stored again.
        """
        start = self.read(partition).end
        where = {**_where(partition), "start": start}
        if int(self._rows(_WRITTEN, where)[0][0]):
            return False
        delete = f"DELETE FROM block_claims WHERE {_OURS} AND start = {{start:UInt64}}"
        available(lambda: self._client.command(delete, where))
        block = Block(partition, start, start + 1)
        ClickHouseBlockStore(self._client).claim(block, REPAIRED, token_suffix=f"/{REPAIRED}")
        return True

    def _rows(self, sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        return available(lambda: self._client.rows(sql, parameters))


def _where(partition: Partition) -> dict[str, Any]:
    return {"log": partition.log_id, "topic": partition.topic, "number": partition.number}
