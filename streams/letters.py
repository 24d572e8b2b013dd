"""Dead letters: sent to their topic by the pipeline, and stored from there where the collector sent them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.blocks import BlockRows, Found, Lookup, StoreUnavailable
from schemas.codec import Codec, UndecodableRecord
from schemas.identifiers import record_key
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.stages import LogRecord, Rejection
from schemas.topics import DEAD_LETTER, MAX_RECORD_BYTES, RECORD_OVERHEAD
from streams.core.rows import dead_letter
from streams.core.state import PartitionState
from streams.core.validate import Rules
from streams.prepared import Prepared, Settled

_BATCH_BYTES: Final = 256 << 10  # before they are compressed
_partition_of: Final = DefaultPartitioner()


class LetterLog(Protocol):
    """Sends dead letters; returns once the log has acknowledged all of them, raises StoreUnavailable if it is away."""

    async def send(self, letters: Sequence[DeadLetter]) -> None: ...

    async def close(self) -> None: ...


class KafkaLetterLog:
    """The LetterLog on `events.dead_letter`, acknowledged by all replicas."""

    def __init__(self, codec: Codec, client_options: Mapping[str, Any]) -> None:
        self._codec = codec
        self._options = client_options
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()  # the writers of all partitions share the producer

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Send all, wait for all. In batches made here, which costs less than a letter by itself."""
        try:
            producer = await self._started()
            partitions = sorted(await producer.partitions_for(DEAD_LETTER))
            batches = self._batches(producer, letters, partitions)
            await asyncio.gather(
                *[await producer.send_batch(batch, DEAD_LETTER, partition=to) for to, batch in batches]
            )
        except KafkaError as error:
            raise StoreUnavailable(f"The log did not take {len(letters)} dead letters: {error!r}.") from error

    def _batches(
        self, producer: AIOKafkaProducer, letters: Sequence[DeadLetter], partitions: Sequence[int]
    ) -> list[tuple[int, BatchBuilder]]:
        """The letters in batches, each with the partition that its letters' keys give."""
        batches: list[tuple[int, BatchBuilder]] = []
        filling: dict[int, BatchBuilder] = {}
        for letter in letters:
            record = self._encode(letter)
            to = _partition_of(record["key"], partitions, partitions) if len(partitions) > 1 else partitions[0]
            if to not in filling or filling[to].append(timestamp=None, **record) is None:  # it is full
                batch = filling[to] = producer.create_batch()
                batches.append((to, batch))
                batch.append(timestamp=None, **record)
        return batches

    def _encode(self, letter: DeadLetter) -> dict[str, bytes]:
        """Key and value. A payload that would make the record larger than a broker takes is cut: the row has it whole.

        It may: the letter of one event holds its record's context too, and is JSON, which escapes.
        """
        key, value = record_key(letter["companyId"], letter["key"]).encode(), self._codec.encode_dead_letter(letter)
        excess = len(key) + len(value) + RECORD_OVERHEAD - MAX_RECORD_BYTES
        if excess > 0:
            cut = letter["payload"][: max(len(letter["payload"]) - excess, 0)]
            value = self._codec.encode_dead_letter({**letter, "payload": cut, "truncated": True})
        return {"key": key, "value": value}

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._options, acks="all", max_batch_size=_BATCH_BYTES, compression_type="lz4"
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()


@dataclass(frozen=True, slots=True)
class LetterPipeline:
    """Stores the collector's dead letters; those of streams were stored with the block that they come from."""

    codec: Codec

    def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared:  # noqa: ARG002
        """Decode what was not stored before; a letter that cannot be read is a dead letter itself."""
        prepared = Prepared(dict(journals), len(records))
        for record in records:
            try:
                letter = self.codec.decode_dead_letter(record.value or b"")
            except UndecodableRecord as error:
                prepared.rejections.append(_reject_letter(record, error))
                continue
            if letter["source"] == "collector" and not prepared.is_redelivered(letter["journal"], letter["sequence"]):
                prepared.letters.append(letter)
                prepared.note_received(letter["receivedAt"])
        return prepared

    def wanted(self, prepared: Prepared, state: PartitionState) -> Lookup:  # noqa: ARG002
        """Nothing of the past."""
        return Lookup()

    def settle(self, prepared: Prepared, state: PartitionState, found: Found, now: int) -> Settled:  # noqa: ARG002
        """The letters as rows; they count as no events, since nothing of them was accepted."""
        unreadable = [dead_letter(rejection, state.partition, now) for rejection in prepared.rejections]
        state.journals.update(prepared.journals)
        prepared.rejections = []
        return Settled(BlockRows(dead_letters=[*prepared.letters, *unreadable]), prepared.accounts(0))


def _reject_letter(record: LogRecord, error: UndecodableRecord) -> Rejection:
    return Rejection(
        offset=record.offset,
        position=-1,
        reason=Reason.UNDECODABLE,
        field="",
        message=str(error),
        content_type="avro",
        payload=record.value or b"",
    )
