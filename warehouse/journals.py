"""How far ClickHouse has stored a collector's journal, so that the collector can let go of it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from warehouse.client import ClickHouse

#: Blocks become visible in order of `storedAt`, but for the time that an insert takes.
_OVERLAP: Final = timedelta(minutes=10)
_STORED: Final = """
SELECT topic, partition, max(journals[{journal:String}]), max(storedAt) FROM blocks
WHERE storedAt >= {since:DateTime64(3)} AND mapContains(journals, {journal:String}) GROUP BY topic, partition
"""


class StoredSequences:
    """The highest sequence of one journal that each (topic, partition) has in the ledger; only new blocks are read."""

    def __init__(self, client: ClickHouse, journal: str) -> None:
        self._client = client
        self._journal = journal
        self._known: dict[tuple[str, int], int] = {}
        self._since = datetime.fromtimestamp(0, UTC)

    def read(self) -> Mapping[tuple[str, int], int]:
        """Bring up to date and return. Raises ClickHouseUnavailable."""
        rows = self._client.rows(_STORED, {"journal": self._journal, "since": self._since})
        for topic, partition, sequence, stored_at in rows:
            self._known[topic, partition] = max(int(sequence), self._known.get((topic, partition), 0))
            self._since = max(self._since, stored_at.replace(tzinfo=UTC) - _OVERLAP)
        return self._known
