"""Keys in memory: 16 bytes each instead of a text, in the form in which ClickHouse can hand over many at once.

A digest is the first half of SHA-256. Two of n keys share one with a probability of n² / 2^129: a million events a
second for ten years come to 1.5·10^-10.
"""

from hashlib import sha256
from struct import Struct
from typing import Final

DIGEST_BYTES: Final = 16
#: Digests lie in this many buckets by their first bits: few enough to cost little while they are empty, and enough that
#: a million digests are 1 kB each, which is searched in less time than it takes to digest a key.
BUCKET_BITS: Final = 14
#: A session as it is packed: the visitor's digest, the first and last event's time (ms), the 16 bytes of its UUID.
PACKED_SESSION: Final = Struct(">16sqq16s")


def key_digest(key: str) -> bytes:
    """A key's digest. In ClickHouse: substring(SHA256(key), 1, 16)."""
    return sha256(key.encode(errors="surrogatepass")).digest()[:DIGEST_BYTES]


def bucket_of(digest: bytes) -> int:
    """The bucket of a digest, or of several of one bucket: its first bits."""
    return digest[0] << 6 | digest[1] >> 2


def find_digest(bucket: bytes | bytearray, digest: bytes, size: int) -> int:
    """Where in a bucket the last entry with this digest begins, -1 without one; entries are of `size` bytes."""
    at = bucket.rfind(digest)
    while at % size and at > 0:  # across two entries, which chance does not bring about
        at = bucket.rfind(digest, 0, at + len(digest) - 1)
    return at
