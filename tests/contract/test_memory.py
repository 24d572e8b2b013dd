"""What must not stay in memory, so that a process that runs for days keeps its size."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from warehouse.client import ClickHouse


class Column(list[object]):
    """A list that tells when it is gone."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection of garbage: what refers to itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_what_was_inserted_is_let_go_of_at_once(client: ClickHouse) -> None:
    columns = [Column(["cluster"]), Column(["topic"]), Column(["log"]), Column([1])]
    gone = [weakref.ref(column) for column in columns]
    client.insert("logs", ("clusterId", "topic", "logId", "number"), columns, "token")
    del columns
    assert [column() for column in gone] == [None] * 4
    assert client.rows("SELECT count() FROM logs") == [(1,)]
