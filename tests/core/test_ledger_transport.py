"""What the consumer of the workers does otherwise than Faust's."""

from asyncio import Event
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

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


class Fetched:
    """aiokafka's consumer, as far as its records are asked for."""

    def __init__(self, *assigned: TP) -> None:
        self.paused = set(assigned)
        self.paused_while_asked: set[TP] = set()
        self._assigned = set(assigned)
        self._closed = False
        self._fetcher = self._subscriptions = self
        self.flow_active = True

    def assignment(self) -> set[TP]:
        return self._assigned

    def resume(self, *partitions: TP) -> None:
        self.paused.difference_update(partitions)

    def pause(self, *partitions: TP) -> None:
        self.paused.update(partitions)

    def fetch_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def fetched_records(self, partitions: set[TP], **_: Any) -> dict[TP, list[int]]:
        self.paused_while_asked = set(self.paused)
        return {tp: [1] for tp in partitions}


async def test_the_log_is_asked_only_for_partitions_with_room_and_only_while_the_answer_is_waited_for() -> None:
    open_one, full_one, lost_one = (TP("events.collected", number) for number in range(3))
    consumer = Fetched(open_one, full_one)
    thread = LedgerConsumerThread.__new__(LedgerConsumerThread)
    thread.consumer = consumer
    found = await thread._fetch_records(consumer, {open_one, lost_one}, timeout=1.0)
    assert open_one in found
    assert consumer.paused_while_asked == {full_one}
    assert consumer.paused == {open_one, full_one}


class Polling(LedgerConsumer):
    """A consumer whose polls find a record or nothing by turns, and that notes its pauses."""

    def __init__(self, *found: bool) -> None:
        self._found, self.pauses = iter(found), list[float]()
        self._stopped, self._crashed = Event(), Event()
        self.app = SimpleNamespace(consumer_generation_id=1)
        self.flow_active = True

    async def _poll(self, *_: Any) -> dict[TP, list[Any]]:
        return {TP("events.collected", 0): [1]} if next(self._found) else {}

    async def sleep(self, seconds: Any, **_: Any) -> None:
        self.pauses.append(seconds)

    def _batch_message(self, *tp_and_records: Any) -> Any:
        return tp_and_records


async def test_after_records_were_found_the_log_is_left_alone_for_a_moment_but_never_after_none_were() -> None:
    consumer = Polling(True, False, True)
    found = [[message async for message in consumer.getmany(1.0)] for _ in range(3)]
    assert [len(messages) for messages in found] == [1, 0, 1]
    assert len(consumer.pauses) == 1
