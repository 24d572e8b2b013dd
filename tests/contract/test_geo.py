"""The country lookup over a database written here, in MaxMind's format.

The format is specified at https://maxmind.github.io/MaxMind-DB/: a search tree of one record pair a bit, 16 zero
bytes, the data, a marker, the metadata.
"""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.geo import open_country_lookup

NETWORKS: dict[str, dict[str, object]] = {
    "81.2.69.0/24": {"country": {"iso_code": "GB"}},
    "203.0.113.0/24": {"registered_country": {"iso_code": "AU"}},
    "198.51.100.0/24": {"continent": {"code": "EU"}},
    "192.0.2.0/24": {"country": "DE"},
}
NETWORKS_V6: dict[str, dict[str, object]] = {"2001:db8::/48": {"country": {"iso_code": "SE"}}}


#: The type of a number of the metadata, where it is not 5, an unsigned 16-bit one.
NUMBER_TYPES = {"node_count": 6, "build_epoch": 9}


def control(kind: int, size: int) -> bytes:
    return bytes([kind << 5 | size]) if kind <= 7 else bytes([size, kind - 7])


def encoded(value: object, number_type: int = 5) -> bytes:
    if isinstance(value, str):
        body = value.encode()
        return control(2, len(body)) + body
    if isinstance(value, int):
        body = value.to_bytes(8, "big").lstrip(b"\0")
        return control(number_type, len(body)) + body
    if isinstance(value, list):
        return control(11, len(value)) + b"".join(map(encoded, value))
    assert isinstance(value, dict)
    items = (encoded(key) + encoded(item, NUMBER_TYPES.get(key, 5)) for key, item in value.items())
    return control(7, len(value)) + b"".join(items)


def database(networks: dict[str, dict[str, object]], ip_version: int = 4) -> bytes:
    nodes: list[list[int | None]] = [[None, None]]
    data, offsets = b"", {}
    for cidr, record in networks.items():
        network = ipaddress.ip_network(cidr)
        bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
        node = 0
        for bit in map(int, bits[:-1]):
            if (child := nodes[node][bit]) is None:
                nodes.append([None, None])
                child = nodes[node][bit] = len(nodes) - 1
            node = child
        offsets[node, int(bits[-1])] = len(data)
        data += encoded(record)
    count = len(nodes)
    tree = b""
    for index, pair in enumerate(nodes):
        for bit, child in enumerate(pair):
            leaf = offsets.get((index, bit))
            pointer = child if child is not None else count if leaf is None else count + 16 + leaf
            tree += pointer.to_bytes(3, "big")
    metadata: dict[str, object] = {
        "node_count": count,
        "record_size": 24,
        "ip_version": ip_version,
        "database_type": "Test-Country",
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "description": {"en": "test"},
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(metadata)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("geo") / "country.mmdb"
    file.write_bytes(database(NETWORKS))
    return file


@pytest.mark.parametrize(
    ("ip", "country"),
    [
        ("81.2.69.0", "GB"),
        ("81.2.70.0", ""),
        ("203.0.113.0", "AU"),
        ("198.51.100.0", ""),
        ("192.0.2.0", ""),
        ("2001:db8::", ""),
        ("not an address", ""),
        ("81.2.69.0/24", ""),
        ("81.2.69.0\0", ""),
        ("\ud800", ""),
        ("", ""),
    ],
)
def test_an_address_has_its_country_or_none(path: Path, ip: str, country: str) -> None:
    assert open_country_lookup(str(path))(ip) == country


def test_an_ipv6_address_has_its_country(tmp_path: Path) -> None:
    file = tmp_path / "country.mmdb"
    file.write_bytes(database(NETWORKS_V6, ip_version=6))
    lookup = open_country_lookup(str(file))
    assert (lookup("2001:db8::"), lookup("2001:db9::")) == ("SE", "")


@settings(deadline=None)
@given(ip=st.text() | st.ip_addresses().map(str))
def test_no_text_raises(path: Path, ip: str) -> None:
    assert open_country_lookup(str(path))(ip) in {"", "GB", "AU"}


@pytest.mark.parametrize("none", [None, ""])
def test_without_a_file_no_country_is_known(none: str | None) -> None:
    assert open_country_lookup(none)("81.2.69.0") == ""


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"The country database .*none\.mmdb does not exist\. Point"):
        open_country_lookup(str(tmp_path / "none.mmdb"))


@pytest.mark.parametrize("content", [b"", b"no database", b"\xab\xcd\xefMaxMind.com", b"\xab\xcd\xefMaxMind.com\xe1"])
def test_a_file_that_is_no_database_is_said_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "country.mmdb"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"The country database .* cannot be read"):
        open_country_lookup(str(file))
