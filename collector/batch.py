"""From the text of a body to its events: JSON in one of three shapes. A refusal raises RequestRefused."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from collector.answers import RequestRefused
from collector.limits import MAX_EVENTS
from schemas.reasons import Reason
from schemas.sent import NO_CONTEXT, PlainText, SentContext

_BOM: Final = b"\xef\xbb\xbf"
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}|u0000)|.)",
    re.DOTALL,
)


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]


class _PlainBatch(msgspec.Struct, rename="camel", gc=False):
    batch: list[PlainText]
    sent_at: Any = None
    context: Any = None


class _CutBatch(_Envelope, rename="camel"):
    sent_at: Any = None
    context: Any = None


_read_plain: Final = msgspec.json.Decoder(_PlainBatch).decode
_read_cut: Final = msgspec.json.Decoder(_CutBatch).decode
_read_event: Final = msgspec.json.Decoder(PlainText).decode
_read_context: Final = msgspec.json.Decoder(SentContext).decode
#: Events of a request that may not be plain while it still pays to read each by itself.
_FEW: Final = 4

#: An event that was read straight from the text, and its own context.
Plain = tuple[PlainText, SentContext]


@dataclass(slots=True)
class Batch:
    """The events of a request as sent, with what the request says of all of them: sentAt, context, type (`kind`).

    `plain` are the events where nearly all of them could be read straight from the text; None for one that could not.
    `cut` are the texts of all events where they were needed to read those.
    """

    count: int
    sent_at: Any
    context: Any
    kind: str | None
    text: bytes
    shape: Any  # of `text`, with its events as msgspec.Raw
    plain: Sequence[Plain | None] | None = None
    _events: list[Any] = field(default_factory=list)
    cut: Sequence[msgspec.Raw] = ()
    _read: dict[int, Any] = field(default_factory=dict)

    @property
    def events(self) -> list[Any]:
        """Each event as sent. Raises RequestRefused where the text of plain ones has a fault outside of them."""
        if len(self._events) < self.count:
            self._events = parse_json(self.text)[0]["batch"]
        return self._events

    def event(self, place: int) -> Any:
        """One event as sent, where the others need not be read. Raises as `events` does."""
        if place not in self._read:
            self._read[place] = self._read_one(place)
        return self._read[place]

    def _read_one(self, place: int) -> Any:
        if self.cut and not self._events:
            try:
                return parse_json(bytes(self.cut[place]))[0]
            except RequestRefused:  # the body's fault, which it is told of as a whole
                pass
        return self.events[place]

    def typed_events(self) -> list[Any]:
        """The events, each with the type that the request's path gives."""
        if self.kind is None:
            return self.events
        return [{**event, "type": self.kind} if isinstance(event, dict) else event for event in self.events]

    def payloads(self, places: Collection[int]) -> dict[int, bytes]:
        """The JSON text of the events at these places, cut out of the body unchanged, as POST /v1/batch would take it.

        So a type or a context that only the request names is put at its end. Raises RequestRefused for a body that is
        nested too deep to be cut.
        """
        cut = self.cut or self._cut()
        return {place: self._whole(self.event(place), bytes(cut[place]).strip()) for place in places}

    def _cut(self) -> Sequence[msgspec.Raw]:
        try:
            cut = msgspec.json.decode(self.text, type=self.shape)
        except RecursionError as error:
            raise RequestRefused(Reason.INVALID_JSON, "The body is nested too deep.", letter=self.text) from error
        return cut.batch if isinstance(cut, _Envelope) else cut if isinstance(cut, list) else [cut]

    def _whole(self, event: Any, payload: bytes) -> bytes:
        if not isinstance(event, dict):
            return payload
        members: dict[str, Any] = {}
        if self.kind is not None and event.get("type") != self.kind:
            members["type"] = self.kind
        if isinstance(self.context, dict) and event.get("context") is None:
            members["context"] = self.context
        return _with_members(payload, members) if members else payload


def parse_json(text: bytes) -> tuple[Any, bytes]:
    """The value of JSON text, and the text it was read from, with U+FFFD for NUL and for halves of surrogate pairs.

    JavaScript that cuts an emoji in two sends such halves; no encoding of text has them, so nothing could store them.
    """
    if _has_nul(text):
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


def _has_nul(text: bytes) -> bool:
    return b"\\" in text and b"\\u0000" in text  # one byte is found at a tenth of the cost of six


def _with_storable_escapes(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text)


def _not_json(error: Exception, text: bytes) -> RequestRefused:
    return RequestRefused(Reason.INVALID_JSON, f"The body is not JSON: {error}.", letter=text)


def parse_batch(text: bytes, kind: str | None) -> Batch:
    """The events of a body: an object with `batch`, an array, or anything else as the one event.

    `kind`: the type that the request's path gives to every event, None where the events name their own.
    """
    batch = (_parse_plain(text) if kind is None else None) or _parse_any(text, kind)
    if batch.count > MAX_EVENTS:
        raise RequestRefused(
            Reason.TOO_MANY_EVENTS, f"The request has {batch.count} events; send at most {MAX_EVENTS} in one."
        )
    return batch


def _parse_plain(text: bytes) -> Batch | None:
    """An object with `batch` whose events are nearly all plain, read at half the cost; None: it needs a closer look."""
    if _has_nul(text):
        return None
    try:
        if not text.isascii():
            text.decode()  # what msgspec skips, it does not check
        read = _read_plain(text)
        plain = list(map(_ContextReader().put, read.batch))
    except msgspec.ValidationError:
        return _parse_singly(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Batch(len(plain), read.sent_at, read.context, None, text, _Envelope, plain)


class _ContextReader:
    """Reads the contexts of one request's events; a text that the event before or the visitor's last had only once."""

    def __init__(self) -> None:
        self._last: tuple[msgspec.Raw, SentContext] = NO_CONTEXT, None
        self._of_visitors: dict[str | None, tuple[msgspec.Raw, SentContext]] = {}

    def put(self, event: PlainText) -> Plain:
        """The event with its context. Raises msgspec.MsgspecError where that is none."""
        text = event.context
        if text is NO_CONTEXT:
            return event, None
        if self._last[0] != text:
            visitor = event.anonymous_id or event.user_id
            known = self._of_visitors.get(visitor)
            if known is None or known[0] != text:
                known = self._of_visitors[visitor] = text, _read_context(text)
            self._last = known
        return event, self._last[1]


def _parse_singly(text: bytes) -> Batch | None:
    """As `_parse_plain`, each event by itself."""
    plain: list[Plain | None] = []
    contexts, odd = _ContextReader(), 0
    try:
        cut = _read_cut(text)
        for event in cut.batch:
            try:
                plain.append(contexts.put(_read_event(event)))
            except msgspec.ValidationError:
                plain.append(None)
                odd += 1
                if odd > _FEW:
                    return None
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Batch(len(plain), cut.sent_at, cut.context, None, text, _Envelope, plain, cut=cut.batch)


def _parse_any(text: bytes, kind: str | None) -> Batch:
    value, text = parse_json(text)
    if isinstance(value, list):
        return Batch(len(value), None, None, kind, text, list[msgspec.Raw], None, value)
    if isinstance(value, dict) and isinstance(value.get("batch"), list):
        events = value["batch"]
        return Batch(len(events), value.get("sentAt"), value.get("context"), kind, text, _Envelope, None, events)
    sent_at = value.get("sentAt") if isinstance(value, dict) else None
    return Batch(1, sent_at, None, kind, text, msgspec.Raw, None, [value])


def _with_members(payload: bytes, members: dict[str, Any]) -> bytes:
    try:
        added = orjson.dumps(members)
    except TypeError:  # nested deeper than orjson writes; only a context that holds nothing we know can be
        return payload
    opened = payload[:-1].rstrip()
    return opened + (b"" if opened == b"{" else b",") + added[1:]
