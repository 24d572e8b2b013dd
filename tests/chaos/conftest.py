"""Fixtures that several of the suites share."""

from tests.clickhouse import client, database, warehouse_url

__all__ = ["client", "database", "warehouse_url"]
