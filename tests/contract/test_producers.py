"""Producers beside the collector's: idempotent ones of third parties, and the worker's of dead letters."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aiokafka import AIOKafkaProducer

from collector.log_client import LogClient
from collector.record_batch import partition_of
from schemas.blocks import StoreUnavailable
from schemas.codec import Codec
from schemas.records import DeadLetter
from schemas.topics import COLLECTED, DEAD_LETTER
from streams.letters import KafkaLetterLog
from tests.contract.broker_fixture import Broker
from tests.contract.outgoing import dead_letter

CODEC = Codec()


@pytest.fixture
async def letters(broker: Broker) -> AsyncIterator[KafkaLetterLog]:
    log = KafkaLetterLog(CODEC, broker.options)
    yield log
    await log.close()


def letter(name: str, payload: bytes = b"{}") -> DeadLetter:
    return cast(DeadLetter, dead_letter("visitor", name, payload).record)


async def stored(broker: Broker) -> list[DeadLetter]:
    partitions = (await broker.records(DEAD_LETTER)).values()
    return [CODEC.decode_dead_letter(value) for records in partitions for _, value in records]


async def test_an_idempotent_producer_and_the_collector_share_a_partition_and_each_keeps_its_order(
    broker: Broker,
) -> None:
    client = LogClient(broker.options)
    idempotent = AIOKafkaProducer(**broker.options, acks="all", enable_idempotence=True, compression_type="lz4")
    await idempotent.start()
    try:
        told = []
        for n in range(1_000):
            told.append(await client.append(COLLECTED, b"k", b"collector %d" % n))
            told.append(await idempotent.send(COLLECTED, b"other %d" % n, b"k"))
        await asyncio.gather(*told)
    finally:
        await idempotent.stop()
        await client.close()
    (values,) = [[v for _, v in records] for records in (await broker.records(COLLECTED)).values() if records]
    for name in (b"collector", b"other"):
        assert [value for value in values if value.startswith(name)] == [name + b" %d" % n for n in range(1_000)]


async def test_dead_letters_of_all_partitions_at_once_are_each_on_the_log_once(
    broker: Broker, letters: KafkaLetterLog
) -> None:
    await asyncio.gather(*(letters.send([letter(f"letter {n}")]) for n in range(50)))
    assert sorted(found["key"] for found in await stored(broker)) == sorted(f"letter {n}" for n in range(50))


async def test_more_dead_letters_than_a_batch_holds_are_on_the_log_once_each_in_its_keys_partition_and_in_order(
    broker: Broker, letters: KafkaLetterLog
) -> None:
    sent = [letter(f"letter {n:03}", bytes(600_000 if n % 100 == 0 else 5_000)) for n in range(400)]
    await letters.send(sent)
    found = await broker.records(DEAD_LETTER)
    names = {at: [CODEC.decode_dead_letter(value)["key"] for _, value in records] for at, records in found.items()}
    due: dict[int, list[str]] = {at: [] for at in range(len(found))}
    for each in sent:
        due[partition_of(f"acme:{each['key']}".encode(), len(found))].append(each["key"])
    assert names == due
    assert all(names.values())


async def test_a_dead_letter_larger_than_a_record_may_be_is_cut_and_not_waited_for(
    broker: Broker, letters: KafkaLetterLog
) -> None:
    payload = bytes(n % 251 for n in range(1_200_000))
    await letters.send([letter("large", payload), letter("small")])
    cut, small = sorted(await stored(broker), key=lambda found: found["key"])
    assert (cut["truncated"], small["truncated"]) == (True, False)
    assert payload.startswith(cut["payload"])
    assert len(cut["payload"]) > 990_000


async def test_dead_letters_for_an_absent_log_can_be_sent_again_when_it_is_back(
    broker: Broker, letters: KafkaLetterLog
) -> None:
    broker.kill()
    with pytest.raises(StoreUnavailable, match="did not take 1 dead letters"):
        await letters.send([letter("first")])
    broker.start()
    await broker.create_topics()
    await letters.send([letter("first")])
    assert [found["key"] for found in await stored(broker)] == ["first"]
