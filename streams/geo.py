"""The country of an address, from a database in MaxMind's format (GeoLite2-Country, DB-IP Lite, and the like)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import maxminddb


def open_country_lookup(path: str | None) -> Callable[[str], str]:
    """A function from an address (a masked one will do) to its ISO 3166-1 alpha-2 code, '' when unknown.

    Without a path every answer is ''. The function never raises; it stays open for the life of the process.

    Raises FileNotFoundError when the file is not there, and ValueError when it is no such database.
    """
    if not path:
        return _no_country
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The country database {path} does not exist. Point the setting at an .mmdb file, or leave it empty."
        )
    try:
        reader = maxminddb.open_database(path)
    except maxminddb.InvalidDatabaseError as error:
        raise ValueError(
            f"The country database {path} cannot be read ({error}). Download the .mmdb file again, unpacked."
        ) from error

    def country_of_ip(ip: str) -> str:
        try:
            return _iso_code(reader.get(ip))
        except (TypeError, ValueError, maxminddb.InvalidDatabaseError):
            # Not an address (a NUL in it is a TypeError), IPv6 in an IPv4 database, or a damaged page of the file.
            return ""

    return country_of_ip


def _no_country(_ip: str) -> str:
    return ""


def _iso_code(found: object) -> str:
    """The country a network is used in, else the one it is registered in (satellites, anonymous networks)."""
    if not isinstance(found, Mapping):
        return ""
    for name in ("country", "registered_country"):
        country = found.get(name)
        if isinstance(country, Mapping) and isinstance(code := country.get("iso_code"), str):
            return code
    return ""
