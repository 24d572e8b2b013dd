"""The forwarder without a broker: when it stops, and what it keeps."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from collector.forwarder import Forwarder
from collector.journal import Journal
from collector.journal_format import Frame
from collector.log_client import LogClient
from collector.partition_queue import LogUnavailable, Position


class RefusingWhenCancelled:
    """Stands in for LogClient: its append fails, in the moment it is cancelled, as a lost connection does."""

    session = 0

    async def append(self, *_record: object) -> asyncio.Future[Position]:
        try:
            await asyncio.sleep(3_600)
        finally:
            raise LogUnavailable("The connection was lost.")


async def test_it_stops_when_cancelled_though_the_log_fails_in_that_moment(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, ("events.collected",))
    await journal.append([Frame(0, 1, 1, b"key", b"value")])
    client = cast(LogClient, RefusingWhenCancelled())
    forwarder = Forwarder(journal, client, None, caught_up=lambda: None, lost=lambda: None)
    running = asyncio.create_task(forwarder.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert forwarder.unforwarded == 1
    await journal.close()


class Counting:
    """Stands in for LogClient: acknowledges at once, and notes how many records each call brought."""

    session = 0

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def append_all(
        self, _topic: str, records: Sequence[tuple[bytes, bytes]], _session: int
    ) -> list[tuple[int, asyncio.Future[Position]]]:
        self.calls.append(len(records))
        acknowledged: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(Position(0, len(records)))
        return [(len(records) - 1, acknowledged)]

    async def session_over(self, _session: int) -> None:
        await asyncio.sleep(3_600)


async def test_where_nobody_waits_for_the_log_it_is_given_many_records_at_a_time(tmp_path: Path) -> None:
    async def nothing_stored() -> dict[tuple[str, int], int]:
        return {}

    journal = Journal.open(tmp_path, ("events.collected",), sync=lambda _: None)
    client = Counting()
    forwarder = Forwarder(journal, cast(LogClient, client), nothing_stored, caught_up=lambda: None, lost=lambda: None)
    running = asyncio.create_task(forwarder.run())
    await asyncio.sleep(0.01)
    for number in range(1, 51):
        await journal.append([Frame(0, 1, number, b"key", b"value")])
    await forwarder.drained(5)
    assert sum(client.calls) == 50
    assert len(client.calls) < 25
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await journal.close()
