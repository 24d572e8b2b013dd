"""Keys in memory: 16 bytes each instead of a text, in the form in which ClickHouse can hand over many at once.

A digest is the first half of SHA-256. Two of n keys share one with a probability of n² / 2^129: a million events a
second for ten years come to 1.5·10^-10.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Eight bytes each of many digests.
Halves = NDArray[np.uint64]
#: Which of several: True for those that are meant.
Mask = NDArray[np.bool_]

DIGEST_BYTES: Final = 16
#: Sessions lie in this many buckets by their visitor's digest: few enough to cost little while they are empty, and
#: enough that a million sessions are 3 kB each, which is searched in less time than it takes to digest a key.
BUCKET_BITS: Final = 14
#: A session as it is packed: the visitor's digest, the first and last event's time (ms), the 16 bytes of its UUID.
PACKED_SESSION: Final = Struct(">16sqq16s")


def key_digest(key: str) -> bytes:
    """A key's digest. In ClickHouse: substring(SHA256(key), 1, 16)."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def bucket_of(digest: bytes) -> int:
    """The bucket of a digest, or of several of one bucket: its first bits."""
    return digest[0] << 6 | digest[1] >> 2


def find_digest(bucket: bytes | bytearray, digest: bytes, size: int) -> int:
    """Where in a bucket the last entry with this digest begins, -1 without one; entries are of `size` bytes."""
    at = bucket.rfind(digest)
    while at % size and at > 0:  # across two entries, which chance does not bring about
        at = bucket.rfind(digest, 0, at + len(digest) - 1)
    return at


def digest_keys(keys: Iterable[str]) -> bytes:
    """The digests of keys, one behind the other."""
    return b"".join(map(key_digest, keys))


def other_places(places: NDArray[np.intp], count: int) -> list[int]:
    """The numbers below `count` that are not among these places, in their order."""
    others = np.ones(count, dtype=np.bool_)
    others[places] = False
    found: list[int] = np.flatnonzero(others).tolist()
    return found


class DigestSet:
    """Digests in their order: to look for thousands at once costs a tenth of looking for each."""

    __slots__ = ("_firsts", "_seconds")

    def __init__(self, firsts: Halves, seconds: Halves) -> None:
        """The halves of each digest, in the order of the first ones."""
        self._firsts, self._seconds = firsts, seconds

    @classmethod
    def of(cls, digests: bytes = b"") -> "DigestSet":
        """The digests in these bytes, one behind the other."""
        return cls.with_places(digests)[0]

    @classmethod
    def with_places(cls, digests: bytes) -> "tuple[DigestSet, NDArray[np.intp]]":
        """As `of`, and the place of each among those given: that of its first copy."""
        firsts, seconds = np.frombuffer(digests, dtype=">u8").reshape(-1, 2).T.astype(np.uint64)
        order = np.lexsort((seconds, firsts))
        firsts, seconds = firsts[order], seconds[order]
        once = np.ones(len(order), dtype=np.bool_)
        once[1:] = (firsts[1:] != firsts[:-1]) | (seconds[1:] != seconds[:-1])
        return cls(firsts[once], seconds[once]), order[once]

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[bytes]:
        whole = np.stack((self._firsts, self._seconds), axis=1).astype(">u8").tobytes()
        return (whole[at : at + DIGEST_BYTES] for at in range(0, len(whole), DIGEST_BYTES))

    def holds(self, others: "DigestSet") -> Mask:
        """Which of the others are here."""
        if not len(self):
            return np.zeros(len(others), dtype=np.bool_)
        at = np.minimum(self._firsts.searchsorted(others._firsts), len(self) - 1)
        alike: Mask = self._firsts[at] == others._firsts
        held: Mask = alike & (self._seconds[at] == others._seconds)
        for place in np.flatnonzero(alike & ~held):  # digests that share their first halves: hardly ever
            held[place] = others._seconds[place] in self._seconds[self._firsts == others._firsts[place]]
        return held

    def without(self, mask: Mask) -> "DigestSet":
        """Those that are not marked."""
        return DigestSet(self._firsts[~mask], self._seconds[~mask])

    def joined(self, others: "DigestSet") -> "DigestSet":
        """These and others, of which none is here."""
        at = self._firsts.searchsorted(others._firsts)
        return DigestSet(np.insert(self._firsts, at, others._firsts), np.insert(self._seconds, at, others._seconds))
