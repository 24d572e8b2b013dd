"""What Headrace relies on in its embedded broker, and in how topics come to exist."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import OutOfOrderSequenceNumber, UnknownTopicOrPartitionError

from headrace.embedded.broker import (
    HOST,
    SNAPSHOT,
    BrokerMissing,
    BrokerNotReady,
    EmbeddedBroker,
    find_binary,
    read_log_id,
)
from headrace.stack_logs import EmbeddedLog
from schemas.topics import COLLECTED, DEAD_LETTER, PARTITIONS, SPECS, TopicError, ensure_topics
from tests.ports import free_port

READY_SECONDS = 20.0
Process = asyncio.subprocess.Process


@pytest.fixture
def embedded(tmp_path: Path) -> EmbeddedBroker:
    return EmbeddedBroker(tmp_path / "broker", free_port())


@asynccontextmanager
async def running(embedded: EmbeddedBroker, log_id: uuid.UUID | None = None) -> AsyncIterator[Process]:
    """A new log, ready; killed at the end."""
    embedded.prepare(log_id or uuid.uuid4())
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*embedded.command(), stdout=quiet, stderr=quiet)
    try:
        await embedded.wait_ready(READY_SECONDS)
        yield process
    finally:
        await end(process)


async def end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


@asynccontextmanager
async def producer(embedded: EmbeddedBroker) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(
        bootstrap_servers=embedded.address, acks="all", enable_idempotence=True, compression_type="lz4", linger_ms=5
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(embedded: EmbeddedBroker, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    client = AIOKafkaConsumer(bootstrap_servers=embedded.address, group_id=group, enable_auto_commit=False)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> bool:
    for _ in range(300):
        if await is_so():
            return True
        await asyncio.sleep(0.1)
    return False


async def held(client: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """Records of a partition that the log still has."""
    first, end = await client.beginning_offsets([partition]), await client.end_offsets([partition])
    return int(end[partition] - first[partition])


async def test_it_listens_on_the_loopback_only_and_nowhere_but_its_port_and_its_control(
    embedded: EmbeddedBroker,
) -> None:
    async with running(embedded) as process:
        listening = [c.laddr for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {at.ip for at in listening} == {HOST}
    assert embedded.address in {f"{at.ip}:{at.port}" for at in listening}
    assert len(listening) == 2


async def test_the_control_token_is_for_the_owner_only(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    async with running(embedded):
        assert (tmp_path / "broker").stat().st_mode & 0o077 == 0


async def test_the_broker_itself_tells_which_log_it_holds(embedded: EmbeddedBroker) -> None:
    log_id = uuid.uuid4()
    async with running(embedded, log_id):
        assert await read_log_id(embedded.address) == str(log_id)
        assert await asyncio.to_thread(embedded.is_ready)


async def test_another_log_on_the_port_is_not_taken_for_the_prepared_one(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    async with running(embedded):
        other = EmbeddedBroker(tmp_path / "other", int(embedded.address.rpartition(":")[2]))
        other.prepare(uuid.uuid4())
        with pytest.raises(BrokerNotReady, match=f"did not serve log .* at {embedded.address} within"):
            await other.wait_ready(0.5)


async def test_waiting_for_a_broker_ends_also_where_a_look_at_it_swallows_the_cancellation(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> bool:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        return False

    monkeypatch.setattr(embedded, "_is_ready", look)
    with pytest.raises(BrokerNotReady):
        await embedded.wait_ready(0.05)


async def test_a_broker_that_does_not_run_is_not_ready(embedded: EmbeddedBroker) -> None:
    embedded.prepare(uuid.uuid4())
    assert not await asyncio.to_thread(embedded.is_ready)


async def test_what_an_idempotent_lz4_producer_sent_is_read_back_in_order(embedded: EmbeddedBroker) -> None:
    async with running(embedded):
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        at = TopicPartition(COLLECTED, 2)
        async with producer(embedded) as sender:
            sent = [await sender.send(COLLECTED, str(n).encode(), partition=2) for n in range(5_000)]
            offsets = [(await one).offset for one in sent]
        assert offsets == list(range(5_000))
        async with consumer(embedded) as reader:
            reader.assign([at])
            await reader.seek_to_beginning(at)
            values = [int((await reader.getone(at)).value) for _ in range(5_000)]
            assert await reader.end_offsets([at]) == {at: 5_000}
        assert values == list(range(5_000))


async def test_a_broker_that_was_killed_comes_back_as_an_empty_log_with_another_identity(
    embedded: EmbeddedBroker,
) -> None:
    async with running(embedded):
        before = await read_log_id(embedded.address)
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        async with producer(embedded) as sender:
            await sender.send_and_wait(COLLECTED, b"event", partition=0)
        await asyncio.sleep(1.5)  # its snapshot is on disk by now
    async with running(embedded):
        assert await read_log_id(embedded.address) != before
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        async with consumer(embedded) as reader:
            assert await held(reader, TopicPartition(COLLECTED, 0)) == 0


async def test_an_idempotent_producer_of_the_previous_log_is_refused(embedded: EmbeddedBroker) -> None:
    async with running(embedded) as process:
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        async with producer(embedded) as of_the_previous_log:
            await of_the_previous_log.send_and_wait(COLLECTED, b"event", partition=0)
            await end(process)
            async with running(embedded):
                await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
                async with producer(embedded) as of_this_log:  # as many records: its producer id must not be the same
                    await of_this_log.send_and_wait(COLLECTED, b"event", partition=0)
                with pytest.raises(OutOfOrderSequenceNumber):
                    await of_the_previous_log.send_and_wait(COLLECTED, b"event", partition=0)


async def test_asking_for_a_topic_does_not_create_it(embedded: EmbeddedBroker) -> None:
    async with running(embedded):
        admin = AIOKafkaAdminClient(bootstrap_servers=embedded.address)
        await admin.start()
        (answer,) = await admin.describe_topics([COLLECTED])
        await admin.close()
    assert answer["error_code"] == UnknownTopicOrPartitionError.errno


async def test_topics_are_created_once_and_an_existing_one_is_left_as_it_is(embedded: EmbeddedBroker) -> None:
    async with running(embedded):
        calls = [ensure_topics(embedded.address, {COLLECTED: 6}, {}, READY_SECONDS) for _ in range(2)]
        assert await asyncio.gather(*calls) == [{COLLECTED: 6}, {COLLECTED: 6}]
        found = await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
    assert found == {COLLECTED: 6, DEAD_LETTER: PARTITIONS}


async def test_the_address_given_wins_over_the_one_in_the_client_options(embedded: EmbeddedBroker) -> None:
    options = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "PLAINTEXT"}
    async with running(embedded):
        assert await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS, client_options=options) == SPECS


async def test_a_refused_topic_is_named_in_a_sentence(embedded: EmbeddedBroker) -> None:
    async with running(embedded):
        with pytest.raises(TopicError, match=r"The broker refused the topic no spaces: .*\."):
            await ensure_topics(embedded.address, {"no spaces": 1}, {}, READY_SECONDS)


async def test_topics_of_a_broker_that_is_away_are_an_error_that_names_the_address(embedded: EmbeddedBroker) -> None:
    with pytest.raises(TopicError, match=f"No broker answered at {embedded.address} within 0.5 s"):
        await ensure_topics(embedded.address, SPECS, {}, 0.5)


async def test_a_broker_that_is_not_up_yet_is_waited_for(embedded: EmbeddedBroker) -> None:
    topics = asyncio.create_task(ensure_topics(embedded.address, SPECS, {}, READY_SECONDS))
    await asyncio.sleep(0.2)  # it was asked and did not answer
    async with running(embedded):
        assert await topics == SPECS


async def test_records_that_the_group_has_committed_are_dropped_and_later_ones_kept(embedded: EmbeddedBroker) -> None:
    at = TopicPartition(COLLECTED, 1)
    async with running(embedded):
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        assert await embedded.drop_committed("workers") == {}
        async with producer(embedded) as sender, consumer(embedded, "workers") as reader:
            for _ in range(10):
                await sender.send_and_wait(COLLECTED, b"event", partition=1)
            reader.assign([at])
            await reader.commit({at: 9})
            assert await embedded.drop_committed("workers") == {at: 9}
            assert await held(reader, at) == 1


async def test_a_member_that_was_killed_is_in_its_group_until_it_is_removed_by_its_clients_name(
    embedded: EmbeddedBroker,
) -> None:
    async with running(embedded):
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        for name in ("one", "two"):
            command = [sys.executable, "-c", _MEMBER, embedded.address, COLLECTED, name]
            lost = await asyncio.create_subprocess_exec(*command)

            async def is_there(name: str = name) -> bool:
                return name in (await embedded.members("workers")).values()

            assert await eventually(is_there)
            await end(lost)
        await embedded.remove_member("workers", "two")
        assert list((await embedded.members("workers")).values()) == ["one"]
        await embedded.remove_member("workers", "one")
        assert await embedded.members("workers") == {}


async def test_a_broker_that_does_not_answer_keeps_nobody_from_starting_a_worker(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client gives up
        writer.close()
        left.set()

    port = free_port()
    async with await asyncio.start_server(hang, HOST, port), asyncio.timeout(READY_SECONDS):
        await EmbeddedLog(tmp_path, port, tmp_path / "broker.log").remove_member("workers", "worker")
        await left.wait()


_MEMBER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
async def join(address, topic, name):
    await AIOKafkaConsumer(topic, bootstrap_servers=address, group_id="workers", client_id=name).start()
    await asyncio.sleep(60)
asyncio.run(join(*sys.argv[1:]))
"""


async def test_dropping_frees_memory(embedded: EmbeddedBroker) -> None:
    at, sent_bytes, record = TopicPartition(COLLECTED, 1), 120_000_000, 1_000_000
    async with running(embedded) as process:
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        before = psutil.Process(process.pid).memory_info().rss
        async with producer(embedded) as sender, consumer(embedded, "workers") as reader:
            reader.assign([at])
            for sent in range(1, sent_bytes // record + 1):
                await sender.send_and_wait(COLLECTED, os.urandom(record), partition=1)
                await reader.commit({at: sent})
                await embedded.drop_committed("workers")
        assert psutil.Process(process.pid).memory_info().rss - before < sent_bytes / 2


async def test_what_the_log_holds_is_never_written_to_disk(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    async with running(embedded) as process:
        prepared = (tmp_path / "broker" / SNAPSHOT).read_bytes()
        await ensure_topics(embedded.address, SPECS, {}, READY_SECONDS)
        async with producer(embedded) as sender:
            for _ in range(30):  # three of its snapshots long
                await sender.send_and_wait(COLLECTED, os.urandom(100_000), partition=1)
                await asyncio.sleep(0.1)
        assert (tmp_path / "broker" / SNAPSHOT).read_bytes() == prepared
        assert psutil.Process(process.pid).io_counters().write_chars < 10_000_000


async def test_retention_bounds_what_nobody_commits(embedded: EmbeddedBroker) -> None:
    at = TopicPartition(COLLECTED, 1)
    async with running(embedded):
        config = {"retention.bytes": "3000000", "segment.bytes": "1000000"}
        await ensure_topics(embedded.address, SPECS, config, READY_SECONDS)
        async with producer(embedded) as sender, consumer(embedded) as reader:
            for _ in range(20):
                await sender.send_and_wait(COLLECTED, os.urandom(500_000), partition=1)

            async def is_bounded() -> bool:
                return await held(reader, at) <= 8

            assert await eventually(is_bounded)
            assert await reader.end_offsets([at]) == {at: 20}


def test_a_missing_broker_says_what_to_install() -> None:
    with pytest.raises(BrokerMissing, match=r"not installed: .* absent_package; install noida-db==0\.2\.3"):
        find_binary("absent_package")
