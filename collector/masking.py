"""Masks IP addresses: the last octet of IPv4, the last 80 bits of IPv6, before anything is stored."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

_IP_MEMBER = re.compile(rb'("ip"\s*:\s*")([0-9A-Fa-f:.]{2,45})(?=")')


@lru_cache(maxsize=4096)
def mask_ip(text: str) -> str:
    """The masked address, "" where `text` is none. An IPv4 address written as IPv6 is masked as IPv4."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if isinstance(address, IPv4Address):
        return str(IPv4Address(int(address) >> 8 << 8))
    return str(IPv6Address(int(address) >> 80 << 80))


def mask_ips_in(payload: bytes) -> bytes:
    """JSON text, possibly broken, with the address in every member named "ip" masked and all else as it was."""
    return _IP_MEMBER.sub(_mask_member, payload)


def _mask_member(found: re.Match[bytes]) -> bytes:
    return found[1] + (mask_ip(found[2].decode()).encode() or found[2])
