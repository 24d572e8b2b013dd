"""The client of the log against a real broker: order, sessions, bounds, and the bytes of the protocol."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from collector.log_client import LogClient, RecordTooLarge
from collector.partition_queue import LogUnavailable, Position
from collector.record_batch import encode_batch, partition_of
from schemas.topics import COLLECTED, MAX_RECORD_BYTES, PARTITIONS, RECORD_OVERHEAD
from tests.contract.broker_fixture import Broker, new_broker
from tests.stack import BROKERS


@pytest.fixture
async def client(broker: Broker) -> AsyncIterator[LogClient]:
    client = LogClient(broker.options, ack_seconds=2.0)
    yield client
    await client.close()


async def append(client: LogClient, key: bytes, value: bytes, session: int | None = None) -> Position:
    return await (await client.append(COLLECTED, key, value, session))


@given(st.binary(max_size=80), st.integers(1, 500))
def test_a_key_belongs_to_the_partition_that_kafkas_default_partitioner_gives_it(key: bytes, partitions: int) -> None:
    expected = DefaultPartitioner()(key, list(range(partitions)), list(range(partitions)))
    assert partition_of(key, partitions) == expected


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), min_size=1, max_size=20))
def test_a_batch_is_what_kafka_clients_read(records: list[tuple[bytes, bytes]]) -> None:
    batch = MemoryRecords(encode_batch(records, 1_760_000_000_000)).next_batch()
    assert batch.validate_crc()
    assert [(r.key, r.value, r.offset, r.timestamp) for r in batch] == [
        (key, value, n, 1_760_000_000_000) for n, (key, value) in enumerate(records)
    ]


async def test_each_partition_has_its_records_in_the_order_of_the_calls(broker: Broker, client: LogClient) -> None:
    sent: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
    positions = []
    for n in range(5_000):
        key = b"visitor%d" % (n % 97)
        sent[partition_of(key, PARTITIONS)].append(b"%d" % n)
        positions.append((b"%d" % n, await client.append(COLLECTED, key, b"%d" % n)))
    told: dict[int, dict[int, bytes]] = {number: {} for number in range(PARTITIONS)}
    for value, acknowledged in positions:
        partition, offset = await acknowledged
        told[partition][offset] = value
    found = {number: [v for _, v in records] for number, records in (await broker.records(COLLECTED)).items()}
    assert found == sent
    assert {number: [by[n] for n in sorted(by)] for number, by in told.items()} == sent


async def test_the_largest_record_passes_and_a_larger_one_is_refused(client: LogClient) -> None:
    largest = MAX_RECORD_BYTES - RECORD_OVERHEAD - 1
    assert (await append(client, b"k", os.urandom(largest))).offset == 0
    with pytest.raises(RecordTooLarge):
        await client.append(COLLECTED, b"k", bytes(largest + 1))


async def test_a_record_of_an_earlier_session_fails_though_the_broker_is_back(
    broker: Broker, client: LogClient
) -> None:
    await append(client, b"k", b"before")
    session = client.session
    broker.kill()
    broker.start()
    await broker.create_topics()
    with pytest.raises(LogUnavailable):
        await append(client, b"k", b"after", session)
    assert client.session > session
    assert (await append(client, b"k", b"later")).offset == int(broker.keeps)


async def test_a_record_without_a_session_outlasts_a_restart_of_the_broker(broker: Broker) -> None:
    client = LogClient(broker.options, ack_seconds=30.0)
    await append(client, b"k", b"before")
    broker.kill()
    waiting = await client.append(COLLECTED, b"k", b"during")
    await asyncio.sleep(0.3)
    broker.start()
    await broker.create_topics()
    assert (await waiting).offset == int(broker.keeps)
    await client.close()


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_missing_topic_is_waited_for_until_the_time_is_up(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    broker = await new_broker(kind, request, tmp_path)
    client = LogClient(broker.options, ack_seconds=1.0)
    try:
        with pytest.raises(LogUnavailable, match=r"no topic events\.collected"):
            await client.append(COLLECTED, b"k", b"early")
        waiting = asyncio.create_task(append(client, b"k", b"patient"))
        await asyncio.sleep(0.3)
        await broker.create_topics()
        assert (await waiting).offset == 0
    finally:
        await client.close()
        broker.release()


async def test_a_broker_that_hangs_fails_every_record_in_time_and_serves_again_afterwards(
    broker: Broker, client: LogClient
) -> None:
    await append(client, b"k", b"before")
    broker.pause()
    try:
        waiting = [await client.append(COLLECTED, b"k%d" % n, b"during") for n in range(200)]
        async with asyncio.timeout(10):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {LogUnavailable}
        assert not client.available
    finally:
        broker.resume()
    await append(client, b"k", b"after")
    assert client.available


async def test_too_much_unacknowledged_makes_callers_wait(broker: Broker) -> None:
    client = LogClient(broker.options, ack_seconds=1.0, max_bytes=100_000)
    await append(client, b"k", b"before")
    broker.pause()
    try:
        waiting = [await client.append(COLLECTED, b"k", bytes(50_000)) for _ in range(2)]
        blocked = asyncio.create_task(append(client, b"k", b"blocked"))
        await asyncio.sleep(0.2)
        assert not blocked.done()
        assert not any(future.done() for future in waiting)
    finally:
        broker.resume()
    await blocked
    await client.close()


async def test_closing_fails_what_the_log_has_not_acknowledged(broker: Broker, client: LogClient) -> None:
    await append(client, b"k", b"before")
    broker.pause()
    waiting = await client.append(COLLECTED, b"k", b"during")
    await client.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await waiting
    with pytest.raises(LogUnavailable, match="closed"):
        await client.append(COLLECTED, b"k", b"late")
    broker.resume()
