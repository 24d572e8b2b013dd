# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Avro records read and written by compiled code: a tree of types made from a schema, walked in C.

It takes the plain form of bytes, and plain values alone: dict with names that are str, list, str, int, float and None
themselves, no subclasses. Whatever else Avro allows, and all that is broken, it refuses by an exception;
`schemas.codec` then asks fastavro, which stays the reference.
Avro's encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding

Nothing is read beyond the data: each read compares with its end first. The data bounds what is allocated as well: a
string is as long as what is there, and every item of an array or map takes a byte at least.

While a value is written, no Python code runs and nothing is made that the garbage collector knows, so that nothing
can change meanwhile: references are borrowed, and a list has as many items as it had.
"""

from sys import intern

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Copy, PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem
from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_Append, PyList_CheckExact
from cpython.long cimport PyLong_AsDouble, PyLong_AsLongLong, PyLong_CheckExact, PyLong_FromLongLong
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcmp, memcpy


cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void prefetch "__builtin_prefetch"(const void *p) noexcept
    double PyFloat_Unpack8(const char *data, int little_endian) except? -1.0
    int PyFloat_Pack8(double number, char *data, int little_endian) except -1


class NoCode(NotImplementedError):
    """The schema has a type that nothing here reads and writes."""


def compile_reader(schema):
    """A reader of a schema without logical types that defines each type where it uses it; raises NoCode."""
    return _Whole(_type_of(schema)).read


def compile_writer(schema):
    """A writer of such a schema; raises NoCode."""
    return _Whole(_type_of(schema)).write


cdef struct Source:
    const unsigned char *at
    const unsigned char *end


cdef struct Sink:
    unsigned char *data
    size_t size
    size_t room


cdef enum:
    LONGEST_NUMBER = 10  # bytes that 64 bits take, seven in each
    FIRST_ROOM = 4096  # bytes
    SHORT = 20  # bytes


cdef uint64_t MIX = 0x9E3779B97F4A7C15  # odd, as many bits set as not


cdef str _EMPTY = ""
#: Short texts read before, each where `_place` says. Most are names that come again and again: the same object takes no
#: memory, and is in the processor's cache when the rows are made.
cdef list _KNOWN = [_EMPTY] * 4096


cdef int _refuse(str why) except -1:
    raise ValueError(why)


cdef inline size_t _left(Source *source) noexcept:
    return <size_t>(source.end - source.at)


cdef inline int _read_number(Source *source, int64_t *number) except -1:
    cdef uint64_t bits = 0, byte
    cdef int shift = 0
    while True:
        if source.at == source.end:
            return _refuse("The data ends in a number.")
        byte = source.at[0]
        source.at += 1
        if shift == 63 and byte > 1:
            return _refuse("A number has more than 64 bits.")
        bits |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    number[0] = <int64_t>(bits >> 1)
    if bits & 1:
        number[0] = ~number[0]
    return 0


cdef inline int _read_length(Source *source, size_t *length) except -1:
    """A string's bytes or a block's items, of which there cannot be more than bytes left."""
    cdef int64_t number = 0
    _read_number(source, &number)
    if number < 0 or <uint64_t>number > _left(source):
        return _refuse("A length is negative or beyond the data.")
    length[0] = <size_t>number
    return 0


cdef inline size_t _place(const char *text, size_t length) noexcept:
    """Of 1 to SHORT bytes, by the first and the last of them."""
    cdef uint64_t first = 0, last = 0
    cdef size_t end = length if length < 8 else 8
    memcpy(&first, text, end)
    memcpy(&last, text + length - end, end)
    return <size_t>(((first ^ length) * MIX ^ last) * MIX >> 52)


cdef inline object _read_text(Source *source):
    cdef size_t length = 0
    _read_length(source, &length)
    cdef const char *text = <const char *>source.at
    source.at += length
    if length == 0:
        return _EMPTY
    if length > SHORT:
        return PyUnicode_DecodeUTF8(text, <Py_ssize_t>length, NULL)
    cdef size_t place = _place(text, length)
    cdef object known = _KNOWN[place]
    if <size_t>PyUnicode_GET_LENGTH(known) == length and not memcmp(PyUnicode_DATA(known), text, length):
        return known
    known = PyUnicode_DecodeUTF8(text, <Py_ssize_t>length, NULL)
    if PyUnicode_IS_COMPACT_ASCII(known):  # whose characters are its bytes
        _KNOWN[place] = known
    return known


cdef int _grow(Sink *sink, size_t more) except -1:
    cdef size_t room = sink.room * 2
    if room < sink.size + more:
        room = sink.size + more
    cdef void *data = PyMem_Realloc(sink.data, room)
    if data == NULL:
        raise MemoryError
    sink.data = <unsigned char *>data
    sink.room = room
    return 0


cdef inline int _reserve(Sink *sink, size_t more) except -1:
    """Room for as many bytes; they are the size of something in memory, so that their sum is one too."""
    return _grow(sink, more) if sink.room - sink.size < more else 0


cdef inline void _put_number(Sink *sink, int64_t number) noexcept:
    """Where LONGEST_NUMBER bytes are reserved."""
    cdef uint64_t bits = <uint64_t>number << 1
    if number < 0:
        bits = ~bits
    while bits > 127:
        sink.data[sink.size] = <unsigned char>(bits & 127 | 128)
        sink.size += 1
        bits >>= 7
    sink.data[sink.size] = <unsigned char>bits
    sink.size += 1


cdef inline int _write_number(Sink *sink, int64_t number) except -1:
    _reserve(sink, LONGEST_NUMBER)
    _put_number(sink, number)
    return 0


cdef int _write_bytes(Sink *sink, const void *data, size_t length) except -1:
    _reserve(sink, LONGEST_NUMBER + length)
    _put_number(sink, <int64_t>length)
    memcpy(sink.data + sink.size, data, length)
    sink.size += length
    return 0


cdef inline int _write_text(Sink *sink, object text) except -1:
    if not PyUnicode_CheckExact(text):
        return _refuse("A string is none.")
    if PyUnicode_IS_COMPACT_ASCII(text):
        return _write_bytes(sink, PyUnicode_DATA(text), <size_t>PyUnicode_GET_LENGTH(text))
    cdef bytes data = PyUnicode_AsUTF8String(text)
    return _write_bytes(sink, PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


cdef class _Type:
    """A type of a schema; read and write raise what they raise where data or value are not of it."""

    cdef object read(self, Source *source):
        raise NotImplementedError

    cdef int write(self, Sink *sink, object value) except -1:
        raise NotImplementedError


cdef class _String(_Type):
    cdef object read(self, Source *source):
        return _read_text(source)

    cdef int write(self, Sink *sink, object value) except -1:
        return _write_text(sink, value)


cdef class _Long(_Type):
    cdef object read(self, Source *source):
        cdef int64_t number = 0
        _read_number(source, &number)
        return PyLong_FromLongLong(number)

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyLong_CheckExact(value):  # true is no number
            return _refuse("A long is none.")
        return _write_number(sink, PyLong_AsLongLong(value))


cdef class _Int(_Type):
    """A long of 32 bits: what has more is fastavro's to judge."""

    cdef object read(self, Source *source):
        cdef int64_t number = 0
        _read_number(source, &number)
        if number != <int32_t>number:
            _refuse("An int has more than 32 bits.")
        return PyLong_FromLongLong(number)

    cdef int write(self, Sink *sink, object value) except -1:
        cdef int64_t number
        if not PyLong_CheckExact(value):
            return _refuse("An int is none.")
        number = PyLong_AsLongLong(value)
        if number != <int32_t>number:
            return _refuse("An int has more than 32 bits.")
        return _write_number(sink, number)


cdef class _Boolean(_Type):
    cdef object read(self, Source *source):
        if source.at == source.end or source.at[0] > 1:
            _refuse("A boolean is none.")
        cdef bint value = source.at[0]
        source.at += 1
        return value

    cdef int write(self, Sink *sink, object value) except -1:
        if value is not True and value is not False:
            return _refuse("A boolean is none.")
        _reserve(sink, 1)
        sink.data[sink.size] = value is True
        sink.size += 1
        return 0


cdef class _Bytes(_Type):
    cdef object read(self, Source *source):
        cdef size_t length = 0
        _read_length(source, &length)
        source.at += length
        return PyBytes_FromStringAndSize(<const char *>source.at - length, <Py_ssize_t>length)

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyBytes_CheckExact(value):
            return _refuse("Bytes are none.")
        return _write_bytes(sink, PyBytes_AS_STRING(value), <size_t>PyBytes_GET_SIZE(value))


cdef class _Double(_Type):
    cdef object read(self, Source *source):
        if _left(source) < 8:
            _refuse("The data ends in a double.")
        cdef const char *data = <const char *>source.at
        source.at += 8
        return PyFloat_Unpack8(data, 1)

    cdef int write(self, Sink *sink, object value) except -1:
        cdef double number
        if PyFloat_CheckExact(value):
            number = value
        elif PyLong_CheckExact(value):
            number = PyLong_AsDouble(value)
        else:
            return _refuse("A double is none.")
        _reserve(sink, 8)
        PyFloat_Pack8(number, <char *>sink.data + sink.size, 1)
        sink.size += 8
        return 0


cdef class _Enum(_Type):
    cdef tuple symbols
    cdef dict numbers

    def __init__(self, schema):
        self.symbols = tuple(map(intern, schema["symbols"]))
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    cdef object read(self, Source *source):
        cdef int64_t number = 0
        _read_number(source, &number)
        if number < 0 or number >= len(self.symbols):
            _refuse("An enum has no such symbol.")
        return self.symbols[<Py_ssize_t>number]

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyUnicode_CheckExact(value):
            return _refuse("A symbol is no string.")
        return _write_number(sink, self.numbers[value])


cdef class _Optional(_Type):
    cdef _Type some

    def __init__(self, schema):
        if len(schema) != 2 or schema[0] != "null":
            raise NoCode("There is code for unions of null with one other type only.")
        self.some = _type_of(schema[1])
        if isinstance(self.some, (_Record, _Map)):  # a member may name the type that fastavro then looks for
            raise NoCode("There is no code for dicts in unions.")

    cdef object read(self, Source *source):
        cdef int64_t number = 0
        _read_number(source, &number)
        if number == 0:
            return None
        if number != 1:
            _refuse("A union has two types.")
        return self.some.read(source)

    cdef int write(self, Sink *sink, object value) except -1:
        if value is None:
            return _write_number(sink, 0)
        _write_number(sink, 1)
        return self.some.write(sink, value)


cdef class _Record(_Type):
    cdef tuple names, types
    #: The record with every string empty. A copy of it costs less than a dict that grows, and most strings of a
    #: context are empty.
    cdef dict empty

    def __init__(self, schema):
        self.names = tuple(intern(field["name"]) for field in schema["fields"])  # found without being compared
        self.types = tuple(_type_of(field["type"]) for field in schema["fields"])
        self.empty = dict.fromkeys(self.names, "")
        if not self.names:  # it takes no byte, so that nothing would bound an array of them
            raise NoCode("There is no code for records without fields.")

    cdef object read(self, Source *source):
        cdef dict record = PyDict_Copy(self.empty)
        cdef object value
        cdef Py_ssize_t place
        for place in range(len(self.names)):
            value = (<_Type>self.types[place]).read(source)
            if value is not _EMPTY:
                PyDict_SetItem(record, self.names[place], value)
        return record

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyDict_CheckExact(value):
            return _refuse("A record is no dict.")
        cdef PyObject *name
        cdef PyObject *member
        cdef Py_ssize_t place = 0
        # A name of another type could run Python code when a field is looked for. And members are often no longer in
        # the processor's cache: fetched all at once, a record is written in two thirds of the time.
        while PyDict_Next(value, &place, &name, &member):
            if not PyUnicode_CheckExact(<object>name):
                return _refuse("A name is no string.")
            prefetch(member)
        for place in range(len(self.names)):
            member = PyDict_GetItemWithError(value, self.names[place])
            if member == NULL:
                return _refuse("A field is missing.")
            (<_Type>self.types[place]).write(sink, <object>member)
        return 0


cdef class _Array(_Type):
    cdef _Type items

    def __init__(self, schema):
        self.items = _type_of(schema["items"])

    cdef object read(self, Source *source):
        cdef list array = []
        cdef size_t count = 0, number
        _read_length(source, &count)
        while count:
            for number in range(count):
                PyList_Append(array, self.items.read(source))
            _read_length(source, &count)
        return array

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyList_CheckExact(value):
            return _refuse("An array is no list.")
        cdef list array = value
        cdef Py_ssize_t count = len(array), place
        if count:
            _write_number(sink, count)
            for place in range(count):
                if place + 1 < count:
                    prefetch(<PyObject *>array[place + 1])
                self.items.write(sink, array[place])
        return _write_number(sink, 0)


cdef class _Map(_Type):
    cdef _Type values

    def __init__(self, schema):
        self.values = _type_of(schema["values"])

    cdef object read(self, Source *source):
        cdef dict members = {}
        cdef object name
        cdef size_t count = 0, number
        _read_length(source, &count)
        while count:
            for number in range(count):
                name = _read_text(source)
                PyDict_SetItem(members, name, self.values.read(source))
            _read_length(source, &count)
        return members

    cdef int write(self, Sink *sink, object value) except -1:
        if not PyDict_CheckExact(value):
            return _refuse("A map is no dict.")
        cdef Py_ssize_t count = len(<dict>value), place = 0
        cdef PyObject *name
        cdef PyObject *member
        if count:
            _write_number(sink, count)
            while PyDict_Next(value, &place, &name, &member):
                _write_text(sink, <object>name)
                self.values.write(sink, <object>member)
        return _write_number(sink, 0)


_TYPES = {
    "string": _String,
    "long": _Long,
    "int": _Int,
    "boolean": _Boolean,
    "bytes": _Bytes,
    "double": _Double,
    "enum": _Enum,
    "union": _Optional,
    "record": _Record,
    "array": _Array,
    "map": _Map,
}


cdef _Type _type_of(schema):
    kind = "union" if isinstance(schema, list) else schema["type"] if isinstance(schema, dict) else schema
    if not isinstance(kind, str) or kind not in _TYPES:
        raise NoCode(f"There is no code for the Avro type {kind}.")
    made = _TYPES[kind]
    return made(schema) if kind in ("enum", "union", "record", "array", "map") else made()


cdef class _Whole:
    """What is outermost: Python's bytes on one side, Python's value on the other."""

    cdef _Type type

    def __init__(self, _Type type):
        self.type = type

    def read(self, bytes data not None, Py_ssize_t at):
        """The value that begins at `at`, and where it ends; raises ValueError where there is none."""
        cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Source source
        if at < 0 or at > PyBytes_GET_SIZE(data):
            _refuse("A value begins outside of the data.")
        source.at = start + at
        source.end = start + PyBytes_GET_SIZE(data)
        value = self.type.read(&source)
        return value, source.at - start

    def write(self, value):
        """The value's bytes; raises what it raises where the value is not of the type."""
        cdef Sink sink
        sink.size = 0
        sink.room = FIRST_ROOM
        sink.data = <unsigned char *>PyMem_Malloc(sink.room)
        if sink.data == NULL:
            raise MemoryError
        try:
            self.type.write(&sink, value)
            return PyBytes_FromStringAndSize(<char *>sink.data, <Py_ssize_t>sink.size)
        finally:
            PyMem_Free(sink.data)
