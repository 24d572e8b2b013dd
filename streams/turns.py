"""Turns in which the partitions of a worker store their blocks.

A block costs ClickHouse a tenth of a second however small it is. Did all partitions store theirs at once, each would
take longer and none be larger for it. So a few do at a time, in the order of asking, while those of the others grow.
"""

import asyncio
from types import TracebackType
from typing import Self

#: So many turns at a time, of all partitions of a worker.
Turns = asyncio.Semaphore


class Turn:
    """`async with` waits for one of the `free`, in the order of asking, and ends it; `pass_on` ends it sooner."""

    def __init__(self, free: Turns) -> None:
        self._free = free
        self._is_held = False

    async def __aenter__(self) -> Self:
        await self._free.acquire()
        self._is_held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """Let the next one begin; who waits for something else than its own work does so. Nothing where it is over."""
        if self._is_held:
            self._is_held = False
            self._free.release()
