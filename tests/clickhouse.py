"""A ClickHouse for a test: one server for the run, a migrated database of its own for each test."""

import uuid
from collections.abc import Iterator

import pytest

from schemas.settings import ClickHouseSettings
from tests.contract.clickhouse_fixture import clickhouse_url
from warehouse.client import ClickHouse
from warehouse.migrate import Target, apply_migrations

#: Long, so that what tests store at a fixed time is kept whenever they run.
RETENTION_MONTHS = 600


@pytest.fixture(scope="session")
def warehouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with no database of ours."""
    with clickhouse_url(tmp_path_factory.mktemp("warehouse") / "clickhouse") as url:
        yield url


@pytest.fixture
def database() -> str:
    """The name of the test's database."""
    return f"test_{uuid.uuid4().hex}"


@pytest.fixture
def client(warehouse_url: str, database: str) -> Iterator[ClickHouse]:
    """A connection to a new database with every table; gone after the test."""
    connection = ClickHouse(ClickHouseSettings(clickhouse_url=warehouse_url, clickhouse_database=database))
    apply_migrations(connection, Target(database, retention_months=RETENTION_MONTHS))
    yield connection
    connection.command(f"DROP DATABASE {database}", database="default")
    connection.close()
