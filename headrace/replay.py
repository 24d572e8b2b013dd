"""Dead letters as events that can be sent again: pure, so that repeating it gives the same events."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

import jsonpatch
import orjson

from schemas.codec import Codec, UndecodableRecord
from schemas.records import CollectedRecord
from streams.core.clock import corrected
from streams.core.replay import http_form, iso_time
from warehouse.letters import StoredLetter

#: The namespace of ids that follow from a dead letter's key; never to change, or a replay would count twice.
_NAMESPACE: Final = UUID("5a1c0a52-6c2b-5d0e-9a53-7d5b2d0f8c11")
_ID_NAMES: Final = ("eventId", "messageId")


class NotReplayable(Exception):
    """The letter holds nothing that can be sent again; the message says why."""


class BadPatch(Exception):
    """The text is not a JSON patch (RFC 6902); the message says why."""


class Replayed(NamedTuple):
    """One event to send, and the letter that it comes from."""

    key: str
    event_id: str
    text: bytes


def parse_patch(text: str) -> Any:
    """A JSON patch; raises BadPatch."""
    try:
        patch = jsonpatch.JsonPatch.from_string(text)
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise BadPatch(
            f"The fix is not a JSON patch (RFC 6902): {error}. "
            'One looks like [{"op": "replace", "path": "/properties/results", "value": 0}].'
        ) from error
    return patch


def replay(letter: StoredLetter, codec: Codec, patch: Any = None) -> list[Replayed]:
    """The letter's events, each with the fix applied, in the form of POST /v1/batch; raises NotReplayable.

    An event keeps its eventId; one that has none gets the id that the collector gave its verdict, else one that
    follows from the letter's key. One without a time happened when the letter was received, not when it is replayed.
    """
    return [_replayed(letter, index, _fix(event, patch)) for index, event in enumerate(events_of(letter, codec))]


def events_of(letter: StoredLetter, codec: Codec) -> list[Any]:
    """What the letter holds, as JSON values; raises NotReplayable."""
    if letter.truncated:
        raise NotReplayable("The payload was cut when it was stored; the client has to send it again.")
    match letter.content_type:
        case "json":
            return [_parse(letter.payload)]
        case "avro":
            record = _decode(letter.payload, codec)
            return [_parse(_form_of(record, position)) for position in range(len(record["events"]))]
        case _:
            raise NotReplayable("The payload is a request body that could not be read, not an event.")


def _parse(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise NotReplayable(f"The payload is not JSON: {error}.") from error


def _decode(payload: bytes, codec: Codec) -> CollectedRecord:
    try:
        return codec.decode_collected(payload)
    except UndecodableRecord as error:
        raise NotReplayable(f"The payload cannot be decoded. {error}") from error


def _form_of(record: CollectedRecord, position: int) -> bytes:
    event = record["events"][position]
    return http_form(record, event, corrected(event["timestamp"], record["receivedAt"], record["sentAt"]))


def _fix(event: Any, patch: Any) -> Any:
    if patch is None:
        return event
    try:
        return patch.apply(event)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
        raise NotReplayable(f"The fix does not apply: {error}.") from error


def _replayed(letter: StoredLetter, index: int, event: Any) -> Replayed:
    if not isinstance(event, dict):
        raise NotReplayable("The event is not a JSON object.")
    whole = {**event}
    if not any(_is_id(event.get(name)) for name in _ID_NAMES):
        whole = {name: value for name, value in event.items() if name not in _ID_NAMES}
        whole["eventId"] = letter.event_id or str(uuid5(_NAMESPACE, f"{letter.company_id}/{letter.key}/{index}"))
    if whole.get("timestamp") is None and letter.received_at:
        whole["timestamp"] = iso_time(letter.received_at)
    return Replayed(letter.key, _id_of(whole), _text(whole))


def _is_id(value: object) -> bool:
    return value is not None and value != ""


def _id_of(event: Mapping[str, Any]) -> str:
    return str(next(event[name] for name in _ID_NAMES if _is_id(event.get(name))))


def _text(event: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(event).encode()
