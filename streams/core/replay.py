"""An event of the log in the form in which POST /v1/batch takes it, so that its dead letter can be sent again."""

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from schemas.properties import join_properties
from schemas.records import CollectedEvent, CollectedRecord

_NOTHING: Final[tuple[Any, ...]] = ("", None, {})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def http_form(record: CollectedRecord, event: CollectedEvent, at: int) -> bytes:
    """The event as JSON, its time `at` (ms) already corrected for the client's clock; absent fields are left out."""
    fields: dict[str, Any] = {
        "eventId": event["eventId"],
        "timestamp": iso_time(at),
        "companyId": record["companyId"],
        "userId": event["userId"],
        "anonymousId": record["anonymousId"],
        "previousId": event["previousId"],
        "type": event["type"],
        "eventCategory": event["eventCategory"],
        "eventAction": event["eventAction"],
        "eventLabel": event["eventLabel"],
        "value": event["value"],
        "context": {name: text for name, text in {**record["context"], **event["context"]}.items() if text},
    }
    kept = {name: field for name, field in fields.items() if field not in _NOTHING}
    text = event["properties"]
    try:  # as they stand there
        return join_properties(kept, text)
    except ValueError:
        if (parsed := _parsed(text)) not in _NOTHING:
            kept["properties"] = parsed
        return _as_json(kept).encode(errors="replace")


def iso_time(at: int) -> str:
    """ISO 8601 with milliseconds, UTC."""
    second, milliseconds = divmod(at, 1000)
    return f"{_iso_second(second)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)  # the events of one moment share few of them
def _iso_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat().removesuffix("+00:00")


def _parsed(properties: str) -> Any:
    try:
        return json.loads(properties)
    except ValueError:
        return properties
