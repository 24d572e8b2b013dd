"""The body of an HTTP request, read in pieces; and the forms that carry a query and its parameters."""

from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from typing import Protocol

from headrace.embedded.clickhouse_errors import QueryError

PIECE = 1 << 20
"""Largest piece of a body held at once, in bytes."""

QUERY_LIMIT = 64 << 20
"""Longest query text, an INSERT's streamed data not counted, in bytes."""

_DRAIN = 64 << 20


class Source(Protocol):
    """The receiving end of a connection."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, fewer at the end."""

    def readline(self, size: int, /) -> bytes:
        """The next line with its end, at most `size` bytes."""


class Headers(Protocol):
    """The headers of a request, their names in any case."""

    def get(self, name: str, default: str, /) -> str:
        """A header's value."""


class Body:
    """A request's body as an iterator over pieces of at most PIECE bytes, by its length or its chunks.

    Iterating raises ConnectionError where the client goes away before the end: half a body is never a body.
    """

    def __init__(self, source: Source, headers: Headers) -> None:
        self._source = source
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = headers.get("Content-Length", "0")
        self._left = 0 if self._chunked or not length.isdigit() else int(length)
        self._done = not self._chunked and not self._left

    def __iter__(self) -> Iterator[bytes]:
        while not self._done:
            if self._chunked and not self._left and not self._open_chunk():
                break
            piece = self._source.read(min(self._left, PIECE))
            if not piece:
                raise ConnectionError("The client went away in the middle of a request body.")
            self._left -= len(piece)
            if not self._left:
                self._end_chunk()
            yield piece

    def _open_chunk(self) -> bool:
        """Read a chunk's size; False at the last, empty one."""
        line = self._source.readline(64)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise ConnectionError(f"A chunk of a request body begins with {line!r} instead of its size.") from error
        if self._left:
            return True
        while self._source.readline(8192).strip():
            pass
        self._done = True
        return False

    def _end_chunk(self) -> None:
        if self._chunked:
            self._source.readline(2)
        else:
            self._done = True

    def drain(self) -> bool:
        """Read what nobody has read, so that the next request can follow; False where that is too much."""
        read = 0
        for piece in self:
            read += len(piece)
            if read > _DRAIN:
                return False
        return True


def read_until(pieces: Iterator[bytes], size: int) -> bytes:
    """The first pieces, at least `size` bytes of them if there are as many."""
    held = bytearray()
    while len(held) < size:
        piece = next(pieces, None)
        if piece is None:
            break
        held += piece
    return bytes(held)


def read_query(pieces: Iterator[bytes]) -> bytes:
    """All that is left of a body that is a query. Raises QueryError over QUERY_LIMIT."""
    text = read_until(pieces, QUERY_LIMIT + 1)
    if len(text) > QUERY_LIMIT:
        raise QueryError(229, f"The query is longer than {QUERY_LIMIT} bytes; send data with INSERT ... FORMAT")
    return text


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart/form-data body. Raises QueryError for one with files (external tables)."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields = {}
    for part in message.iter_parts():
        if part.get_filename():
            raise QueryError(48, "External tables are not supported by the embedded ClickHouse; use a temporary table")
        name = part.get_param("name", header="Content-Disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode(errors="replace")
    return fields
