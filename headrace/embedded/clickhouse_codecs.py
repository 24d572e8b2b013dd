"""The compressions ClickHouse's HTTP interface speaks: HTTP content encodings, and its own block format.

Incoming bodies are inflated piece by piece, so memory is bounded by the piece size whatever a body inflates to.
"""

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any

import cramjam
import lz4.frame  # type: ignore[import-untyped]

from headrace.embedded.clickhouse_body import PIECE
from headrace.embedded.clickhouse_cityhash import cityhash128
from headrace.embedded.clickhouse_errors import QueryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BLOCK = 1 << 16
_HEADER = Struct("<BII")
_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lambda data: bytes(lz4.frame.compress(data)),
    "zstd": lambda data: bytes(zstd.compress(data)),
    "gzip": lambda data: zlib.compress(data, 3, wbits=31),
    "deflate": lambda data: zlib.compress(data, 3),
    "br": lambda data: bytes(cramjam.brotli.compress(data, level=3)),
}


def pick_encoding(accept: str) -> str | None:
    """The content encoding for an answer, from the Accept-Encoding header; None = as it is."""
    offered = {entry.split(";")[0].strip().lower() for entry in accept.split(",")}
    return next((name for name in _COMPRESSORS if name in offered), None)


def compress(data: bytes, encoding: str) -> bytes:
    """`data` in the content encoding `pick_encoding` chose."""
    return _COMPRESSORS[encoding](data)


def inflate(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body behind a Content-Encoding header, in pieces of at most PIECE bytes; frames may follow each other.

    Raises QueryError for an unknown encoding and for damaged or truncated data.
    """
    if encoding in ("", "identity"):
        return iter(pieces)
    if encoding in ("gzip", "x-gzip"):
        return _inflate_zlib(pieces, 31)
    if encoding == "deflate":
        return _inflate_zlib(pieces, 15)
    if encoding == "lz4":
        return _inflate_frames(pieces, lz4.frame.LZ4FrameDecompressor)
    if encoding == "zstd":
        return _inflate_frames(pieces, zstd.ZstdDecompressor)
    raise QueryError(48, f"Content-Encoding {encoding!r} is not supported; use gzip, deflate, lz4 or zstd")


def _damaged(reason: object) -> QueryError:
    return QueryError(271, f"Cannot decompress the request body: {reason}")


def _inflate_zlib(pieces: Iterable[bytes], wbits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits)
    fresh = True
    for piece in pieces:
        rest = piece
        while rest:
            try:
                out = inflater.decompress(rest, PIECE)
            except zlib.error as error:
                raise _damaged(error) from error
            fresh = False
            if out:
                yield out
            rest = inflater.unconsumed_tail
            if inflater.eof:
                rest, inflater, fresh = inflater.unused_data, zlib.decompressobj(wbits), True
    if not fresh:
        raise _damaged("it ends before its end mark")


def _inflate_frames(pieces: Iterable[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    inflater = new()
    fresh = True
    for piece in pieces:
        rest = piece
        while rest or not inflater.needs_input:
            try:
                out = inflater.decompress(rest, PIECE)
            except (RuntimeError, zstd.ZstdError) as error:
                raise _damaged(error) from error
            fresh, rest = False, b""
            if out:
                yield out
            if inflater.eof:
                rest, inflater, fresh = inflater.unused_data or b"", new(), True
    if not fresh:
        raise _damaged("it ends before its end mark")


def to_blocks(data: bytes) -> bytes:
    """`data` in ClickHouse's own format (URL parameter compress=1): 16 bytes checksum, method, two sizes, LZ4."""
    out: list[bytes] = []
    for at in range(0, len(data), _BLOCK):
        plain = data[at : at + _BLOCK]
        packed = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        body = _HEADER.pack(_LZ4, len(packed) + _HEADER.size, len(plain)) + packed
        out += (cityhash128(body), body)
    return b"".join(out)


def from_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data behind ClickHouse's own format (URL parameter decompress=1), block by block.

    Raises QueryError for a wrong checksum, an unknown method, a block over 64 MiB and truncated data.
    """
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= 16 + _HEADER.size:
            size = _HEADER.unpack_from(held, 16)[1]
            if not _HEADER.size <= size <= 1 << 26:
                raise _damaged(f"a block of {size} bytes")
            if len(held) < 16 + size:
                break
            yield _open_block(bytes(held[:16]), bytes(held[16 : 16 + size]))
            del held[: 16 + size]
    if held:
        raise _damaged("it ends inside a block")


def _open_block(checksum: bytes, body: bytes) -> bytes:
    if cityhash128(body) != checksum:
        raise _damaged("the checksum of a block does not match")
    method, _, plain = _HEADER.unpack_from(body)
    packed = body[_HEADER.size :]
    if method == _NONE:
        return packed
    if plain > 1 << 28:
        raise _damaged(f"a block that inflates to {plain} bytes")
    try:
        if method == _LZ4:
            return bytes(cramjam.lz4.decompress_block(packed, output_len=plain))
        if method == _ZSTD:
            return bytes(zstd.decompress(packed))
    except (RuntimeError, ValueError, zstd.ZstdError, cramjam.DecompressionError) as error:
        raise _damaged(error) from error
    raise _damaged(f"unknown block method {method:#x}")
