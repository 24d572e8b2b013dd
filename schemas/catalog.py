"""The first-class events: what each is called and what its properties have to be.

Only a missing required property or a wrong type refuses an event; properties that are not listed pass.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schemas.properties import PropertyRule, PropertyRules
from schemas.reasons import Reason

EventName = tuple[str, str]  # eventCategory, eventAction

_TEXT: Final = PropertyRule(type="string")
_NAME: Final = PropertyRule(type="string", required=True, min_length=1)
_COUNT: Final = PropertyRule(type="integer", minimum=0)
_FLAG: Final = PropertyRule(type="boolean")
_CONTENT_TYPE: Final = PropertyRule(type="string", enum=("manual", "video", "help_article", "procedure"))

_SUBSCRIPTION: Final = {"plan": _NAME, "oem": _TEXT, "seats": _COUNT}
_TICKET: Final = {"ticketId": _NAME, "status": _TEXT, "priority": _TEXT}

#: (eventCategory, eventAction) -> property -> rule.
FIRST_CLASS: Final[Mapping[EventName, Mapping[str, PropertyRule]]] = {
    ("page", "view"): {"url": _TEXT, "path": _TEXT, "title": _TEXT, "referrer": _TEXT},
    ("ui", "click"): {"element": _TEXT, "text": _TEXT, "href": _TEXT},
    # results: 0 is a failed search
    ("search", "search"): {"term": PropertyRule(type="string", required=True), "results": _COUNT},
    ("search", "result_click"): {
        "term": PropertyRule(type="string", required=True),
        "resultId": _NAME,
        "rank": PropertyRule(type="integer", required=True, minimum=1),
    },
    ("content", "view"): {
        "contentType": _CONTENT_TYPE.model_copy(update={"required": True}),
        "contentId": _NAME,
        "title": _TEXT,
    },
    ("content", "feedback"): {
        "contentId": _NAME,
        "contentType": _CONTENT_TYPE,
        "helpful": PropertyRule(type="boolean", required=True),
        "comment": _TEXT,
    },
    ("feature", "use"): {"feature": _NAME},
    ("subscription", "started"): _SUBSCRIPTION,
    ("subscription", "renewed"): _SUBSCRIPTION,
    ("subscription", "cancelled"): _SUBSCRIPTION,
    ("ticket", "opened"): _TICKET,
    ("ticket", "updated"): _TICKET,
    ("ticket", "closed"): _TICKET,
    ("vehicle", "selected"): {
        "vin": PropertyRule(type="string", required=True, min_length=17, max_length=17),
        "trim": _TEXT,
        "make": _TEXT,
        "model": _TEXT,
        "year": PropertyRule(type="integer"),
    },
    ("diagnostic", "step"): {
        "flow": _NAME,
        "step": _NAME,
        "outcome": PropertyRule(type="string", enum=("passed", "failed", "skipped", "inconclusive", "abandoned")),
        "recommendationFollowed": _FLAG,
    },
}

#: The names, in small letters, by which a Segment-style `track` call sends a first-class event.
FIRST_CLASS_NAMES: Final[Mapping[str, EventName]] = {
    "page view": ("page", "view"),
    "page viewed": ("page", "view"),
    "click": ("ui", "click"),
    "clicked": ("ui", "click"),
    "search": ("search", "search"),
    "searched": ("search", "search"),
    "search performed": ("search", "search"),
    "search result click": ("search", "result_click"),
    "search result clicked": ("search", "result_click"),
    "content view": ("content", "view"),
    "content viewed": ("content", "view"),
    "content feedback": ("content", "feedback"),
    "content feedback given": ("content", "feedback"),
    "feature use": ("feature", "use"),
    "feature used": ("feature", "use"),
    "subscription started": ("subscription", "started"),
    "subscription renewed": ("subscription", "renewed"),
    "subscription cancelled": ("subscription", "cancelled"),
    "subscription canceled": ("subscription", "cancelled"),
    "ticket opened": ("ticket", "opened"),
    "ticket updated": ("ticket", "updated"),
    "ticket closed": ("ticket", "closed"),
    "vehicle selected": ("vehicle", "selected"),
    "diagnostic step": ("diagnostic", "step"),
    "diagnostic step completed": ("diagnostic", "step"),
}

_RULES: Final = {name: PropertyRules(rules) for name, rules in FIRST_CLASS.items()}


class PropertyViolation(NamedTuple):
    """Why the properties of a first-class event are refused: the field as in the event's JSON and a sentence."""

    field: str
    message: str
    reason: Reason = Reason.PROPERTY_SCHEMA


def rules_of(category: str, action: str) -> PropertyRules | None:
    """The property schema of a first-class event; None for any other."""
    return _RULES.get((category, action))


def is_first_class(category: str, action: str) -> bool:
    """Whether the event has a property schema; if not, `check_properties` need not be asked."""
    return (category, action) in _RULES


def check_properties(category: str, action: str, properties: Mapping[str, Any]) -> PropertyViolation | None:
    """What is wrong with the properties of a first-class event, or None; any other event passes."""
    rules = rules_of(category, action)
    fault = rules.find_fault(properties) if rules else None
    return PropertyViolation(fault.field, fault.message) if fault else None


def name_to_category_action(event: str, properties_category: str | None) -> EventName:
    """eventCategory and eventAction of a Segment-style `track` call, from its `event` and `properties.category`.

    A first-class name, in whatever case, keeps its own category; any other name is the action.
    """
    return FIRST_CLASS_NAMES.get(event.lower()) or (properties_category or "track", event)
