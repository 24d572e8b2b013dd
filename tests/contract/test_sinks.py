"""What every sink promises, run on each of them: MemorySink, and on a broker KafkaSink and JournalSink both ways."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.journal import Journal
from collector.journal_sink import JournalSink
from collector.kafka_sink import KafkaSink
from collector.log_client import LogClient, RecordTooLarge
from collector.sink import MemorySink, Sink, SinkUnavailable
from schemas.codec import Codec
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.contract.broker_fixture import Broker, new_broker, until
from tests.contract.outgoing import collected, dead_letter, name_of

#: A sink and its broker. The journal that is always written is for the log that forgets.
SINKS = (
    ("memory", ""),
    ("kafka", "embedded"),
    ("kafka", "kafka"),
    ("journal always", "embedded"),
    ("journal when away", "embedded"),
    ("journal when away", "kafka"),
)


@dataclass
class Case:
    """A sink, a way to see what arrived (names by key, in order), and a way to leave it nowhere to put a record."""

    sink: Sink
    arrived: Callable[[str], Awaitable[dict[str, list[str]]]]
    break_down: Callable[[], None]


async def nothing_stored() -> Mapping[tuple[str, int], int]:
    return {}


def memory_case() -> Case:
    sink = MemorySink()

    async def arrived(topic: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for outgoing in sink.records:
            if outgoing.topic == topic:
                found.setdefault(outgoing.key, []).append(name_of(outgoing.record))
        return found

    def break_down() -> None:
        sink.available = False

    return Case(sink, arrived, break_down)


async def broker_case(name: str, broker: Broker, directory: Path) -> Case:
    codec = Codec()
    log = LogClient(broker.options, ack_seconds=1.0)

    def go_away() -> None:  # Kafka would take seconds to come back for the next test
        broker.pause() if broker.keeps else broker.kill()

    async def arrived(topic: str) -> dict[str, list[str]]:
        await until(lambda: getattr(sink, "unforwarded", 0) == 0)
        decode = codec.decode_collected if topic == COLLECTED else codec.decode_dead_letter
        found: dict[str, list[str]] = {}
        for records in (await broker.records(topic)).values():
            for key, value in records:
                found.setdefault(key.decode(), []).append(name_of(decode(value)))
        return found

    if name == "kafka":
        sink: KafkaSink | JournalSink = KafkaSink(log, codec)
        return Case(sink, arrived, go_away)
    journal = Journal.open(directory, (COLLECTED, DEAD_LETTER), max_bytes=64 << 10)
    sink = JournalSink(journal, log, codec, nothing_stored if name == "journal always" else None, close_seconds=0.1)
    await sink.start()

    def break_down() -> None:
        go_away()
        journal._max_bytes = 0

    return Case(sink, arrived, break_down)


@pytest.fixture(params=SINKS, ids=" on ".join)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    name, kind = request.param
    if name == "memory":
        yield memory_case()
        return
    broker = await new_broker(kind, request, tmp_path)
    try:
        await broker.create_topics()
        case = await broker_case(name, broker, tmp_path / "journal")
        yield case
        await case.sink.close()
    finally:
        broker.release()


async def test_what_was_sent_arrives_in_order_under_its_key(case: Case) -> None:
    for n in range(30):
        await case.sink.send([collected(f"visitor{n % 3}", f"event{n}")])
    arrived = await case.arrived(COLLECTED)
    assert arrived == {f"acme:visitor{v}": [f"event{n}" for n in range(v, 30, 3)] for v in range(3)}


async def test_one_call_may_hold_records_of_several_topics(case: Case) -> None:
    await case.sink.send([collected("a", "one"), dead_letter("a", "two"), collected("b", "three")])
    assert await case.arrived(COLLECTED) == {"acme:a": ["one"], "acme:b": ["three"]}
    assert await case.arrived(DEAD_LETTER) == {"acme:a": ["two"]}


async def test_calls_at_the_same_time_all_arrive_once(case: Case) -> None:
    await asyncio.gather(*(case.sink.send([collected(f"visitor{n}", "event")]) for n in range(300)))
    assert await case.arrived(COLLECTED) == {f"acme:visitor{n}": ["event"] for n in range(300)}


async def test_sending_nothing_is_no_error(case: Case) -> None:
    await case.sink.send([])
    assert await case.arrived(COLLECTED) == {}


async def test_it_is_ready_after_it_took_a_record(case: Case) -> None:
    await case.sink.send([collected("a", "event")])
    assert case.sink.ready()


async def test_with_nowhere_to_put_a_record_it_says_when_to_come_back(case: Case) -> None:
    await case.sink.send([collected("a", "before")])
    case.break_down()
    with pytest.raises(SinkUnavailable) as refused:
        await case.sink.send([collected("a", "after")])
    assert refused.value.retry_after > 0
    assert not case.sink.ready()


async def test_a_closed_sink_is_not_ready_and_refuses(case: Case) -> None:
    await case.sink.send([collected("a", "event")])
    await case.sink.close()
    assert not case.sink.ready()
    with pytest.raises(SinkUnavailable):
        await case.sink.send([collected("a", "late")])


@pytest.mark.parametrize("case", SINKS[1:], indirect=True, ids=" on ".join)
async def test_a_record_that_no_broker_takes_is_refused_before_anything_is_sent(case: Case) -> None:
    with pytest.raises(RecordTooLarge, match="has 1100"):
        await case.sink.send([collected("a", "small"), dead_letter("a", "large", bytes(1_100_000))])
    assert await case.arrived(COLLECTED) == {}
