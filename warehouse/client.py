"""The connection to ClickHouse: clickhouse-connect with the settings that exactness needs, errors as sentences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from schemas.blocks import StoreUnavailable
from schemas.settings import ClickHouseSettings
from warehouse.native import Column, encode_block

_T = TypeVar("_T")

#: Sent with every insert: on disk before the answer; a repeated token changes neither the table nor its views. A block
#: is one part in one pipeline: more threads cost a fifth more and are not faster.
INSERT_SETTINGS: Final = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "insert_deduplicate": 1,
    "materialized_views_ignore_errors": 0,
    "max_insert_threads": 1,
    "max_threads": 1,
    "wait_end_of_query": 1,
}
#: A block's lookup names its ids in the query.
QUERY_SETTINGS: Final = {"max_query_size": 256 << 20, "max_ast_elements": 10_000_000}
#: The driver's messages repeat the whole query.
_SHOWN: Final = 200


class ClickHouseUnavailable(Exception):
    """ClickHouse does not answer; the message names its address."""


class ClickHouse:
    """One connection; use one per thread of work. Raises ClickHouseUnavailable or ClickHouseError."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._types: dict[str, Mapping[str, str]] = {}

    def _connected(self) -> Client:
        if self._client is None:
            url = urlsplit(self._settings.clickhouse_url)
            ca_file = self._settings.clickhouse_ca_file
            try:
                self._client = clickhouse_connect.get_client(
                    interface=url.scheme,
                    host=url.hostname or "127.0.0.1",
                    port=url.port or (8443 if url.scheme == "https" else 8123),
                    username=self._settings.clickhouse_username,
                    password=self._settings.clickhouse_password.get_secret_value(),
                    database="default",
                    ca_cert=str(ca_file) if ca_file else None,
                    autogenerate_session_id=False,
                    send_receive_timeout=300,
                    compress=False,
                )
            except (ClickHouseError, OSError) as error:
                raise self._unavailable(error) from error
            self._client.database = self._settings.clickhouse_database
        return self._client

    def _unavailable(self, error: Exception) -> ClickHouseUnavailable:
        return ClickHouseUnavailable(
            f"ClickHouse at {self._settings.clickhouse_url} does not answer: {str(error)[:_SHOWN]}"
        )

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None, database: str | None = None) -> None:
        """Runs a statement that returns nothing; `database` other than the settings' where it does not exist yet."""
        client = self._connected()
        before, client.database = client.database, database or client.database
        try:
            client.command(sql, parameters=dict(parameters or {}))
        except OperationalError as error:
            raise self._unavailable(error) from error
        finally:
            client.database = before

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The result's rows; parameters by ClickHouse's own {name:Type} form."""
        return list(zip(*self.columns(sql, parameters), strict=True))

    def columns(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """The result's columns, for large answers; none at all where there are no rows."""
        try:
            result = self._connected().query(sql, parameters=dict(parameters or {}), settings=QUERY_SETTINGS)
        except OperationalError as error:
            raise self._unavailable(error) from error
        columns: Sequence[Sequence[Any]] = result.result_columns
        return columns

    def blocks(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[Sequence[Sequence[Any]]]:
        """The result's columns block by block, for the largest answers; every String as bytes."""
        client, formats = self._connected(), {"String": "bytes"}
        try:
            with client.query_column_block_stream(
                sql, parameters=dict(parameters), settings=QUERY_SETTINGS, query_formats=formats
            ) as stream:
                yield from stream
        except OperationalError as error:
            raise self._unavailable(error) from error

    def named(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The result's rows as column -> value, for small answers."""
        try:
            result = self._connected().query(sql, parameters=dict(parameters or {}))
        except OperationalError as error:
            raise self._unavailable(error) from error
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def insert(self, table: str, names: Sequence[str], columns: Sequence[Column], token: str) -> None:
        """Inserts columns under a deduplication token: once, however often it is repeated."""
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        block = encode_block(names, self._types_of(table), columns)
        try:
            self._connected().raw_insert(table, names, block, settings=settings, fmt="Native")
        except OperationalError as error:
            raise self._unavailable(error) from error
        except ClickHouseError:
            self._types.pop(table, None)  # the table may be another one now
            raise

    def _types_of(self, table: str) -> Mapping[str, str]:
        """The types of a table's columns, asked once: an insert names its types, and the server converts old ones."""
        if table not in self._types:
            self._types[table] = {name: kind for name, kind, *_ in self.rows(f"DESCRIBE TABLE {table}")}
        return self._types[table]

    def close(self) -> None:
        """Lets go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def available(call: Callable[[], _T]) -> _T:
    """The call's answer; StoreUnavailable where ClickHouse does not answer or refuses, which the stores promise."""
    try:
        return call()
    except (ClickHouseUnavailable, ClickHouseError) as error:
        raise StoreUnavailable(str(error)) from error
