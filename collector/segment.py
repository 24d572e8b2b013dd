"""Reads Segment's shapes as our own: nested contexts, event names, traits.

The shapes are those of Segment's public specification, https://segment.com/docs/connections/spec/.
"""

from collections.abc import Mapping
from typing import Any, Final

from collector.limits import MAX_CONTEXT_TEXT
from schemas.catalog import name_to_category_action
from schemas.context import CONTEXT_FIELDS
from schemas.sent import MAX_NAME, Sent

Context = dict[str, str]

#: Segment's object in a context -> its member -> our field.
NESTED_CONTEXT: Final[Mapping[str, Mapping[str, str]]] = {
    "page": {"url": "url", "path": "path", "title": "title", "referrer": "referrer"},
    "campaign": {
        "source": "utmSource",
        "medium": "utmMedium",
        "name": "utmCampaign",
        "term": "utmTerm",
        "content": "utmContent",
    },
    "library": {"name": "library", "version": "libraryVersion"},
    "app": {"name": "app", "version": "appVersion"},
    "os": {"name": "os", "version": "osVersion"},
    "device": {"type": "deviceType"},
}
# Segment's mobile SDKs name the system where we name the kind of device.
_DEVICE_TYPES: Final = {"ios": "mobile", "android": "mobile"}
_FIELDS: Final = frozenset(CONTEXT_FIELDS)
PAGE_FIELDS: Final = ("url", "path", "title", "referrer")

#: (eventCategory, eventAction) of a type where the client names none.
DEFAULT_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "page": ("page", "view"),
    "screen": ("screen", "view"),
    "identify": ("identity", "identify"),
    "alias": ("identity", "alias"),
    "group": ("identity", "group"),
}


def flatten_context(sent: Mapping[str, Any]) -> Context:
    """A context as sent, flat or Segment's, as our fields; empty ones are left out.

    A context describes and never refuses an event: long text is cut, numbers become text, and what is neither is
    ignored, as are members that we do not know. A flat field goes before Segment's object of the same meaning.
    """
    flat: Context = {}
    nested: Context = {}
    for name, value in sent.items():
        if isinstance(value, str):  # nearly every one, so without a call
            if value and name in _FIELDS:
                flat[name] = value[:MAX_CONTEXT_TEXT]
        elif isinstance(value, dict):
            _put_nested(nested, name, value)
        elif name in _FIELDS and (text := _text_of(value)):
            flat[name] = text
    return {**nested, **flat} if nested else flat


def _put_nested(flat: Context, name: str, value: Mapping[str, Any]) -> None:
    if name == "screen":
        width, height = _text_of(value.get("width")), _text_of(value.get("height"))
        if width and height:
            flat["screenResolution"] = f"{width}x{height}"
        return
    for member, field in NESTED_CONTEXT.get(name, {}).items():
        if text := _text_of(value.get(member)):
            flat[field] = _DEVICE_TYPES.get(text.lower(), text) if field == "deviceType" else text


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value[:MAX_CONTEXT_TEXT]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def put_page(context: Context, sent: Sent) -> Context:
    """The context of a page event, with url, path, title and referrer from its properties where it has none.

    Segment's server SDKs send a page's address only as properties.
    """
    properties = sent.properties
    if sent.type != "page" or not properties:
        return context
    found = {name: text for name in PAGE_FIELDS if not context.get(name) and (text := _text_of(properties.get(name)))}
    return {**context, **found} if found else context


def name_event(sent: Sent) -> tuple[str, str] | None:
    """eventCategory and eventAction, by the event's type where it names none; None for a track event without a name."""
    category, action = sent.event_category, sent.event_action
    if category and action:
        return category, action
    default = DEFAULT_NAMES.get(sent.type) or _name_track(sent)
    if default is None:
        return None
    return category or default[0], action or default[1]


def _name_track(sent: Sent) -> tuple[str, str] | None:
    name = sent.event_action or sent.event
    if not name:
        return None
    category = (sent.properties or {}).get("category")
    return name_to_category_action(name, category if isinstance(category, str) and len(category) <= MAX_NAME else None)


def properties_of(sent: Sent) -> dict[str, Any]:
    """The event's properties, with Segment's traits, groupId, and category of a page or screen among them."""
    if sent.traits is None and sent.group_id is None and sent.category is None:
        return sent.properties or {}
    among = {"groupId": sent.group_id, "category": sent.category}
    put = {name: value for name, value in among.items() if value is not None}
    return {**put, **(sent.traits or {}), **(sent.properties or {})}
