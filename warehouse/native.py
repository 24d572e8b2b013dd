"""Columns of values as one block of ClickHouse's Native format, which an INSERT carries.

Most columns of events hold few different values, and hold the same one for all events of a record. Such values are
encoded once, which costs a fifth of writing each of them. Source of the format: ClickHouse's documentation of Native
and of the serialization of LowCardinality; all other values are written by clickhouse-connect's own types.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.common import write_leb128
from clickhouse_connect.driver.insert import InsertContext

_LOW_CARDINALITY: Final = "LowCardinality(String)"
#: Version of the keys' serialization; then, for each block: a dictionary of its own, with all of its keys.
_KEYS_VERSION: Final = (1).to_bytes(8, "little")
_OWN_DICTIONARY: Final = 1 << 9 | 1 << 10


class Runs:
    """A column in which each of `values` stands as often in a row as `counts` says."""

    def __init__(self, values: Sequence[Any], counts: Sequence[int]) -> None:
        self.values = values
        self.counts = counts

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(repeat, self.values, self.counts))


Column = Sequence[Any] | Runs


def encode_block(names: Sequence[str], types: Mapping[str, str], columns: Sequence[Column]) -> bytearray:
    """The columns under these names; `types` are ClickHouse's by name, times are milliseconds or datetimes."""
    block = bytearray()
    write_leb128(len(names), block)
    write_leb128(len(columns[0]), block)
    context = InsertContext("", (), ())
    for name, column in zip(names, columns, strict=True):
        kind = types[name]
        block += _string(name) + _string(kind)
        if kind == _LOW_CARDINALITY:
            _put_low_cardinality(column, block)
        elif kind == "String" and isinstance(column, Runs):
            block += _repeated(column, _string)
        else:
            values = list(column) if isinstance(column, Runs) else column
            get_from_name(kind).write_column(values, block, context)
    return block


def _put_low_cardinality(column: Column, block: bytearray) -> None:
    keys = dict.fromkeys(column.values if isinstance(column, Runs) else column)
    width, code = next((1 << power, power) for power in range(3) if len(keys) <= 1 << (8 << power))
    block += _KEYS_VERSION + _u64(_OWN_DICTIONARY | code) + _u64(len(keys))
    block += b"".join(map(_string, keys))
    block += _u64(len(column))
    numbers = dict(zip(keys, range(len(keys)), strict=True))
    if len(keys) == 1:
        block += bytes(width * len(column))
    elif isinstance(column, Runs):
        block += _repeated(column, lambda value: numbers[value].to_bytes(width, "little"))
    else:
        block += array("BHI"[code], map(numbers.__getitem__, column)).tobytes()


def _repeated(column: Runs, encode: Callable[[str], bytes]) -> bytes:
    encoded = {value: encode(value) for value in dict.fromkeys(column.values)}
    return b"".join([encoded[value] * count for value, count in zip(column.values, column.counts, strict=True)])


def _string(text: str) -> bytes:
    data = text.encode()
    length = bytearray()
    write_leb128(len(data), length)
    return bytes(length) + data


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
