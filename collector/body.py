"""Reads the body of a request: bounded in size, as sent and inflated. A refusal raises RequestRefused."""

import zlib
from typing import Final

from starlette.types import Receive

from collector.answers import RequestRefused
from collector.limits import MAX_BODY, MAX_GZIP_MEMBERS, MAX_INFLATED
from schemas.reasons import Reason

_GZIP: Final = b"\x1f\x8b"


class ClientGone(Exception):
    """The client closed the connection before its body was complete."""


async def read_body(receive: Receive, declared: bytes | None) -> bytes:
    """The body as sent, at most 1 MiB: one that declares more in Content-Length is refused unread.

    Raises ClientGone, and RequestRefused where it is larger.
    """
    if declared is not None and declared.isdigit() and int(declared[:20]) > MAX_BODY:
        raise _too_large(f"over {MAX_BODY} bytes as sent")
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise _too_large(f"over {MAX_BODY} bytes as sent")
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(how: str) -> RequestRefused:
    return RequestRefused(Reason.BODY_TOO_LARGE, f"The body is {how}; send fewer events in a request.")


def inflate(body: bytes, limit: int = MAX_INFLATED) -> bytes:
    """A gzip body's content; never holds more than `limit` bytes of it."""
    parts: list[bytes] = []
    rest, left = body, limit
    while rest:
        if len(parts) == MAX_GZIP_MEMBERS:
            raise _not_gzip(f"it has over {MAX_GZIP_MEMBERS} members", body)
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = member.decompress(rest, left + 1)
        except zlib.error as error:
            raise _not_gzip(str(error), body) from error
        left -= len(part)
        if left < 0:
            raise _too_large(f"over {limit} bytes inflated")
        if not member.eof:
            raise _not_gzip("it ends too early", body)
        parts.append(part)
        rest = member.unused_data.lstrip(b"\0")  # gzip allows padding after a member
    return b"".join(parts)


def _not_gzip(why: str, body: bytes) -> RequestRefused:
    return RequestRefused(Reason.INVALID_GZIP, f"The body is not whole gzip data: {why}.", letter=body)


def inflate_declared(body: bytes, encoding: bytes) -> bytes:
    """The body inflated if its first bytes are gzip's or `encoding`, its Content-Encoding, says so."""
    declared = encoding.strip().lower() in (b"gzip", b"x-gzip")
    if not body.startswith(_GZIP):
        if declared:
            raise _not_gzip("it does not begin as gzip does", body)
        return body
    return inflate(body)
