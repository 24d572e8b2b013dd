"""Which partition a key belongs to, and the bytes of a batch of records as the Kafka protocol carries them.

Both follow the Kafka protocol: murmur2 as in the Java client's default partitioner, and record batches of magic 2
(https://kafka.apache.org/documentation/#recordbatch).
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import cramjam
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

_MASK: Final = 0xFFFFFFFF
_M: Final = 0x5BD1E995
_LENGTH_AT, _CRC_AT, _ATTRIBUTES_AT, _RECORDS_AT = 8, 17, 21, 61  # offsets of fields in a batch's header
_LZ4: Final = 3


def murmur2(key: bytes) -> int:
    """The hash of Kafka's default partitioner, 32 bits."""
    words = len(key) // 4
    h = 0x9747B28C ^ len(key)
    for word in struct.unpack_from(f"<{words}I", key):
        k = word * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    if tail := key[words * 4 :]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a key among `partitions`."""
    return _hash_of(key) % partitions if partitions > 1 else 0


@lru_cache(maxsize=1 << 14)  # a visitor comes again
def _hash_of(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


def encode_batch(records: Iterable[tuple[bytes, bytes]], now_ms: int) -> bytes:
    """One record batch of (key, value) pairs, compressed with lz4, stamped `now_ms`."""
    builder = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30
    )
    for position, (key, value) in enumerate(records):
        builder.append(position, now_ms, key, value, [])
    return _compressed(builder.build())


def _compressed(batch: bytearray) -> bytes:
    # The builder would compress at lz4's level 9, which costs nine times as much as level 1 and saves a seventh.
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    compressor.compress(bytes(batch[_RECORDS_AT:]))
    out = batch[:_RECORDS_AT] + bytes(compressor.finish())
    struct.pack_into(">h", out, _ATTRIBUTES_AT, struct.unpack_from(">h", out, _ATTRIBUTES_AT)[0] | _LZ4)
    struct.pack_into(">i", out, _LENGTH_AT, len(out) - _LENGTH_AT - 4)
    struct.pack_into(">I", out, _CRC_AT, calc_crc32c(memoryview(out)[_ATTRIBUTES_AT:]))
    return bytes(out)
