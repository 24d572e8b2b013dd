"""Numbers and lengths as Avro writes them: zigzag, then seven bits a byte, least first."""

import struct
from functools import lru_cache
from typing import Final

pack_double: Final = struct.Struct("<d").pack
unpack_double: Final = struct.Struct("<d").unpack_from

_FIRST: Final = -(2**63)


def encode_long(number: int) -> str:
    """The bytes of a number, as characters of the same numbers; raises ValueError where it has more than 64 bits."""
    if 1 << 32 < number < 1 << 63:
        return _FIRST_TWO[number << 1 & 0x3FFF] + _encode_bits(number >> 13)
    if not _FIRST <= number < -_FIRST:
        raise ValueError(number)
    return _encode_bits(number << 1 ^ number >> 63)


@lru_cache(maxsize=1024)
def _encode_bits(bits: int) -> str:
    out = ""
    while bits > 127:
        out += chr(bits & 127 | 128)
        bits >>= 7
    return out + chr(bits)


#: The bytes, in the same form, of every length that takes one or two.
LENGTH: Final = tuple(_encode_bits(length << 1) for length in range(1 << 13))
# Times of the same seconds differ in their first two bytes only: these by table, the others are remembered.
_FIRST_TWO: Final = tuple(chr(number & 127 | 128) + chr(number >> 7 | 128) for number in range(1 << 14))


def decode_long(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends; raises IndexError and ValueError where there is none."""
    first = _OF_FIRST_TWO.get(data[at : at + 2])
    if first is not None and (rest := _of_last_four(data[at + 2 : at + 6])):
        return first + rest, at + 6
    bits = shift = 0
    while (byte := data[at]) > 127 and shift < 63:
        bits |= (byte & 127) << shift
        shift += 7
        at += 1
    bits |= byte << shift
    if bits >> 64:
        raise ValueError(bits)
    return bits >> 1 ^ -(bits & 1), at + 1


# Of positive numbers only, whose lowest bit is 0.
_OF_FIRST_TWO: Final = {two.encode("latin-1"): number >> 1 for number, two in enumerate(_FIRST_TWO) if not number & 1}


@lru_cache(maxsize=1024)
def _of_last_four(four: bytes) -> int:
    """What the last four of six bytes add to a positive number; 0 where it does not end with them."""
    if len(four) < 4 or four[3] > 127 or min(four[:3]) < 128:
        return 0
    return sum((byte & 127) << shift for byte, shift in zip(four, (13, 20, 27, 34), strict=True))


def decode_length(data: bytes, at: int) -> tuple[int, int]:
    """Twice the length at `at`, and where it ends; raises ValueError where it is negative."""
    length, at = decode_long(data, at)
    if length < 0:
        raise ValueError(length)
    return length << 1, at
