"""From the bytes of a request to its events: bounded reading and inflating, JSON. A refusal raises RequestRefused."""

import re
import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from starlette.types import Receive

from collector.answers import RequestRefused
from collector.limits import MAX_BODY, MAX_EVENTS, MAX_GZIP_MEMBERS, MAX_INFLATED
from schemas.reasons import Reason

_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}|u0000)|.)",
    re.DOTALL,
)


class ClientGone(Exception):
    """The client closed the connection before its body was complete."""


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a request as sent, with what the request says of all of them: sentAt, context, type (`kind`)."""

    events: list[Any]
    sent_at: Any
    context: Any
    kind: str | None
    text: bytes
    shape: Any  # of `text`, with its events as msgspec.Raw

    def typed_events(self) -> list[Any]:
        """The events, each with the type that the request's path gives."""
        if self.kind is None:
            return self.events
        return [{**event, "type": self.kind} if isinstance(event, dict) else event for event in self.events]

    def payloads(self) -> list[bytes]:
        """Each event's JSON text, cut out of the body unchanged, as POST /v1/batch would take it alone.

        So a type or a context that only the request names is put at its end. Raises RequestRefused for a body that is
        nested too deep to be cut.
        """
        try:
            cut = msgspec.json.decode(self.text, type=self.shape)
        except RecursionError as error:
            raise RequestRefused(Reason.INVALID_JSON, "The body is nested too deep.", letter=self.text) from error
        raws = cut.batch if isinstance(cut, _Envelope) else cut if isinstance(cut, list) else [cut]
        return [self._whole(event, bytes(raw).strip()) for event, raw in zip(self.events, raws, strict=True)]

    def _whole(self, event: Any, payload: bytes) -> bytes:
        if not isinstance(event, dict):
            return payload
        members: dict[str, Any] = {}
        if self.kind is not None and event.get("type") != self.kind:
            members["type"] = self.kind
        if isinstance(self.context, dict) and event.get("context") is None:
            members["context"] = self.context
        return _with_members(payload, members) if members else payload


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


def parse_json(text: bytes) -> tuple[Any, bytes]:
    """The value of JSON text, and the text it was read from, with U+FFFD for NUL and for halves of surrogate pairs.

    JavaScript that cuts an emoji in two sends such halves; no encoding of text has them, so nothing could store them.
    """
    if b"\\u0000" in text:
        text = _with_storable_escapes(text)
    try:
        return orjson.loads(text), text
    except orjson.JSONDecodeError as error:
        repaired = _with_storable_escapes(text).removeprefix(_BOM)
        if repaired == text:
            raise _not_json(error, text) from error
    try:
        return orjson.loads(repaired), repaired
    except orjson.JSONDecodeError as error:
        raise _not_json(error, text) from error


def _with_storable_escapes(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text)


def _not_json(error: Exception, text: bytes) -> RequestRefused:
    return RequestRefused(Reason.INVALID_JSON, f"The body is not JSON: {error}.", letter=text)


def parse_batch(text: bytes, kind: str | None) -> Batch:
    """The events of a body: an object with `batch`, an array, or anything else as the one event.

    `kind`: the type that the request's path gives to every event, None where the events name their own.
    """
    value, text = parse_json(text)
    if isinstance(value, list):
        batch = Batch(value, None, None, kind, text, list[msgspec.Raw])
    elif isinstance(value, dict) and isinstance(value.get("batch"), list):
        batch = Batch(value["batch"], value.get("sentAt"), value.get("context"), kind, text, _Envelope)
    else:
        sent_at = value.get("sentAt") if isinstance(value, dict) else None
        batch = Batch([value], sent_at, None, kind, text, msgspec.Raw)
    if len(batch.events) > MAX_EVENTS:
        raise RequestRefused(
            Reason.TOO_MANY_EVENTS, f"The request has {len(batch.events)} events; send at most {MAX_EVENTS} in one."
        )
    return batch


def _with_members(payload: bytes, members: dict[str, Any]) -> bytes:
    try:
        added = orjson.dumps(members)
    except TypeError:  # nested deeper than orjson writes; only a context that holds nothing we know can be
        return payload
    opened = payload[:-1].rstrip()
    return opened + (b"" if opened == b"{" else b",") + added[1:]
