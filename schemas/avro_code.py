"""Avro readers and writers as straight Python code, made from a schema: three to five times as fast as general ones.

The code knows the one form in which our own writer puts a value: each array and map in one block without its size.
Whatever else Avro allows, and all that is broken, it refuses by any exception; `schemas.codec` then asks fastavro,
which stays the reference. Avro's encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from schemas.avro_numbers import (
    FIRST_BYTE,
    LENGTH,
    MORE,
    OF_FIRST,
    OF_LAST_FOUR,
    OF_SECOND,
    RESTS,
    SECOND_BYTE,
    TAKES,
    decode_length,
    decode_long,
    encode_long,
    pack_double,
    unpack_double,
    unpack_time,
)

#: Bytes and where the value begins -> the value and where it ends, which may be beyond the bytes if they are cut short.
Read = Callable[[bytes, int], tuple[Any, int]]
#: The value -> its bytes.
Write = Callable[[Any], bytes]
Lines = Iterator[str]
#: Lines to run first, and the inside of a formatted string.
Text = tuple[list[str], str]


class NoCode(NotImplementedError):
    """The schema has a type that nothing here writes code for."""


def compile_reader(schema: Any) -> Read:
    """A reader of a schema without logical types that defines each type where it uses it; raises NoCode."""
    return _Reading().reader(schema)


def compile_writer(schema: Any) -> Write:
    """A writer of such a schema; raises NoCode."""
    return _Writing().writer(schema)


class _Code:
    """Code and what it names; a subclass has a method for each kind of type."""

    def __init__(self, **names: Any) -> None:
        self._names = {"__name__": __name__, **names}
        self._numbers = count()

    def _of(self, schema: Any) -> Callable[[Any, str], Any]:
        """The method for a type; raises NoCode."""
        kind = "union" if isinstance(schema, list) else schema["type"] if isinstance(schema, dict) else schema
        method: Callable[[Any, str], Any] | None = getattr(self, f"_of_{kind}", None)
        if method is None:
            raise NoCode(f"There is no code for the Avro type {kind}.")
        return method

    def _new_name(self) -> str:
        return f"v{next(self._numbers)}"

    def _constant(self, value: object) -> str:
        name = self._new_name().upper()
        self._names[name] = value
        return name

    def _compile(self, parameter: str, lines: Iterable[str], answer: str) -> Any:
        source = [f"def code({parameter}):", *_indent(lines), f" return {answer}"]
        exec("\n".join(source), self._names)  # made of the project's own schema files alone
        return self._names["code"]


def _indent(lines: Iterable[str]) -> list[str]:
    return [f" {line}" for line in lines]


class _Reading(_Code):
    """For every type the lines that read the value at `at` into a name.

    `text` has the data's bytes as the characters of the same numbers: a piece of it that is ASCII is a string as it is.
    """

    def __init__(self) -> None:
        super().__init__(
            MORE=MORE,
            OF_FIRST=OF_FIRST,
            OF_LAST_FOUR=OF_LAST_FOUR,
            OF_SECOND=OF_SECOND,
            TAKES=TAKES,
            decode_length=decode_length,
            decode_long=decode_long,
            unpack_double=unpack_double,
            unpack_time=unpack_time,
        )

    def reader(self, schema: Any) -> Read:
        """The function of a schema."""
        read: Read = self._compile("data, at", self._whole(schema), "value, at")
        return read

    def _whole(self, schema: Any) -> Lines:
        yield "text = data.decode('latin-1')"
        yield from self._lines(schema, "value")

    def _lines(self, schema: Any, name: str) -> Lines:
        lines: Lines = self._of(schema)(schema, name)
        return lines

    def _of_string(self, _: Any, name: str) -> Lines:
        yield f"if not (n := data[at]): {name} = ''; at += 1"
        yield "else:"
        yield f" if n < 128: {name} = text[at + 1 : (at := at + TAKES[n])]"
        yield f" elif (m := data[at + 1]) < 128: {name} = text[at + 2 : (at := at + TAKES[n] + MORE[m])]"
        yield f" else: n, at = decode_length(data, at); {name} = text[at : (at := at + n)]"
        yield f" if not {name}.isascii(): {name} = {name}.encode('latin-1').decode()"

    def _of_long(self, _: Any, name: str) -> Lines:
        yield "n, m, rest = unpack_time(data, at)"
        yield f"if rest in OF_LAST_FOUR: {name} = OF_FIRST[n] + OF_SECOND[m] + OF_LAST_FOUR[rest]; at += 6"
        yield f"else: {name}, at = decode_long(data, at)"

    def _of_double(self, _: Any, name: str) -> Lines:
        yield f"{name}, = unpack_double(data, at); at += 8"

    def _of_enum(self, schema: Any, name: str) -> Lines:
        symbols = self._constant(dict(zip(range(0, 128, 2), schema["symbols"], strict=False)))
        yield f"{name} = {symbols}[data[at]]; at += 1"

    def _of_union(self, schema: Any, name: str) -> Lines:
        yield "n = data[at]; at += 1"
        yield f"if not n: {name} = None"
        yield "elif n != 2: raise ValueError"
        yield "else:"
        yield from _indent(self._lines(_optional(schema), name))

    def _of_record(self, schema: Any, name: str) -> Lines:
        names = {field["name"]: self._new_name() for field in schema["fields"]}
        for field in schema["fields"]:
            yield from self._lines(field["type"], names[field["name"]])
        yield f"{name} = {{{', '.join(f'{field!r}: {each}' for field, each in names.items())}}}"

    def _of_array(self, schema: Any, name: str) -> Lines:
        item = self._new_name()
        yield f"{name} = []"
        yield from self._block([*self._lines(schema["items"], item), f"{name}.append({item})"])

    def _of_map(self, schema: Any, name: str) -> Lines:
        key, value = self._new_name(), self._new_name()
        yield f"{name} = {{}}"
        yield from self._block(
            [*self._lines("string", key), *self._lines(schema["values"], value), f"{name}[{key}] = {value}"]
        )

    def _block(self, each: list[str]) -> Lines:
        yield "n = data[at]; at += 1"
        yield "if n:"
        yield " if n & 129:"
        yield "  n, at = decode_length(data, at - 1)"
        yield "  if not n: raise ValueError"  # the end, in more bytes than it takes
        yield " else: n >>= 1"
        yield " for _ in range(n):"
        yield from _indent(_indent(each))
        yield " if data[at]: raise ValueError"
        yield " at += 1"


class _Writing(_Code):
    """For every type the lines that make a value's text from a name, and what puts it into a formatted string.

    The text has the value's bytes as the characters of the same numbers: many small pieces of bytes cost twice as much
    to put together as one formatted string. ASCII text is its own, and nearly all text is ASCII.
    """

    def __init__(self) -> None:
        super().__init__(
            FIRST_BYTE=FIRST_BYTE,
            LENGTH=LENGTH,
            NULL="\0",
            RESTS=RESTS,
            SECOND_BYTE=SECOND_BYTE,
            SOME="\2",
            double_of=_encode_double,
            long_of=encode_long,
        )

    def writer(self, schema: Any) -> Write:
        """The function of a schema."""
        lines, text = self._text(schema, "value")
        write: Write = self._compile("value", lines, f'f"{text}".encode("latin-1")')
        return write

    def _text(self, schema: Any, value: str) -> Text:
        text: Text = self._of(schema)(schema, value)
        return text

    def _of_string(self, _: Any, value: str) -> Text:
        return self._characters([value]), f"{{LENGTH[len({value})]}}{{{value}}}"

    def _characters(self, strings: list[str]) -> list[str]:
        """Put their bytes' characters in the place of strings unless all are ASCII; one look costs less than many."""
        if not strings:
            return []
        are_ascii = f"''.join(({', '.join(strings)},)).isascii()"  # refuses what is no string
        return [f"if not {are_ascii}:", *(f" {each} = {each}.encode().decode('latin-1')" for each in strings)]

    def _of_long(self, _: Any, value: str) -> Text:
        first, second, rest = self._new_name(), self._new_name(), self._new_name()
        lines = [
            f"if {rest} := RESTS.get({value} >> 13):",
            f" low = {value} & 8191; {first} = FIRST_BYTE[low & 63]; {second} = SECOND_BYTE[low >> 6]",
            f"else: {first} = long_of({value}); {second} = {rest} = ''",
        ]
        return lines, f"{{{first}}}{{{second}}}{{{rest}}}"

    def _of_double(self, _: Any, value: str) -> Text:
        return [], f"{{double_of({value})}}"

    def _of_enum(self, schema: Any, value: str) -> Text:
        symbols = {symbol: encode_long(number) for number, symbol in enumerate(schema["symbols"])}
        return [], f"{{{self._constant(symbols)}[{value}]}}"

    def _of_union(self, schema: Any, value: str) -> Text:
        some = self._new_name()
        lines, text = self._text(_optional(schema), value)
        lines = [f"if {value} is None: {some} = NULL", "else:", *_indent([*lines, f'{some} = f"{{SOME}}{text}"'])]
        return lines, f"{{{some}}}"

    def _of_record(self, schema: Any, value: str) -> Text:
        names = {field["name"]: self._new_name() for field in schema["fields"]}
        strings = [names[field["name"]] for field in schema["fields"] if field["type"] == "string"]
        lines = [f"{each} = {value}[{name!r}]" for name, each in names.items()]
        lines += self._characters(strings)
        texts = []
        for field in schema["fields"]:
            each = names[field["name"]]
            if each in strings:
                texts.append(f"{{LENGTH[len({each})]}}{{{each}}}")
            else:
                more, text = self._text(field["type"], each)
                lines += more
                texts.append(text)
        return lines, "".join(texts)

    def _of_array(self, schema: Any, value: str) -> Text:
        item = self._new_name()
        return self._block(value, f"{item} in {value}", *self._text(schema["items"], item))

    def _of_map(self, schema: Any, value: str) -> Text:
        member = self._new_name()
        pair = {"fields": [{"name": 0, "type": "string"}, {"name": 1, "type": schema["values"]}]}
        return self._block(value, f"{member} in {value}.items()", *self._of_record(pair, member))

    def _block(self, value: str, each: str, lines: list[str], text: str) -> Text:
        whole, items = self._new_name(), self._new_name()
        lines = [
            f"if {value}:",
            f" {items} = []",
            f" for {each}:",
            *_indent(_indent([*lines, f'{items}.append(f"{text}")'])),
            f" {whole} = LENGTH[len({items})] + ''.join({items}) + NULL",
            f"elif not len({value}): {whole} = NULL",  # what has no length, as None, is no array
        ]
        return lines, f"{{{whole}}}"


def _encode_double(number: float) -> str:
    if isinstance(number, bool):
        raise TypeError(number)
    return pack_double(number).decode("latin-1")


def _optional(schema: Any) -> Any:
    if len(schema) != 2 or schema[0] != "null":
        raise NoCode("There is code for unions of null with one other type only.")
    return schema[1]
