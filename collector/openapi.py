"""The OpenAPI document of the collector; the event's schema is `schemas.sent.SentEvent`'s own."""

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson

from collector.answers import STATUS
from collector.limits import MAX_EVENTS
from collector.request import EVENT_ROUTES
from schemas.reasons import COLLECTOR_EVENT_REASONS, Reason
from schemas.sent import SentEvent

_EVENT: Final = {"$ref": "#/components/schemas/SentEvent"}
_SINGLE: Final = {"$ref": "#/components/schemas/SingleEvent"}
_TIME: Final = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}]}
_COUNTS: Final = {"accepted": {"type": "integer", "minimum": 0}, "rejected": {"type": "integer", "minimum": 0}}
_REFUSALS: Final = {
    400: "The body is not JSON, or not gzip as declared; it is kept as a dead letter, bounded.",
    401: "No write key, or none that is known; nothing is stored.",
    413: "Over 1 MiB as sent, over 10 MiB inflated, or over 1,000 events; nothing is stored.",
    429: "Over the tenant's rate; nothing is stored.",
    503: "Neither the log nor the local disk takes events now; nothing is accepted.",
}


@cache
def openapi_document() -> bytes:
    """The document as JSON, OpenAPI 3.1."""
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Headrace collector", "version": version("headrace")},
            "paths": {path: {"post": _post(path)} for path in EVENT_ROUTES}
            | {path: {"get": _get(path)} for path in _PAGES},
            "components": {"schemas": _schemas(), "securitySchemes": _SECURITY},
            "security": [{name: []} for name in _SECURITY],
        }
    )


_SECURITY: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "the write key as user, no password"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "the write key"},
    "query": {"type": "apiKey", "in": "query", "name": "k", "description": "the write key"},
}
_PAGES: Final = {
    "/healthz": "The process answers.",
    "/readyz": "It can store events: 200; else 503.",
    "/metrics": "Metrics in Prometheus's text format.",
    "/openapi.json": "This document.",
}


def _post(path: str) -> dict[str, Any]:
    kind = EVENT_ROUTES[path]
    body = {"schema": {"$ref": "#/components/schemas/Batch"} if kind is None else _SINGLE}
    types = ["text/plain"] if path == "/v1/beacon" else ["application/json"]
    answer = "Counts" if path == "/v1/beacon" else "Verdicts"
    return {
        "operationId": path.removeprefix("/v1/"),
        "summary": "Send events, each of which names its type." if kind is None else f"Send one {kind} event.",
        "requestBody": {"required": True, "content": dict.fromkeys(types, body)},
        "responses": {
            "200": _response("A verdict for every event; the accepted ones are stored durably.", answer),
            **{str(status): _refusal(status, text) for status, text in _REFUSALS.items()},
        },
    }


def _get(path: str) -> dict[str, Any]:
    content = {"text/plain": {}} if path == "/metrics" else {"application/json": {"schema": {"type": "object"}}}
    answers = {"200": {"description": _PAGES[path], "content": content}}
    if path == "/readyz":
        answers["503"] = answers["200"]
    return {
        "operationId": path.strip("/").replace(".", "_"),
        "summary": _PAGES[path],
        "responses": answers,
        "security": [],
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _refusal(status: int, description: str) -> dict[str, Any]:
    response = _response(description, "Error")
    if status in (429, 503):
        seconds = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
        response["headers"] = {"Retry-After": seconds}
    return response


def _schemas() -> dict[str, Any]:
    event = SentEvent.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
    event["title"] = "An event"
    single = {**event, "required": [name for name in event.get("required", ()) if name != "type"]}
    envelope = {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "maxItems": MAX_EVENTS, "items": _EVENT},
            "sentAt": {**_TIME, "description": "the client's clock when it sent the request"},
            "context": {
                "type": ["object", "null"],
                "description": "shared by every event; an event's own fields go first",
            },
        },
    }
    events = {"type": "array", "maxItems": MAX_EVENTS, "items": _EVENT}
    return {
        "SentEvent": event,
        "SingleEvent": single,
        "Batch": {"anyOf": [envelope, events, _EVENT]},
        "Counts": {"type": "object", "required": list(_COUNTS), "properties": _COUNTS, "additionalProperties": False},
        "Verdicts": {
            "type": "object",
            "required": [*_COUNTS, "results"],
            "properties": {**_COUNTS, "results": {"type": "array", "items": _verdict()}},
            "additionalProperties": False,
        },
        "Error": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {"error": {"enum": sorted(STATUS)}, "message": {"type": "string"}},
            "additionalProperties": False,
        },
    }


def _verdict() -> dict[str, Any]:
    reasons = sorted(COLLECTOR_EVENT_REASONS - {Reason.INVALID_JSON, Reason.INVALID_GZIP})
    return {
        "type": "object",
        "required": ["eventId", "status"],
        "properties": {
            "eventId": {"type": "string"},
            "status": {"enum": ["accepted", "rejected"]},
            "reason": {"enum": reasons},
            "field": {"type": "string"},
            "message": {"type": "string"},
        },
        "additionalProperties": False,
    }
