"""CityHash128 as of CityHash 1.0.2: the checksum in front of each block of ClickHouse's own compressed format.

Later versions of CityHash give other values; ClickHouse stayed with this one. All arithmetic is modulo 2**64.
"""

from struct import Struct

_MASK = (1 << 64) - 1
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69
_u64 = Struct("<Q").unpack_from
_u32 = Struct("<I").unpack_from
_u64x4 = Struct("<4Q").unpack_from

Pair = tuple[int, int]


def _rotate(value: int, shift: int) -> int:
    return ((value >> shift) | (value << (64 - shift))) & _MASK


def _mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash16(low: int, high: int) -> int:
    a = _mix((low ^ high) * _MUL & _MASK)
    return _mix((high ^ a) * _MUL & _MASK) * _MUL & _MASK


def _hash_short(data: bytes) -> int:
    """The 64-bit hash of at most 16 bytes."""
    n = len(data)
    if n > 8:
        b: int = _u64(data, n - 8)[0]
        return _hash16(_u64(data)[0], _rotate((b + n) & _MASK, n)) ^ b
    if n >= 4:
        (a,), (b,) = _u32(data), _u32(data, n - 4)
        return _hash16((n + (a << 3)) & _MASK, b)
    if n:
        y = data[0] + (data[n >> 1] << 8)
        z = n + (data[n - 1] << 2)
        return _mix((y * _K2 ^ z * _K3) & _MASK) * _K2 & _MASK
    return _K2


def _weak32(data: bytes, at: int, a: int, b: int) -> Pair:
    """A cheap hash of the 32 bytes at `at`, with two seeds."""
    w, x, y, z = _u64x4(data, at)
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = (a + x + y) & _MASK
    return (c + z) & _MASK, (b + _rotate(c, 44) + a) & _MASK


def _murmur(data: bytes, a: int, b: int) -> Pair:
    """The 128-bit hash of fewer than 128 bytes, seeded with (a, b)."""
    n = len(data)
    if n <= 16:
        a = _mix(a * _K1 & _MASK) * _K1 & _MASK
        c = (b * _K1 + _hash_short(data)) & _MASK
        d = _mix((a + (_u64(data)[0] if n >= 8 else c)) & _MASK)
    else:
        c = _hash16((_u64(data, n - 8)[0] + _K1) & _MASK, a)
        d = _hash16((b + n) & _MASK, (c + _u64(data, n - 16)[0]) & _MASK)
        a = (a + d) & _MASK
        for at in range(0, n - 16, 16):
            a = (a ^ _mix(_u64(data, at)[0] * _K1 & _MASK) * _K1) * _K1 & _MASK
            b ^= a
            c = (c ^ _mix(_u64(data, at + 8)[0] * _K1 & _MASK) * _K1) * _K1 & _MASK
            d ^= c
    a, b = _hash16(a, c), _hash16(d, b)
    return a ^ b, _hash16(b, a)


def _long(data: bytes, x: int, y: int) -> Pair:
    """The 128-bit hash of 128 bytes or more, seeded with (x, y)."""
    n = len(data)
    z = n * _K1 & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _u64(data)[0]) & _MASK
    v1 = (_rotate(v0, 42) * _K1 + _u64(data, 8)[0]) & _MASK
    w0 = (_rotate((y + z) & _MASK, 35) * _K1 + x) & _MASK
    w1 = _rotate((x + _u64(data, 88)[0]) & _MASK, 53) * _K1 & _MASK
    done = n - n % 128
    for at in range(0, done, 64):
        x = _rotate((x + y + v0 + _u64(data, at + 16)[0]) & _MASK, 37) * _K1 & _MASK ^ w1
        y = _rotate((y + v1 + _u64(data, at + 48)[0]) & _MASK, 42) * _K1 & _MASK ^ v0
        z = _rotate(z ^ w0, 33)
        v0, v1 = _weak32(data, at, v1 * _K1 & _MASK, x + w0)
        w0, w1 = _weak32(data, at + 32, z + w1, y)
        z, x = x, z
    y = (y + _rotate(w0, 37) * _K0 + z) & _MASK
    x = (x + _rotate((v0 + z) & _MASK, 49) * _K0) & _MASK
    for at in range(n - 32, done - 32, -32):
        y = (_rotate((y - x) & _MASK, 42) * _K0 + v1) & _MASK
        w0 = (w0 + _u64(data, at + 16)[0]) & _MASK
        x = (_rotate(x, 49) * _K0 + w0) & _MASK
        w0 = (w0 + v0) & _MASK
        v0, v1 = _weak32(data, at, v0, v1)
    x, y = _hash16(x, v0), _hash16(y, w0)
    return (_hash16((x + v1) & _MASK, w1) + y) & _MASK, _hash16((x + w1) & _MASK, (y + v1) & _MASK)


def cityhash128(data: bytes) -> bytes:
    """The 16-byte checksum of `data`, low half first, as it stands in front of a compressed block."""
    n = len(data)
    if n >= 16:
        seed, rest = (_u64(data)[0] ^ _K3, _u64(data, 8)[0]), data[16:]
    elif n >= 8:
        seed, rest = (_u64(data)[0] ^ (n * _K0 & _MASK), _u64(data, n - 8)[0] ^ _K1), b""
    else:
        seed, rest = (_K0, _K1), data
    low, high = _murmur(rest, *seed) if len(rest) < 128 else _long(rest, *seed)
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")
