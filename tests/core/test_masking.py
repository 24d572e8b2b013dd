from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collector.masking import mask_ip, mask_ips_in


@pytest.mark.parametrize(
    ("sent", "masked"),
    [
        ("203.0.113.77", "203.0.113.0"),
        (" 203.0.113.77 ", "203.0.113.0"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:1234::"),
        ("fe80::1%eth0", "fe80::"),
        ("0.0.0.0", "0.0.0.0"),
        ("", ""),
        ("localhost", ""),
        ("203.0.113.77:8080", ""),
        ("203.0.113.777", ""),
    ],
)
def test_an_address_is_masked_and_what_is_none_becomes_empty(sent: str, masked: str) -> None:
    assert mask_ip(sent) == masked


@given(st.ip_addresses(v=4))
def test_the_last_octet_of_an_ipv4_address_is_gone(address: IPv4Address) -> None:
    assert int(ip_address(mask_ip(str(address)))) == int(address) & 0xFFFFFF00


@given(st.ip_addresses(v=6))
def test_the_last_80_bits_of_an_ipv6_address_are_gone(address: IPv6Address) -> None:
    assume(address.ipv4_mapped is None)
    assert int(ip_address(mask_ip(str(address)))) == int(address) >> 80 << 80


def test_addresses_in_a_payload_are_masked_and_nothing_else_changes() -> None:
    payload = b'{"a" : 1.0,"context":{"ip" : "203.0.113.77","x":"203.0.113.77"},"properties":{"ip":"2001:db8::5"},"ip":'
    assert mask_ips_in(payload) == (
        b'{"a" : 1.0,"context":{"ip" : "203.0.113.0","x":"203.0.113.77"},"properties":{"ip":"2001:db8::"},"ip":'
    )


def test_a_member_named_ip_that_holds_no_address_stays() -> None:
    assert mask_ips_in(b'{"ip":"dead.beef"}') == b'{"ip":"dead.beef"}'
