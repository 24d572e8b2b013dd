"""The Native format at the protocol revision a client asks for with `client_protocol_version`.

chdb writes revision 0 only. From revision 54454 on each block begins with a block info and each column's type is
followed by one byte (0 = default serialization); clickhouse-go, and so Grafana, reads nothing else over HTTP.
A column's length follows from its type alone, so the columns are measured and copied, not decoded.
"""

import re
from collections.abc import Callable
from struct import Struct

from clickhouse_connect.driver.common import write_leb128

from headrace.embedded.clickhouse_errors import QueryError

CUSTOM_SERIALIZATION_REVISION = 54454
"""First revision with a serialization byte per column (DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION)."""

_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_u64 = Struct("<Q").unpack_from
_HEAD = re.compile(r"\w+")
_TYPE_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|.", re.S)

_WIDTHS = {
    1: "Bool Int8 UInt8 Enum8 Nothing",
    2: "Int16 UInt16 Enum16 Date BFloat16",
    4: "Int32 UInt32 Float32 Date32 DateTime IPv4 Decimal32 Time",
    8: "Int64 UInt64 Float64 DateTime64 Decimal64 Time64",
    16: "Int128 UInt128 UUID IPv6 Decimal128",
    32: "Int256 UInt256 Decimal256",
}
_WIDTH = {name: width for width, names in _WIDTHS.items() for name in names.split()}
_ALIASES = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}


def upgrade_native(data: bytes) -> bytes:
    """Blocks of revision 0 as blocks of CUSTOM_SERIALIZATION_REVISION.

    Raises QueryError for columns of types whose length depends on more than the type (JSON, Dynamic, Variant,
    AggregateFunction).
    """
    out: list[bytes] = []
    at = 0
    while at < len(data):
        columns, at = _varint(data, at)
        rows, at = _varint(data, at)
        out += (_BLOCK_INFO, _to_varint(columns), _to_varint(rows))
        for _ in range(columns):
            start = at
            at = _skip_string(data, at)
            length, at = _varint(data, at)
            kind, at = data[at : at + length].decode(), at + length
            end = _skip_values(data, at + _prefix_length(kind), kind, rows) if rows else at
            out += (data[start:at], b"\x00", data[at:end])
            at = end
    return b"".join(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _to_varint(value: int) -> bytes:
    out = bytearray()
    write_leb128(value, out)
    return bytes(out)


def _skip_string(data: bytes, at: int) -> int:
    length, at = _varint(data, at)
    return at + length


def _skip_values(data: bytes, at: int, kind: str, rows: int) -> int:
    """Where `rows` values of type `kind` that begin at `at` end."""
    name, arguments = _split_type(kind)
    if name == "String":
        for _ in range(rows):
            at = _skip_string(data, at)
        return at
    if name in _NESTED:
        return _NESTED[name](data, at, arguments, rows)
    return at + rows * _width(kind, name, arguments)


def _split_type(kind: str) -> tuple[str, list[str]]:
    kind = _ALIASES.get(kind, kind)
    head = _HEAD.match(kind)
    name = head[0] if head else kind
    inside = kind[len(name) + 1 : -1]
    return name, [argument.strip() for argument in _split_outside(inside, ",")] if inside else []


def _split_outside(text: str, separator: str) -> list[str]:
    """`text` split where `separator` stands outside parentheses and quotes."""
    parts, depth, start = [], 0, 0
    for token in _TYPE_TOKEN.finditer(text):
        depth += (token[0] == "(") - (token[0] == ")")
        if token[0] == separator and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    return [*parts, text[start:]]


def _width(kind: str, name: str, arguments: list[str]) -> int:
    if name == "FixedString":
        return int(arguments[0])
    if name == "Decimal":
        precision = int(arguments[0])
        return next(width for limit, width in ((9, 4), (18, 8), (38, 16), (76, 32)) if precision <= limit)
    width = 8 if name.startswith("Interval") else _WIDTH.get(name)
    if width is None:
        raise QueryError(48, f"Type {kind} cannot be sent in the Native format with client_protocol_version; cast it")
    return width


def _prefix_length(kind: str) -> int:
    """The bytes before a column's values: a version for each LowCardinality in its type."""
    name, arguments = _split_type(kind)
    if name == "LowCardinality":
        return 8
    return sum(_prefix_length(_split_outside(argument, " ")[-1]) for argument in arguments) if name in _NESTED else 0


def _skip_low_cardinality(data: bytes, at: int, arguments: list[str], _rows: int) -> int:
    """A dictionary of the distinct values, without nulls, then an index for each row."""
    flags, keys = _u64(data, at)[0], _u64(data, at + 8)[0]
    name, inner = _split_type(arguments[0])
    at = _skip_values(data, at + 16, inner[0] if name == "Nullable" else arguments[0], keys)
    (rows,) = _u64(data, at)
    return at + 8 + int(rows << (flags & 0xFF))


def _skip_nullable(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    return _skip_values(data, at + rows, arguments[0], rows)


def _skip_array(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    end = at + 8 * rows
    inner = _u64(data, end - 8)[0]
    return _skip_values(data, end, arguments[0], inner) if inner else end


def _skip_tuple(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    for argument in arguments:
        at = _skip_values(data, at, _split_outside(argument, " ")[-1], rows)  # An element may have a name.
    return at


def _skip_map(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    return _skip_array(data, at, [f"Tuple({', '.join(arguments)})"], rows)


def _skip_nested(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    return _skip_array(data, at, [f"Tuple({', '.join(arguments)})"], rows)


def _skip_simple(data: bytes, at: int, arguments: list[str], rows: int) -> int:
    return _skip_values(data, at, arguments[-1], rows)


_NESTED: dict[str, Callable[[bytes, int, list[str], int], int]] = {
    "Nullable": _skip_nullable,
    "LowCardinality": _skip_low_cardinality,
    "Array": _skip_array,
    "Tuple": _skip_tuple,
    "Map": _skip_map,
    "Nested": _skip_nested,
    "SimpleAggregateFunction": _skip_simple,
}
