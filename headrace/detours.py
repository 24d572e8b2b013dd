"""Addresses of proxies that stand before the parts of `headrace up`."""

from pydantic import Field

from schemas.settings import HeadraceSettings


class DetourSettings(HeadraceSettings):
    """What collector and workers of `headrace up` connect to; empty: straight to broker and ClickHouse."""

    up_broker: str = Field("", description="host:port that collector and workers of `headrace up` take for the broker")
    up_clickhouse_url: str = Field("", description="URL that they take for ClickHouse")
