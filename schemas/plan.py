"""A tenant's tracking plan: which events and properties it allows, types and forbids.

A plan is about events with a name (page and track); identify, alias and group are not asked about.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from schemas.catalog import FIRST_CLASS_NAMES
from schemas.properties import PropertyRule, PropertyRules
from schemas.reasons import Reason

_MODEL: Final = ConfigDict(
    frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
)
_REASONS: Final[Mapping[str, Reason]] = {
    "missing": Reason.PLAN_MISSING_PROPERTY,
    "forbidden": Reason.PLAN_FORBIDDEN_PROPERTY,
    "type": Reason.PLAN_PROPERTY_TYPE,
}
#: Clients choose event names, so the memory for rules already found has to be bounded.
_REMEMBERED = 4096


class PlanViolation(NamedTuple):
    """Why the plan refuses an event: the field as in the event's JSON and a sentence."""

    reason: Reason
    field: str
    message: str


class EventRule(BaseModel):
    """What the plan says of one event or of all that match one pattern."""

    model_config = _MODEL

    forbidden: bool = False
    properties: dict[str, PropertyRule] = Field(default_factory=dict)
    additional_properties: bool = True

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.forbidden and (self.properties or not self.additional_properties):
            raise ValueError("a forbidden event can have no rules for its properties")
        for name, rule in self.properties.items():
            if "*" in name[:-1]:
                raise ValueError(f"the property {name} has a '*' that is not at its end")
            if name.endswith("*") and rule.required:
                raise ValueError(f"the property {name} is a pattern and cannot be required")
        return self


class _Compiled(NamedTuple):
    violation: PlanViolation | None
    rules: PropertyRules


class TrackingPlan(BaseModel):
    """The rules of one tenant; `mode: strict` forbids every event that is not listed.

    A key of `events` is "category/action", or a name as a `track` call sends it: a first-class name stands for its
    category and action, another for that action in any category. A key that ends in '*' stands for all that begin so.
    One rule applies to an event: category/action before name, then the longest pattern.
    """

    model_config = _MODEL

    mode: Literal["allow", "strict"] = "allow"
    events: dict[str, EventRule] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> Self:
        seen: dict[str, str] = {}
        for key in self.events:
            if not key or "*" in key[:-1]:
                raise ValueError(f"the event {key!r} is empty or has a '*' that is not at its end")
            if (other := seen.setdefault(_full_name(key), key)) != key:
                raise ValueError(f"the events {other!r} and {key!r} are the same one")
        return self

    def concerns(self, category: str, action: str) -> bool:
        """False: `check` returns None whatever the properties are, so they need not be parsed."""
        found = self._find(category, action)
        return found is not None and (found.violation is not None or not found.rules.vacuous)

    def check(self, category: str, action: str, properties: Mapping[str, Any]) -> PlanViolation | None:
        """How the event breaks the plan, or None."""
        found = self._find(category, action)
        if found is None or found.violation is not None:
            return found.violation if found else None
        fault = found.rules.find_fault(properties)
        return PlanViolation(_REASONS[fault.kind], fault.field, f"Tracking plan: {fault.message}") if fault else None

    @cached_property
    def _find(self) -> Callable[[str, str], _Compiled | None]:
        return lru_cache(_REMEMBERED)(_finder(self))


def _full_name(key: str) -> str:
    """category/action of a key that is a first-class name, else the key."""
    return "/".join(FIRST_CLASS_NAMES.get(key.lower(), (key,)))


def _finder(plan: TrackingPlan) -> Callable[[str, str], _Compiled | None]:
    """The rule of an event: by category/action, by action, by the longest pattern, by the plan's mode."""
    rules = {_full_name(key): _compile(rule) for key, rule in plan.events.items()}
    prefixes = sorted((key[:-1] for key in rules if key.endswith("*")), key=len, reverse=True)
    otherwise = _Compiled(_forbidden("is not in"), PropertyRules({})) if plan.mode == "strict" else None

    def find(category: str, action: str) -> _Compiled | None:
        name = f"{category}/{action}"
        found = rules.get(name) or ("/" not in action and rules.get(action))
        if found:
            return found
        for prefix in prefixes:
            if (name if "/" in prefix else action).startswith(prefix):
                return rules[f"{prefix}*"]
        return otherwise

    return find


def _compile(rule: EventRule) -> _Compiled:
    violation = _forbidden("is forbidden by") if rule.forbidden else None
    return _Compiled(violation, PropertyRules(rule.properties, rule.additional_properties))


def _forbidden(how: str) -> PlanViolation:
    return PlanViolation(Reason.PLAN_FORBIDDEN_EVENT, "eventAction", f"The event {how} the tenant's tracking plan.")
