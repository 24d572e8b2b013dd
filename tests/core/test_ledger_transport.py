"""What the consumer of the workers does otherwise than Faust's."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from faust.types import TP

from streams.ledger_transport import LedgerConsumer, LedgerConsumerThread


class Revoking:
    """A consumer's thread in the middle of a rebalance, as aiokafka answers then."""

    def highwater(self, tp: TP) -> int:
        raise AssertionError(f"{tp} is not assigned")


def test_the_end_of_a_partition_that_a_rebalance_took_is_unknown_and_ends_no_worker() -> None:
    consumer = LedgerConsumer.__new__(LedgerConsumer)
    consumer._thread = Revoking()
    assert consumer.highwater(TP("events.collected", 0)) is None


class Log:
    """aiokafka's consumer and fetcher: asks for the partitions that are not paused, three turns after a resumption.

    What is asked for comes at once, and is given away only while its partition is not paused.
    """

    def __init__(self, *assigned: TP) -> None:
        self.questions = list[set[TP]]()
        self.paused = set[TP]()
        self._assigned, self._come = {TopicPartition(*at) for at in assigned}, set[TP]()
        self._waiter: asyncio.Future[None] | None = None
        self._asking: asyncio.Future[None] | None = None
        self._closed = False
        self._fetcher = self._subscriptions = self
        self.flow_active = True

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def resume(self, *partitions: TopicPartition) -> None:
        assert all(isinstance(partition, TopicPartition) for partition in partitions), "aiokafka takes no other"
        self.paused.difference_update(partitions)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())

    def pause(self, *partitions: TopicPartition) -> None:
        assert all(isinstance(partition, TopicPartition) for partition in partitions), "aiokafka takes no other"
        self.paused.update(partitions)

    def fetch_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    async def fetched_records(self, partitions: set[TP], **_: Any) -> dict[TP, list[int]]:
        given = (self._come & partitions) - self.paused
        self._come -= given
        return {tp: [1] for tp in given}

    async def _ask(self) -> None:
        for _ in range(2):
            await asyncio.sleep(0)
        if question := self._assigned - self.paused:
            self.questions.append(question)
            self._come |= question
            if self._waiter is not None:
                self._waiter.set_result(None)


async def test_a_poll_asks_once_for_the_partitions_that_have_room_and_gives_what_came() -> None:
    open_one, full_one, lost_one = (TP("events.collected", number) for number in range(3))
    log = Log(open_one, full_one)
    log.pause(TopicPartition(*full_one))
    thread = LedgerConsumerThread.__new__(LedgerConsumerThread)
    thread.consumer = log
    for asked in (1, 2):
        assert await thread._fetch_records(log, {open_one, lost_one}, timeout=1.0) == {open_one: [1]}
        await asyncio.sleep(0.01)
        assert log.questions == [{open_one}] * asked
        assert log.paused == {open_one, full_one}


class Polling(LedgerConsumer):
    """A consumer whose polls find a record or nothing by turns, and that notes its pauses."""

    def __init__(self, *found: bool) -> None:
        self._found, self.pauses = iter(found), list[float]()
        self._stopped, self._crashed = asyncio.Event(), asyncio.Event()
        self.app = SimpleNamespace(consumer_generation_id=1)
        self.flow_active = True

    async def _poll(self, *_: Any) -> dict[TP, list[Any]]:
        return {TP("events.collected", 0): [1]} if next(self._found) else {}

    async def sleep(self, seconds: Any, **_: Any) -> None:
        self.pauses.append(seconds)

    def _batch_message(self, *tp_and_records: Any) -> Any:
        return tp_and_records


async def test_polls_keep_a_pace_whether_records_were_found_or_not() -> None:
    consumer = Polling(True, False, True)
    found = [[message async for message in consumer.getmany(1.0)] for _ in range(3)]
    assert [len(messages) for messages in found] == [1, 0, 1]
    assert len(consumer.pauses) == 2
