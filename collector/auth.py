"""Finds the write key of a request: Basic (the user part, as Segment's SDKs send it), Bearer, or ?k= in the URL."""

import binascii
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qs


def find_write_key(headers: Mapping[bytes, bytes], query: bytes) -> str:
    """The write key, "" where there is none. A header goes before the URL."""
    return _write_key_in(headers.get(b"authorization", b""), query)


@lru_cache(maxsize=1024)  # a client sends the same with each request
def _write_key_in(authorization: bytes, query: bytes) -> str:
    scheme, _, credentials = authorization.partition(b" ")
    match scheme.lower():
        case b"bearer":
            key = credentials.strip().decode("latin-1")
        case b"basic":
            key = _user_part(credentials)
        case _:
            key = ""
    return key or key_in_query(query)


def key_in_query(query: bytes) -> str:
    """The write key in a URL's query, "" where there is none."""
    return parse_qs(query.decode("latin-1")).get("k", [""])[0] if query else ""


def _user_part(credentials: bytes) -> str:
    try:
        return binascii.a2b_base64(credentials).partition(b":")[0].decode("latin-1")
    except ValueError:
        return ""
