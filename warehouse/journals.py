"""How far ClickHouse has stored a collector's journal, so that the collector can let go of it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.blocks import journal_key
from warehouse.client import ClickHouse

#: Blocks become visible in order of `storedAt`, but for the time that an insert takes.
_OVERLAP: Final = timedelta(minutes=10)
_STORED: Final = """
SELECT partition, max(journals[{journal:String}]), max(storedAt) FROM blocks
WHERE topic = {topic:String} AND storedAt >= {since:DateTime64(3)} AND mapContains(journals, {journal:String})
GROUP BY partition
"""


class StoredSequences:
    """The highest sequence of one journal that each (topic, partition) has in the ledger; only new blocks are read.

    A topic that has another number of partitions than when they were stored begins with none: a record may be in
    another partition now.
    """

    def __init__(self, client: ClickHouse, journal: str) -> None:
        self._client = client
        self._journal = journal
        self._known: dict[str, dict[int, int]] = {}  # by topic and number of partitions
        self._since: dict[str, datetime] = {}

    def read(self, partitions: Mapping[str, int]) -> Mapping[tuple[str, int], int]:
        """Bring up to date and return, for topics of so many partitions. Raises ClickHouseUnavailable."""
        return {
            (topic, number): sequence
            for topic, count in partitions.items()
            for number, sequence in self._read_topic(topic, count).items()
        }

    def _read_topic(self, topic: str, count: int) -> Mapping[int, int]:
        key = f"{topic}/{count}"
        known, since = self._known.setdefault(key, {}), self._since.get(key, datetime.fromtimestamp(0, UTC))
        where = {"journal": journal_key(self._journal, count), "topic": topic, "since": since}
        for number, sequence, stored_at in self._client.rows(_STORED, where):
            known[number] = max(int(sequence), known.get(number, 0))
            since = max(since, stored_at.replace(tzinfo=UTC) - _OVERLAP)
        self._since[key] = since
        return known
