"""Finds the write key of a request: Basic (the user part, as Segment's SDKs send it), Bearer, or ?k= in the URL."""

import binascii
from collections.abc import Mapping
from urllib.parse import parse_qs


def find_write_key(headers: Mapping[bytes, bytes], query: bytes) -> str:
    """The write key, "" where there is none. A header goes before the URL."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
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
