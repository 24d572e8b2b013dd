"""Fixtures that several contract suites share."""

from tests.clickhouse import client, database, warehouse_url

__all__ = ["client", "database", "warehouse_url"]
