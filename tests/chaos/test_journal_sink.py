"""No record that the collector acknowledged is lost, whichever of broker, collector, disk and ClickHouse goes away."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from collector.forwarder import Stored
from collector.journal import Journal
from collector.journal_sink import JournalSink
from collector.log_client import LogClient
from collector.sink import SinkUnavailable
from schemas.codec import Codec
from schemas.topics import COLLECTED, DEAD_LETTER, PARTITIONS
from tests.contract.broker_fixture import Broker, until
from tests.contract.outgoing import collected, dead_letter, name_of

CODEC = Codec()


async def nothing_stored() -> Mapping[tuple[str, int], int]:
    return {}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    try:
        await broker.create_topics()
        yield broker
    finally:
        broker.kill()


async def lose_memory(broker: Broker) -> None:
    """The broker dies and comes back empty."""
    broker.kill()
    broker.start()
    await broker.create_topics()


@asynccontextmanager
async def running(
    directory: Path, broker: Broker, stored: Stored | None, *, segment_bytes: int = 8 << 20, max_bytes: int = 1 << 30
) -> AsyncIterator[tuple[JournalSink, Journal]]:
    journal = Journal.open(
        directory, (COLLECTED, DEAD_LETTER), segment_bytes=segment_bytes, segment_seconds=0.1, max_bytes=max_bytes
    )
    log = LogClient(broker.options, ack_seconds=1.0)
    sink = JournalSink(journal, log, CODEC, stored, poll_seconds=0.05, close_seconds=1.0)
    await sink.start()
    try:
        yield sink, journal
    finally:
        await sink.close()


async def read_like_streams(broker: Broker, seen: dict[int, int] | None = None) -> list[str]:
    """Names on the log as its reader takes them: numbers not above the partition's highest are dropped as seen.

    `seen` holds the highest of each partition and is brought up to date.
    """
    highest = {} if seen is None else seen
    names: list[str] = []
    for partition, records in (await broker.records(COLLECTED)).items():
        for _, value in records:
            record = CODEC.decode_collected(value)
            if record["journal"] == "" or record["sequence"] > highest.get(partition, 0):
                names.append(name_of(record))
            if record["journal"]:
                highest[partition] = max(highest.get(partition, 0), record["sequence"])
    return names


def names(first: int, last: int) -> list[str]:
    return sorted(f"event{n}" for n in range(first, last))


async def send(sink: JournalSink, first: int, last: int) -> None:
    await asyncio.gather(*(sink.send([collected(f"visitor{n % 31}", f"event{n}")]) for n in range(first, last)))


async def test_a_broker_killed_in_the_middle_and_back_empty_gets_all_that_is_kept_in_order(
    tmp_path: Path, broker: Broker
) -> None:
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        total = 0
        for _ in range(3):
            for _ in range(10):
                await send(sink, total, total + 100)
                total += 100
            broker.kill()
            await send(sink, total, total + 100)
            total += 100
            broker.start()
            await asyncio.sleep(0.2)
            await broker.create_topics()
            await send(sink, total, total + 100)
            total += 100
        await until(lambda: sink.unforwarded == 0)
        assert sorted(await read_like_streams(broker)) == names(0, total)


async def test_a_broker_that_lost_its_memory_while_nothing_was_sent_gets_the_old_before_the_new(
    tmp_path: Path, broker: Broker
) -> None:
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        await send(sink, 0, 200)
        await until(lambda: sink.unforwarded == 0)
        await lose_memory(broker)
        await send(sink, 200, 210)
        await until(lambda: sink.unforwarded == 0)
        assert sorted(await read_like_streams(broker)) == names(0, 210)


async def test_a_broker_that_lost_its_memory_after_the_last_record_gets_all_again_though_nothing_more_is_sent(
    tmp_path: Path, broker: Broker
) -> None:
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        await send(sink, 0, 200)
        await until(lambda: sink.unforwarded == 0)
        await lose_memory(broker)

        async def is_back() -> bool:
            return sorted(await read_like_streams(broker)) == names(0, 200)

        await until(is_back)


async def test_what_was_stored_of_the_lost_log_is_not_needed_and_the_rest_is_not_lost(
    tmp_path: Path, broker: Broker
) -> None:
    seen: dict[int, int] = {}

    async def stored() -> Mapping[tuple[str, int], int]:
        return {(COLLECTED, partition): sequence for partition, sequence in seen.items()}

    async with running(tmp_path / "journal", broker, stored, segment_bytes=4_000) as (sink, journal):
        await send(sink, 0, 500)
        await until(lambda: sink.unforwarded == 0)
        read = await read_like_streams(broker, seen)
        await send(sink, 500, 600)  # acknowledged by the log, never read from it
        await until(lambda: journal.segments.first.header.first_sequence > 400)
        assert sink.retained >= 100
        await lose_memory(broker)
        await send(sink, 600, 700)
        await until(lambda: sink.unforwarded == 0)
        read += await read_like_streams(broker, seen)
        assert sorted(read) == names(0, 700)
        await until(lambda: sink.retained == 0)


async def test_while_clickhouse_is_away_nothing_is_deleted(tmp_path: Path, broker: Broker) -> None:
    async def stored() -> Mapping[tuple[str, int], int]:
        raise ConnectionError("ClickHouse is away")

    async with running(tmp_path / "journal", broker, stored, segment_bytes=4_000) as (sink, _):
        await send(sink, 0, 300)
        await until(lambda: sink.unforwarded == 0)
        await asyncio.sleep(0.5)
        assert sink.retained == 300
        await send(sink, 300, 301)


async def test_the_log_is_given_no_more_than_a_window_of_what_is_not_stored(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.forwarder.WINDOW", 20_000)
    seen: dict[int, int] = {}

    async def stored() -> Mapping[tuple[str, int], int]:
        return {(COLLECTED, partition): sequence for partition, sequence in seen.items()}

    async with running(tmp_path / "journal", broker, stored, segment_bytes=4_000) as (sink, journal):
        for first in range(0, 1_000, 10):
            await send(sink, first, first + 10)
        a_record = journal.bytes // 1_000
        assert journal.bytes > 80_000
        read: list[str] = []
        while len(read) < 1_000:
            before = len(read)
            await asyncio.sleep(0.5)
            read += await read_like_streams(broker, seen)
            assert (len(read) - before) * a_record <= 20_000 + 2 * 4_000
        assert sorted(read) == names(0, 1_000)


async def test_a_segment_waits_for_every_partition_and_topic_it_holds(tmp_path: Path, broker: Broker) -> None:
    answer: dict[tuple[str, int], int] = {(COLLECTED, number): 10_000 for number in range(PARTITIONS)}

    async def stored() -> Mapping[tuple[str, int], int]:
        return answer

    async with running(tmp_path / "journal", broker, stored) as (sink, _):
        await send(sink, 0, 50)
        await sink.send([dead_letter("visitor", "letter")])
        await until(lambda: sink.unforwarded == 0)
        await asyncio.sleep(0.5)
        assert sink.retained == 51
        answer.update({(DEAD_LETTER, number): 10_000 for number in range(PARTITIONS)})
        await until(lambda: sink.retained == 0)
        assert sink.accepted_events == 50


async def test_topics_that_come_late_get_everything(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    try:
        async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
            await send(sink, 0, 100)
            await asyncio.sleep(0.5)
            await broker.create_topics()
            await until(lambda: sink.unforwarded == 0)
            assert sorted(await read_like_streams(broker)) == names(0, 100)
    finally:
        broker.kill()


async def test_a_restarted_collector_sends_what_is_kept_again_in_order(tmp_path: Path, broker: Broker) -> None:
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        await send(sink, 0, 100)
    broker.kill()
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        await send(sink, 100, 200)
        assert (sink.retained, sink.accepted_events) == (200, 200)
    broker.start()
    await broker.create_topics()
    async with running(tmp_path / "journal", broker, nothing_stored) as (sink, _):
        await send(sink, 200, 300)
        await until(lambda: sink.unforwarded == 0)
        assert sorted(await read_like_streams(broker)) == names(0, 300)


COLLECTOR = """
import asyncio, os, sys
from pathlib import Path
from tests.chaos.test_journal_sink import nothing_stored, running
from tests.contract.outgoing import collected

class Away:
    options = {"bootstrap_servers": sys.argv[2], "security_protocol": "PLAINTEXT"}

async def main():
    stored = nothing_stored if sys.argv[3] == "always" else None
    async with running(Path(sys.argv[1]), Away, stored) as (sink, _):
        async def sender(k):
            n = 0
            while True:
                await sink.send([collected(f"visitor{k}", f"{sys.argv[4]}/{k}/{n}", padding=500)])
                os.write(int(sys.argv[5]), f"{sys.argv[4]}/{k}/{n}\\n".encode())
                n += 1
        await asyncio.gather(*map(sender, range(16)))

asyncio.run(main())
"""


def start(command: list[str], tell: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(command, pass_fds=[tell], stdout=subprocess.DEVNULL)
    os.close(tell)
    return process


@pytest.mark.parametrize("way", ["always", "when away"])
async def test_all_that_a_killed_collector_acknowledged_is_in_its_journal_or_on_the_log(
    tmp_path: Path, broker: Broker, way: str
) -> None:
    acknowledged: list[str] = []
    for life in range(3):
        told, tell = os.pipe()
        command = [sys.executable, "-c", COLLECTOR, str(tmp_path / "journal"), broker.options["bootstrap_servers"], way]
        process = start([*command, str(life), str(tell)], tell)
        with os.fdopen(told) as lines:
            acknowledged += await asyncio.to_thread(lambda: [lines.readline().strip() for _ in range(300)])
            if way == "when away":
                broker.pause()
                acknowledged += await asyncio.to_thread(lambda: [lines.readline().strip() for _ in range(300)])
            process.kill()
            acknowledged += lines.read().split()
        process.wait()
        broker.resume()
    stored = nothing_stored if way == "always" else None
    async with running(tmp_path / "journal", broker, stored) as (sink, _):
        await until(lambda: sink.unforwarded == 0)
        arrived = set(await read_like_streams(broker))
    assert len(acknowledged) >= 900
    assert set(acknowledged) - arrived == set()


async def test_while_the_log_is_away_the_spool_takes_all_and_is_empty_again_afterwards(
    tmp_path: Path, broker: Broker
) -> None:
    async with running(tmp_path / "journal", broker, None) as (sink, journal):
        await send(sink, 0, 100)
        assert sink.accepted_events == 0
        broker.pause()
        await send(sink, 100, 200)
        await send(sink, 200, 300)
        assert (sink.unforwarded, sink.accepted_events) == (200, 200)
        assert sink.ready()
        broker.resume()
        await until(lambda: sink.unforwarded == 0)
        await until(lambda: sink.retained == 0)
        await send(sink, 300, 400)
        assert (sink.retained, sink.accepted_events) == (0, 200)
        assert sorted(set(await read_like_streams(broker))) == names(0, 400)
        assert journal.next_sequence == 201


async def test_under_steady_load_the_spool_gives_way_to_the_log_again(tmp_path: Path, broker: Broker) -> None:
    async with running(tmp_path / "journal", broker, None) as (sink, _):
        stopping = False
        sent: list[int] = []

        async def sender(k: int) -> None:
            n = 0
            while not stopping:
                await send(sink, k * 1_000_000 + n, k * 1_000_000 + n + 1)
                sent.append(k * 1_000_000 + n)
                n += 1

        senders = [asyncio.create_task(sender(k)) for k in range(16)]
        await asyncio.sleep(0.3)
        broker.pause()
        await until(lambda: sink.unforwarded > 500)
        broker.resume()

        async def spools_no_more() -> bool:
            before = sink.accepted_events, len(sent)
            await asyncio.sleep(0.2)
            return sink.accepted_events == before[0] and len(sent) > before[1]

        await until(spools_no_more)
        stopping = True
        await asyncio.gather(*senders)
        await until(lambda: sink.unforwarded == 0)
        arrived = set(await read_like_streams(broker))
    assert {f"event{n}" for n in sent} - arrived == set()


async def accepted_until_full(sink: JournalSink, first: int) -> int:
    for n in range(1_000):
        try:
            await send(sink, first + n, first + n + 1)
        except SinkUnavailable:
            return n
    raise AssertionError("The spool never filled.")


@pytest.mark.parametrize("way", ["always", "when away"])
async def test_a_full_spool_refuses_and_takes_again_once_the_log_is_back(
    tmp_path: Path, broker: Broker, way: str
) -> None:
    async def stored() -> Mapping[tuple[str, int], int]:
        return {(COLLECTED, number): 10_000 for number in range(PARTITIONS)}

    given = stored if way == "always" else None
    async with running(tmp_path / "journal", broker, given, segment_bytes=5_000, max_bytes=40_000) as (sink, _):
        await send(sink, 0, 10)
        broker.pause()
        accepted = 10 + await accepted_until_full(sink, 10)
        assert accepted > 50
        broker.resume()
        await until(lambda: sink.retained == 0)
        await send(sink, accepted, accepted + 10)
        await until(lambda: sink.unforwarded == 0)
        assert set(names(0, accepted + 10)) <= set(await read_like_streams(broker))
