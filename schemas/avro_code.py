"""Avro readers and writers as straight Python code, made from a schema: three to five times as fast as general ones.

The code knows the one form in which our own writer puts a value: each array and map in one block without its size.
Whatever else Avro allows, and all that is broken, it refuses by any exception; `schemas.codec` then asks fastavro,
which stays the reference. Avro's encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from schemas.avro_numbers import SHORT, decode_length, decode_long, encode_long, pack_double, unpack_double

#: Bytes and where the value begins -> the value and where it ends, which may be beyond the bytes if they are cut short.
Read = Callable[[bytes, int], tuple[Any, int]]
#: The value -> the pieces of its bytes.
Write = Callable[[Any], list[bytes]]
Lines = Iterator[str]


class NoCode(NotImplementedError):
    """The schema has a type that nothing here writes code for."""


def compile_reader(schema: Any) -> Read:
    """A reader of a schema without logical types that defines each type where it uses it; raises NoCode."""
    code = _Reading()
    read: Read = code.run(["def code(data, at):", *_indent(code.lines(schema, "value")), " return value, at"])
    return read


def compile_writer(schema: Any) -> Write:
    """A writer of such a schema; raises NoCode."""
    code = _Writing()
    write: Write = code.run(["def code(value):", " out = []", *_indent(code.lines(schema, "value")), " return out"])
    return write


def _indent(lines: Lines) -> Lines:
    return (f" {line}" for line in lines)


class _Code:
    """Fresh names for the values on the way, and the lines of a schema by its kind."""

    def __init__(self) -> None:
        self._numbers = count()
        self._names: dict[str, Any] = {
            "SHORT": SHORT,
            "decode_length": decode_length,
            "decode_long": decode_long,
            "encode_long": encode_long,
            "pack_double": pack_double,
            "unpack_double": unpack_double,
        }

    def run(self, lines: list[str]) -> Any:
        """The function `code` of these lines."""
        exec("\n".join(lines), self._names)  # made of the project's own schema files alone
        return self._names["code"]

    def lines(self, schema: Any, name: str) -> Lines:
        """Code for the value called `name`."""
        kind = "union" if isinstance(schema, list) else schema["type"] if isinstance(schema, dict) else schema
        lines_of = getattr(self, f"_{kind}", None)
        if lines_of is None:
            raise NoCode(f"There is no code for the Avro type {kind}.")
        yield from lines_of(schema, name)

    def _name(self) -> str:
        return f"v{next(self._numbers)}"

    def _constant(self, value: object) -> str:
        name = self._name().upper()
        self._names[name] = value
        return name


class _Reading(_Code):
    """Lines that read the value at `at` into a name."""

    def _string(self, _: Any, name: str) -> Lines:
        yield "n = data[at]; at += 1"
        yield f"if not n: {name} = ''"
        yield "else:"
        yield " if n & 129: n, at = decode_length(data, at - 1)"  # 64 bytes and more, or negative
        yield f" {name} = data[at:(at := at + (n >> 1))].decode()"

    def _long(self, _: Any, name: str) -> Lines:
        yield f"{name}, at = decode_long(data, at)"

    def _double(self, _: Any, name: str) -> Lines:
        yield f"{name}, = unpack_double(data, at); at += 8"

    def _enum(self, schema: Any, name: str) -> Lines:
        symbols = self._constant(dict(zip(range(0, 128, 2), schema["symbols"], strict=False)))
        yield f"{name} = {symbols}[data[at]]; at += 1"

    def _union(self, schema: Any, name: str) -> Lines:
        other = _optional(schema)
        yield "at += 1"
        yield f"if data[at - 1] == 0: {name} = None"
        yield "elif data[at - 1] != 2: raise ValueError"
        yield "else:"
        yield from _indent(self.lines(other, name))

    def _record(self, schema: Any, name: str) -> Lines:
        names = [self._name() for _ in schema["fields"]]
        for field, each in zip(schema["fields"], names, strict=True):
            yield from self.lines(field["type"], each)
        members = (f"{field['name']!r}: {each}" for field, each in zip(schema["fields"], names, strict=True))
        yield f"{name} = {{{', '.join(members)}}}"

    def _array(self, schema: Any, name: str) -> Lines:
        item = self._name()
        yield f"{name} = []"
        yield from self._block([*self.lines(schema["items"], item), f"{name}.append({item})"])

    def _map(self, schema: Any, name: str) -> Lines:
        key, value = self._name(), self._name()
        yield f"{name} = {{}}"
        yield from self._block(
            [*self.lines("string", key), *self.lines(schema["values"], value), f"{name}[{key}] = {value}"]
        )

    def _block(self, each: list[str]) -> Lines:
        yield "n = data[at]; at += 1"
        yield "if n:"
        yield " if n & 129: n, at = decode_length(data, at - 1)"
        yield " for _ in range(n >> 1):"
        yield from _indent(_indent(iter(each)))
        yield " if data[at]: raise ValueError"
        yield " at += 1"


class _Writing(_Code):
    """Lines that put the bytes of a named value into `out`."""

    def _string(self, _: Any, name: str) -> Lines:
        yield f"if {name}: {name} = {name}.encode(); out += SHORT[len({name})], {name}"
        yield "else: out.append(b'\\0')"

    def _long(self, _: Any, name: str) -> Lines:
        yield f"out.append(encode_long({name}))"

    def _double(self, _: Any, name: str) -> Lines:
        yield f"out.append(pack_double({name}))"

    def _enum(self, schema: Any, name: str) -> Lines:
        symbols = self._constant({symbol: encode_long(number) for number, symbol in enumerate(schema["symbols"])})
        yield f"out.append({symbols}[{name}])"

    def _union(self, schema: Any, name: str) -> Lines:
        other = _optional(schema)
        yield f"if {name} is None: out.append(b'\\0')"
        yield "else:"
        yield " out.append(b'\\2')"
        yield from _indent(self.lines(other, name))

    def _record(self, schema: Any, name: str) -> Lines:
        for field in schema["fields"]:
            each = self._name()
            yield f"{each} = {name}[{field['name']!r}]"
            yield from self.lines(field["type"], each)

    def _array(self, schema: Any, name: str) -> Lines:
        item = self._name()
        yield from self._block(name, f"for {item} in {name}:", self.lines(schema["items"], item))

    def _map(self, schema: Any, name: str) -> Lines:
        key, value = self._name(), self._name()
        each = [*self.lines("string", key), *self.lines(schema["values"], value)]
        yield from self._block(name, f"for {key}, {value} in {name}.items():", iter(each))

    def _block(self, name: str, loop: str, each: Lines) -> Lines:
        yield f"if {name}:"
        yield f" out.append(SHORT[len({name})])"
        yield f" {loop}"
        yield from _indent(_indent(each))
        yield "out.append(b'\\0')"


def _optional(schema: Any) -> Any:
    if len(schema) != 2 or schema[0] != "null":
        raise NoCode("There is code for unions of null with one other type only.")
    return schema[1]
