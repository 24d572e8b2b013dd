"""Fixtures that several contract suites share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.clickhouse import client, database, warehouse_url
from tests.contract.broker_fixture import Broker, new_broker
from tests.kafka.server import KafkaCluster, running_kafka
from tests.stack import BROKERS

__all__ = ["client", "database", "warehouse_url"]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Apache Kafka, one node, for the whole run."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """Each broker that Headrace runs on, with empty topics."""
    broker = await new_broker(request.param, request, tmp_path)
    try:
        await broker.create_topics()
        yield broker
    finally:
        broker.release()
