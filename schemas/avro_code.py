"""Avro readers and writers as straight Python code, made from a schema: three to five times as fast as general ones.

The code knows the one form in which our own writer puts a value: each array and map in one block without its size.
Whatever else Avro allows, and all that is broken, it refuses by any exception; `schemas.codec` then asks fastavro,
which stays the reference. Avro's encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from schemas.avro_numbers import LENGTH, decode_length, decode_long, encode_long, pack_double, unpack_double

#: Bytes and where the value begins -> the value and where it ends, which may be beyond the bytes if they are cut short.
Read = Callable[[bytes, int], tuple[Any, int]]
#: The value -> its bytes.
Write = Callable[[Any], bytes]
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
    text_of = eval(f"lambda value: {code.of(schema, 'value')}", code.names)  # made of the project's own schema files

    def write(value: Any) -> bytes:
        encoded: bytes = text_of(value).encode("latin-1")
        return encoded

    return write


def _indent(lines: Lines) -> Lines:
    return (f" {line}" for line in lines)


class _Reading:
    """Lines that read the value at `at` into a name."""

    def __init__(self) -> None:
        self._numbers = count()
        self._names: dict[str, Any] = {
            "__name__": __name__,
            "decode_length": decode_length,
            "decode_long": decode_long,
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


class _Writing:
    """A function for each record and map of a schema, and for every value an expression that is its text.

    The text has the value's bytes as the characters of the same numbers: many small pieces of bytes cost twice as much
    to put together as one formatted string. ASCII text is its own, and nearly all text is ASCII.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {
            "__name__": __name__,
            "LENGTH": LENGTH,
            "NULL": "\0",
            "SOME": "\2",
            "characters_of": _characters_of,
            "long_of": encode_long,
            "double_of": _double_of,
            "string_of": _string_of,
        }
        self._numbers = count()

    def of(self, schema: Any, value: str) -> str:
        """The expression for the value that an expression gives."""
        kind = "union" if isinstance(schema, list) else schema["type"] if isinstance(schema, dict) else schema
        expression_of = getattr(self, f"_{kind}", None)
        if expression_of is None:
            raise NoCode(f"There is no code for the Avro type {kind}.")
        return str(expression_of(schema, value))

    def _string(self, _: Any, value: str) -> str:
        return f"string_of({value})"

    def _long(self, _: Any, value: str) -> str:
        return f"long_of({value})"

    def _double(self, _: Any, value: str) -> str:
        return f"double_of({value})"

    def _enum(self, schema: Any, value: str) -> str:
        symbols = {symbol: encode_long(number) for number, symbol in enumerate(schema["symbols"])}
        return f"{self._name(symbols)}[{value}]"

    def _union(self, schema: Any, value: str) -> str:
        return f"(NULL if {value} is None else SOME + {self.of(_optional(schema), value)})"

    def _array(self, schema: Any, value: str) -> str:
        each = self.of(schema["items"], "item")
        called = each.removesuffix("(item)")
        items = called if called.isidentifier() else self._function(["item"], each)
        return f"(LENGTH[len({value})] + ''.join(map({items}, {value})) + NULL if {value} else NULL)"

    def _map(self, schema: Any, value: str) -> str:
        items = self._function(["member"], f"string_of(member[0]) + {self.of(schema['values'], 'member[1]')}")
        return f"(LENGTH[len({value})] + ''.join(map({items}, {value}.items())) + NULL if {value} else NULL)"

    def _record(self, schema: Any, value: str) -> str:
        names = {field["name"]: f"v{at}" for at, field in enumerate(schema["fields"])}
        strings = [names[field["name"]] for field in schema["fields"] if field["type"] == "string"]
        lines = [f" {each} = value[{name!r}]" for name, each in names.items()]
        # One look at all strings together instead of one at each.
        lines += [f" if not ''.join(({', '.join(strings)},)).isascii():"] if strings else []
        lines += [f"  {each} = characters_of({each})" for each in strings]
        parts = []
        for field in schema["fields"]:
            each = names[field["name"]]
            parts += [f"LENGTH[len({each})]", each] if each in strings else [self.of(field["type"], each)]
        text = "".join(f"{{{part}}}" for part in parts)
        return f"{self._function(['value'], f'f{text!r}', lines)}({value})"

    def _function(self, parameters: list[str], expression: str, lines: Iterable[str] = ()) -> str:
        name = f"code{next(self._numbers)}"
        source = [f"def {name}({', '.join(parameters)}):", *lines, f" return {expression}"]
        exec("\n".join(source), self.names)  # made of the project's own schema files alone
        return name

    def _name(self, value: object) -> str:
        name = f"CONSTANT{next(self._numbers)}"
        self.names[name] = value
        return name


def _characters_of(text: str) -> str:
    return text if text.isascii() else text.encode().decode("latin-1")


def _string_of(text: str) -> str:
    characters = _characters_of(text)
    return LENGTH[len(characters)] + characters


def _double_of(number: float) -> str:
    return pack_double(number).decode("latin-1")


def _optional(schema: Any) -> Any:
    if len(schema) != 2 or schema[0] != "null":
        raise NoCode("There is code for unions of null with one other type only.")
    return schema[1]
