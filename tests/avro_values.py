"""Hypothesis strategies made from Avro schemas: values of a schema, as fastavro takes them, and schemas."""

from typing import Any

from hypothesis import strategies as st

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, width=32),
    "double": st.floats(allow_nan=False),
    "string": _TEXT,
    "bytes": st.binary(max_size=12),
}


def values_of(schema: Any) -> st.SearchStrategy[Any]:
    """Values that fit the schema; it must name each type where it defines it."""
    if isinstance(schema, list):
        return st.one_of([values_of(branch) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({field["name"]: values_of(field["type"]) for field in schema["fields"]})
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array":
            return st.lists(values_of(schema["items"]), max_size=3)
        case "map":
            return st.dictionaries(_TEXT, values_of(schema["values"]), max_size=3)
        case kind:
            return values_of(kind)


@st.composite
def _types(draw: st.DrawFn, name: str, depth: int) -> tuple[Any, Any]:
    """A type and a default that fits it; named types take their names from `name`."""
    kinds = ["int", "long", "float", "double", "string", "boolean", "optional", "enum", "array", "map"]
    match kind := draw(st.sampled_from([*kinds, "record"] if depth else kinds)):
        case "optional":
            return ["null", draw(st.sampled_from(["long", "double", "string"]))], None
        case "enum":
            symbols = draw(st.lists(st.sampled_from("ABCD"), min_size=1, unique=True))
            return {"type": "enum", "name": f"{name}Enum", "symbols": symbols}, symbols[0]
        case "array":
            return {"type": "array", "items": draw(_types(name, 0))[0]}, []
        case "map":
            return {"type": "map", "values": draw(_types(name, 0))[0]}, {}
        case "record":
            return draw(records(f"{name}Record", depth - 1)), None
        case _:
            return kind, {"string": "", "boolean": False}.get(kind, 0)


@st.composite
def records(draw: st.DrawFn, name: str = "Top", depth: int = 1) -> dict[str, Any]:
    """Record schemas that share field and type names, so that two of them are often nearly compatible."""
    fields = []
    for field in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        kind, default = draw(_types(f"{name}{field}", depth))
        has_default = not str(kind).startswith("{'type': 'record'") and draw(st.booleans())
        fields.append({"name": field, "type": kind, **({"default": default} if has_default else {})})
    return {"type": "record", "name": name, "fields": fields}
