"""The engine behind the HTTP interface: chdb, with one connection of its own for every request.

A connection costs a quarter of a millisecond and takes all of its settings with it, so nothing can leak from one
request to the next.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import chdb
from chdb import _chdb

from headrace.embedded.clickhouse_errors import parse_engine_error
from headrace.embedded.clickhouse_query import Insert, quote, set_statement

_SETTINGS_CLAUSE = re.compile(rb"(?is)\sSETTINGS\s+\w+\s*=[^`\"]*\Z")

RESULT_LIMIT = 1 << 30
"""Largest result of one query, in bytes: results are held in memory until they are sent."""

MERGE_NICENESS = 5
"""Merges may wait where inserts and queries may not: of one busy core they get a quarter, of an idle one all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answered: the bytes of its result and ClickHouse's counters for X-ClickHouse-Summary."""

    body: bytes
    summary: Mapping[str, str]


class Engine:
    """chdb on one folder. Thread-safe; raises QueryError for whatever ClickHouse refuses."""

    def __init__(self, path: str) -> None:
        """Raises RuntimeError where the folder cannot be opened."""
        _chdb.set_signal_handlers_enabled(0)  # type: ignore[attr-defined]
        self.path = path
        self._root = chdb.connect(f"{path}?os_threads_nice_value_merge_mutate={MERGE_NICENESS}")
        self.version = self.ask("SELECT version()", "TabSeparatedRaw")
        self.timezone = self.ask("SELECT timezone()", "TabSeparatedRaw")
        self.host = self.ask("SELECT hostName()", "TabSeparatedRaw")

    def ask(self, sql: str, output_format: str) -> str:
        """The result of a query of the server's own, as text."""
        with self.connection({}) as connection:
            return run_query(connection, sql.encode(), output_format).body.decode().rstrip("\n")

    def connect(self) -> Any:
        """A new connection, for the caller to close."""
        return chdb.connect(self.path)

    @contextmanager
    def connection(self, settings: Mapping[str, str]) -> Iterator[Any]:
        """A connection of one request's own, with `settings`."""
        connection = self.connect()
        try:
            apply_settings(connection, settings)
            yield connection
        finally:
            connection.close()

    def close(self) -> None:
        """Close the engine. No query may be running and no connection open."""
        self._root.close()


def apply_settings(connection: Any, settings: Mapping[str, str]) -> None:
    """Make `settings` those of a connection. Raises QueryError for a setting ClickHouse does not know."""
    if settings:
        run_query(connection, set_statement(settings).encode(), "Null")


def run_query(connection: Any, sql: bytes, output_format: str, values: Mapping[str, str] | None = None) -> Answer:
    """Run one query whose text holds all of its data; `values` are its parameters, escaped as in TabSeparated."""
    try:
        result = connection.query(sql, output_format, params=values)
    except Exception as error:
        raise parse_engine_error(error) from error
    summary = _summary(
        result.elapsed(),
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        result_bytes=result.size(),
    )
    return Answer(result.bytes() or b"", summary)


def run_insert(connection: Any, insert: Insert, pieces: Iterable[bytes]) -> Answer:
    """Insert `pieces`, in the insert's format, once all of them have come.

    They go by way of a file: chdb's streaming insert answers "done" when a materialized view has thrown, and its query
    text is no place for binary data.
    """
    with _open_file() as (data, path):
        for piece in pieces:
            data.write(piece)
        data.flush()
        return run_query(connection, _insert_from_file(insert, path), "Null")


@contextmanager
def _open_file() -> Iterator[tuple[IO[bytes], str]]:
    """An empty file and the path the engine finds it by: without a name, in memory, where the system can.

    Such a file cannot outlive the process: a kill -9 in the middle of an INSERT leaves nothing behind.
    """
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("insert"), "wb") as data:
            yield data, f"/proc/self/fd/{data.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="headrace-insert-") as data:
            yield data, data.name


def _insert_from_file(insert: Insert, path: str) -> bytes:
    target, settings = _split_settings(insert.statement)
    clauses = (target, f"FROM INFILE {quote(path)}".encode(), settings, f"FORMAT {insert.format}".encode())
    return b" ".join(clauses)


def _split_settings(statement: bytes) -> tuple[bytes, bytes]:
    """INSERT INTO … and its SETTINGS clause, b"" where there is none; FROM INFILE stands between them."""
    found = _SETTINGS_CLAUSE.search(statement)
    return (statement[: found.start()], found[0]) if found else (statement, b"")


def _summary(elapsed: float, **counters: int) -> dict[str, str]:
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "result_rows", "result_bytes")
    return {name: str(counters.get(name, 0)) for name in names} | {"elapsed_ns": str(int(elapsed * 1e9))}
