"""Rules for the properties of an event, compiled once and checked per event.

The catalog of first-class events and the tenants' tracking plans are both made of them.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

PropertyType = Literal["string", "number", "integer", "boolean", "object", "array"]
Scalar = bool | int | float | str
Length = Annotated[int, Field(ge=0)]

_PYTHON_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "string": frozenset({str}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "object": frozenset({dict}),
    "array": frozenset({list}),
}
#: Types of a value that need not be asked whether it is of the rule's type; 3.0 has to be.
_SURELY: Final[Mapping[str, frozenset[type]]] = {**_PYTHON_TYPES, "integer": frozenset({int})}
#: A name that a client chose is cut to this many characters before it is repeated in a message.
_SHOWN = 200


class PropertyRule(BaseModel):
    """What one property may be. A property that is null counts as absent.

    `pattern` has to match the whole value; lengths count characters.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    type: PropertyType | None = None
    required: bool = False
    forbidden: bool = False
    enum: tuple[Scalar, ...] | None = None
    pattern: str | None = None
    min_length: Length | None = None
    max_length: Length | None = None
    minimum: float | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.forbidden and self.model_fields_set > {"forbidden"}:
            raise ValueError("a forbidden property can have no other rule")
        if self.type != "string" and {"pattern", "min_length", "max_length"} & self.model_fields_set:
            raise ValueError("pattern, minLength and maxLength need type: string")
        if self.minimum is not None and self.type not in ("number", "integer"):
            raise ValueError("minimum needs type: number or integer")
        return self


class PropertyFault(NamedTuple):
    """The first property that breaks a rule: `field` as in the event's JSON, `message` a sentence."""

    kind: Literal["missing", "forbidden", "type"]
    field: str
    message: str


Check = Callable[[Any], str]  # '' or what the value must be


def _type_check(name: PropertyType) -> Check:
    wrong = f"must be {'an' if name[0] in 'aio' else 'a'} {name}"
    if name == "integer":  # 3.0 is one in JSON
        return lambda value: "" if type(value) is int or (type(value) is float and value.is_integer()) else wrong
    types = _PYTHON_TYPES[name]
    return lambda value: "" if type(value) in types else wrong


def _enum_check(allowed: tuple[Scalar, ...]) -> Check:
    shown = ", ".join(map(str, allowed))
    # true equals 1 in Python, not in JSON
    pairs = [(isinstance(item, bool), item) for item in allowed]
    return lambda value: "" if (isinstance(value, bool), value) in pairs else f"must be one of {shown}"


def _length_check(shortest: int, longest: int | None) -> Check:
    if shortest == longest:
        wrong = f"must have {longest} characters"
    else:
        wrong = f"must have {f'{shortest} to {longest}' if longest is not None else f'at least {shortest}'} characters"
    return lambda value: "" if shortest <= len(value) and (longest is None or len(value) <= longest) else wrong


def _checks(rule: PropertyRule) -> list[Check]:
    """The tests of one rule in the order in which they may assume the earlier ones."""
    checks = [_type_check(rule.type)] if rule.type else []
    if rule.min_length is not None or rule.max_length is not None:
        checks.append(_length_check(rule.min_length or 0, rule.max_length))
    if rule.enum is not None:
        checks.append(_enum_check(rule.enum))
    if rule.minimum is not None:
        minimum = rule.minimum
        checks.append(lambda value: "" if value >= minimum else f"must be {minimum:g} or more")
    if rule.pattern is not None:
        matches, wrong = re.compile(rule.pattern).fullmatch, f"must match {rule.pattern}"
        checks.append(lambda value: "" if matches(value) else wrong)
    return checks


class _Asked(NamedTuple):
    """A rule in the form that costs least: of a value of one of `types` only `more` of the `checks` are left."""

    name: str
    required: bool
    types: frozenset[type]
    more: list[Check]
    checks: list[Check] | None  # None: the property is forbidden


def _asked(name: str, rule: PropertyRule, checks: list[Check] | None) -> _Asked:
    if checks is None or rule.type is None:
        return _Asked(name, rule.required, frozenset(), [], checks)
    return _Asked(name, rule.required, _SURELY[rule.type], checks[1:], checks)


class PropertyRules:
    """The rules of one event, compiled. A name may end in '*' for every property that begins so.

    The exact name goes before the longest pattern. With `additional=False` a property without a rule is forbidden.
    """

    def __init__(self, rules: Mapping[str, PropertyRule], additional: bool = True) -> None:
        self._required = [name for name, rule in rules.items() if rule.required]
        # None: the property is forbidden; no checks: it is allowed whatever it holds
        compiled = {name: None if rule.forbidden else _checks(rule) for name, rule in rules.items()}
        self._exact = {name: checks for name, checks in compiled.items() if not name.endswith("*")}
        patterns = [(name[:-1], checks) for name, checks in compiled.items() if name.endswith("*")]
        self._prefixes = sorted(patterns, key=lambda pattern: -len(pattern[0]))
        self._otherwise: list[Check] | None = [] if additional else None
        # Where properties without a rule are nobody's concern, the rules are asked instead of the properties.
        asked = [_asked(name, rule, compiled[name]) for name, rule in rules.items()]
        self._asked = asked if additional and not self._prefixes else None
        #: No properties can break these rules.
        self.vacuous = additional and not self._required and not any(c is None or c for c in compiled.values())

    def are_kept(self, properties: Mapping[str, Any]) -> bool:
        """Whether the rules are surely kept, which nearly all properties are; where not, `find_fault` says more."""
        if self._asked is None:
            return False
        for name, required, types, more, checks in self._asked:
            value = properties.get(name)
            if value is None:
                if required:
                    return False
                continue
            left = more if type(value) in types else checks
            if left is None:
                return False
            for check in left:
                if check(value):
                    return False
        return True

    def find_fault(self, properties: Mapping[str, Any]) -> PropertyFault | None:
        """The first fault, or None."""
        if self.are_kept(properties):
            return None
        for name in self._required:
            if properties.get(name) is None:
                return PropertyFault("missing", f"properties.{name}", f"The property {name} is missing.")
        for name, value in properties.items():
            checks = self._exact[name] if name in self._exact else self._unnamed(name)
            if value is None or (checks is not None and not checks):
                continue
            fault = _fault(name, value, checks)
            if fault is not None:
                return fault
        return None

    def _unnamed(self, name: str) -> list[Check] | None:
        for prefix, checks in self._prefixes:
            if name.startswith(prefix):
                return checks
        return self._otherwise


def _fault(name: str, value: Any, checks: list[Check] | None) -> PropertyFault | None:
    name = name[:_SHOWN]
    if checks is None:
        return PropertyFault("forbidden", f"properties.{name}", f"The property {name} is not allowed.")
    for check in checks:
        wrong = check(value)
        if wrong:
            return PropertyFault("type", f"properties.{name}", f"The property {name} {wrong}.")
    return None


def join_properties(fields: Mapping[str, Any], text: str) -> bytes:
    """The JSON object of these fields and, as they stand in their text, of the properties, unless there are none.

    Raises ValueError where the text is no JSON, as with halves of surrogate pairs.
    """
    there = msgspec.json.decode(text) not in ("", None, {})
    return msgspec.json.encode({**fields, "properties": msgspec.Raw(text.encode())} if there else fields)


def parse_properties(text: str) -> Any:
    """The value of an event's properties as `json.loads` gives it, three times as fast; raises as that does."""
    try:
        return msgspec.json.decode(text)
    except Exception:  # NaN, infinite numbers and halves of surrogate pairs, which are no JSON; and all that is broken
        return json.loads(text)
