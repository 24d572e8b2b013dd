"""The forwarder without a broker: when it stops, and what it keeps."""

import asyncio
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
