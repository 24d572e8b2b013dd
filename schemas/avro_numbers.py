"""Numbers and lengths as Avro writes them: zigzag, then seven bits a byte, least first.

All times of the same eight seconds share their bytes but the first two. What these bytes stand for is remembered, in
either direction.
"""

import struct
from typing import Any, Final

pack_double: Final = struct.Struct("<d").pack
unpack_double: Final = struct.Struct("<d").unpack_from

_FIRST: Final = -(2**63)
_REMEMBERED: Final = 1024


#: A number without its lowest 13 bits -> its bytes but the first, FIRST_BYTE[lowest 6 bits], and the second,
#: SECOND_BYTE[next 7 bits]; where it is not here, `encode_long` tells.
RESTS: Final[dict[int, str]] = {}


def encode_long(number: int) -> str:
    """The bytes of a number, as characters of the same numbers; raises ValueError where it is no int of 64 bits."""
    if type(number) is not int or not _FIRST <= number < -_FIRST:
        raise ValueError(number)
    if number > 8191:
        _remember(RESTS, number >> 13, _encode_bits(number >> 13))
    return _encode_bits(number << 1 ^ number >> 63)


def _encode_bits(bits: int) -> str:
    out = ""
    while bits > 127:
        out += chr(bits & 127 | 128)
        bits >>= 7
    return out + chr(bits)


def _remember(known: dict[int, Any], number: int, value: object) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[number] = value


FIRST_BYTE: Final = tuple(chr(low << 1 | 128) for low in range(64))
SECOND_BYTE: Final = tuple(chr(low | 128) for low in range(128))
#: The bytes, in the same form, of every length that takes one or two.
LENGTH: Final = tuple(_encode_bits(length << 1) for length in range(1 << 13))

#: The six bytes of a time: the first, the second, and the others as one number.
unpack_time: Final = struct.Struct("<BBI").unpack_from
#: What each of the three stands for in a number that is not negative; None where it is not the first or second of six
#: bytes. Where the others are not here, `decode_long` tells.
OF_FIRST: Final = tuple((byte & 127) >> 1 if byte > 127 and not byte & 1 else None for byte in range(256))
OF_SECOND: Final = tuple((byte & 127) << 6 if byte > 127 else None for byte in range(256))
OF_LAST_FOUR: Final[dict[int, int]] = {}


def decode_long(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends; raises IndexError and ValueError where there is none."""
    bits = shift = 0
    while (byte := data[at]) > 127 and shift < 63:
        bits |= (byte & 127) << shift
        shift += 7
        at += 1
    bits |= byte << shift
    if bits >> 64:
        raise ValueError(bits)
    if shift == 35:
        _remember(OF_LAST_FOUR, int.from_bytes(data[at - 3 : at + 1], "little"), bits >> 14 << 13)
    return bits >> 1 ^ -(bits & 1), at + 1


#: First byte of a length -> the bytes that a length of one byte and what has the length take together, and those
#: before MORE[second byte] of a length of two; None where it is negative.
TAKES: Final = tuple(None if byte & 1 else ((byte & 127) >> 1) + (1 if byte < 128 else 2) for byte in range(256))
MORE: Final = tuple(byte << 6 for byte in range(128))


def decode_length(data: bytes, at: int) -> tuple[int, int]:
    """The length at `at`, and where it ends; raises ValueError where it is negative."""
    length, at = decode_long(data, at)
    if length < 0:
        raise ValueError(length)
    return length, at
