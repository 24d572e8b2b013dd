"""Records straight to the log: what the collector acknowledges, the log has acknowledged."""

from collections.abc import Sequence
from typing import Final, cast

from collector.log_client import LogClient, RecordTooLarge
from collector.partition_queue import LogUnavailable
from collector.sink import Outgoing, SinkUnavailable
from schemas.codec import Codec
from schemas.records import CollectedRecord, DeadLetter
from schemas.topics import DEAD_LETTER, MAX_RECORD_BYTES, RECORD_OVERHEAD

RETRY_AFTER: Final = 5  # seconds


def encode_record(codec: Codec, outgoing: Outgoing, journal: str, sequence: int) -> tuple[bytes, bytes]:
    """Key and value of a record as number `sequence` of a journal ('' and 0: of none).

    Raises RecordTooLarge when no broker with default limits would take it.
    """
    record = outgoing.record
    record["journal"], record["sequence"] = journal, sequence
    if outgoing.topic == DEAD_LETTER:
        value = codec.encode_dead_letter(cast(DeadLetter, record))
    else:
        value = codec.encode_collected(cast(CollectedRecord, record))
    key = outgoing.key.encode()
    if len(key) + len(value) + RECORD_OVERHEAD > MAX_RECORD_BYTES:
        raise RecordTooLarge(f"A record for {outgoing.topic} has {len(value)} bytes; the log takes {MAX_RECORD_BYTES}.")
    return key, value


class KafkaSink:
    """Sends without a journal: what the log does not acknowledge in time is refused."""

    def __init__(self, log: LogClient, codec: Codec) -> None:
        self._log, self._codec = log, codec

    async def send(self, records: Sequence[Outgoing]) -> None:
        """As in Sink; raises RecordTooLarge too, before anything is sent."""
        encoded = [(outgoing.topic, *encode_record(self._codec, outgoing, "", 0)) for outgoing in records]
        try:
            for acknowledged in [await self._log.append(*record) for record in encoded]:
                await acknowledged
        except LogUnavailable as error:
            raise SinkUnavailable(f"The log does not acknowledge: {error}", RETRY_AFTER) from error

    def ready(self) -> bool:
        """Whether the log acknowledged the last batch."""
        return self._log.available

    async def close(self) -> None:
        """Finish what is under way and close the connections."""
        await self._log.close(self._log.ack_seconds)
