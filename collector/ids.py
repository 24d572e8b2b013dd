"""Mints UUIDv7s (RFC 9562, section 5.7): they sort by time, which keeps neighbours together in every store."""

from uuid import UUID


def mint_uuid7(now_ms: int, random: bytes) -> str:
    """A UUIDv7 of a time in milliseconds since the epoch and ten random bytes."""
    bits = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))
