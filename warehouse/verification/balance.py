"""What the ledger accounts for, to be balanced against what collectors accepted."""

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.codec import Codec, UndecodableRecord
from schemas.topics import COLLECTED
from warehouse.client import ClickHouse

_TOTALS: Final = f"""
SELECT sum(stored), sum(duplicate), sum(dead),
    toUnixTimestamp64Milli(minIf(firstReceivedAt, toUnixTimestamp64Milli(firstReceivedAt) > 0))
FROM blocks WHERE topic = '{COLLECTED}'
"""
_WHOLE_RECORDS: Final = f"""
SELECT base64Encode(payload) FROM dead_letters FINAL
WHERE source = 'streams' AND topic = '{COLLECTED}' AND position = -1
"""


@dataclass(frozen=True, slots=True)
class Accounted:
    """Events of the ledger; `first_received_at` is in ms, 0 where there is none.

    `dead` counts the events of a record that died whole, which the ledger counts as one.
    """

    stored: int
    duplicate: int
    dead: int
    first_received_at: int

    @property
    def events(self) -> int:
        """Every event that is accounted for."""
        return self.stored + self.duplicate + self.dead


def read_accounted(client: ClickHouse, codec: Codec) -> Accounted:
    """The ledger's totals over all logs."""
    stored, duplicate, dead, first = client.rows(_TOTALS)[0]
    records = [b64decode(row[0]) for row in client.rows(_WHOLE_RECORDS)]
    whole = _count_events(records, codec) - len(records)
    return Accounted(int(stored), int(duplicate), int(dead) + whole, int(first))


def _count_events(records: Iterable[bytes], codec: Codec) -> int:
    """The events in these records; what does not decode was not a collector's, and holds none that was accepted."""
    count = 0
    for record in records:
        try:
            count += len(codec.decode_collected(record)["events"])
        except UndecodableRecord:
            continue
    return count
