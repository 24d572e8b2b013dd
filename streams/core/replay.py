"""An event of the log in the form in which POST /v1/batch takes it, so that its dead letter can be sent again."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.records import CollectedEvent, CollectedRecord

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
        "properties": _parsed(event["properties"]),
        "context": {name: text for name, text in {**record["context"], **event["context"]}.items() if text},
    }
    kept = {name: field for name, field in fields.items() if field not in ("", None, {})}
    return _as_json(kept).encode(errors="replace")


def iso_time(at: int) -> str:
    """ISO 8601 with milliseconds, UTC."""
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parsed(properties: str) -> Any:
    try:
        return json.loads(properties)
    except ValueError:
        return properties
