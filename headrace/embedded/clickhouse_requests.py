"""One request to ClickHouse's HTTP interface, without the HTTP: from URL parameters and a body to a result's bytes."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from headrace.embedded.clickhouse_body import read_query, read_until
from headrace.embedded.clickhouse_codecs import compress, from_blocks, inflate, pick_encoding, to_blocks
from headrace.embedded.clickhouse_engine import RESULT_LIMIT, Answer, apply_settings, run_insert, run_query
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_native import CUSTOM_SERIALIZATION_REVISION, upgrade_native
from headrace.embedded.clickhouse_query import (
    find_keyword,
    find_result_format,
    has_result,
    keeps_session_state,
    parse_query_parameters,
    parse_settings,
    split_insert,
)
from headrace.embedded.clickhouse_sessions import Sessions

_HEAD = 1 << 18  # An INSERT's data begins within ClickHouse's default max_query_size.
_TRUE = frozenset({"1", "true"})

_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
}


def content_type(output_format: str) -> str:
    """The Content-Type of a result in `output_format`."""
    return _CONTENT_TYPES.get(output_format, "text/plain; charset=UTF-8")


def open_data(parameters: Mapping[str, str], body: Iterable[bytes], content_encoding: str) -> Iterator[bytes]:
    """The query and what follows it, inflated: the URL's part, a line break, the body's part."""
    pieces = inflate(body, content_encoding.lower())
    if parameters.get("decompress") in _TRUE:
        pieces = from_blocks(pieces)
    query = parameters.get("query", "")
    return chain((query.encode() + b"\n",), pieces) if query else pieces


def run_request(
    sessions: Sessions, parameters: Mapping[str, str], data: Iterator[bytes], read_only: bool
) -> tuple[Answer, str]:
    """The answer and its format; "" for a statement that answers with no rows. Raises QueryError."""
    head = read_until(data, _HEAD)
    keyword = find_keyword(head)
    insert = split_insert(head)
    settings = {"max_result_bytes": str(RESULT_LIMIT)} if insert is None else {}
    settings |= parse_settings(parameters, read_only)
    values = parse_query_parameters(parameters)
    with sessions.connection(parameters, settings, keeps_session_state(keyword, head)) as connection:
        if insert is not None:
            apply_settings(connection, {f"param_{name}": value for name, value in values.items()})
            return run_insert(connection, insert, chain((head[insert.data_at :],), data)), ""
        sql = head + read_query(data)
        if not sql.strip():
            raise QueryError(62, "Syntax error: the query is empty")
        default = parameters.get("default_format") or "TabSeparated"
        answer = run_query(connection, sql, default, values)
        return answer, find_result_format(sql, default) if has_result(keyword) or answer.body else ""


def encode_result(parameters: Mapping[str, str], body: bytes, output_format: str) -> bytes:
    """A result as the client's protocol revision wants it."""
    revision = parameters.get("client_protocol_version", "")
    newer = revision.isdigit() and int(revision) >= CUSTOM_SERIALIZATION_REVISION
    return upgrade_native(body) if newer and output_format == "Native" else body


def compress_answer(parameters: Mapping[str, str], accept: str, body: bytes) -> tuple[bytes, str | None]:
    """An answer or an error compressed as the client wants it, and its Content-Encoding if it has one."""
    if parameters.get("compress") in _TRUE:
        return to_blocks(body), None
    encoding = pick_encoding(accept) if body and parameters.get("enable_http_compression") in _TRUE else None
    return (compress(body, encoding), encoding) if encoding else (body, None)
