"""Prepares a partition's records as they come, so that they are prepared when their block is due.

To write a block is mostly to wait for the warehouse; meanwhile the next is prepared. What is prepared depends on
nothing but the records, the journals before them and the rules, and is taken only where all three are as they were.
What is prepared takes several times the memory of its records, so there is a limit to it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.stages import LogRecord
from streams.core.validate import Rules
from streams.prepared import Prepared


class Preparing(Protocol):
    """The first half of a pipeline; see `streams.pipeline.Pipeline.prepare`."""

    def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared: ...


class _Part(NamedTuple):
    """Records that came together, and what they became."""

    records: Sequence[LogRecord]
    journals: Mapping[str, int]  # before them
    rules: Rules
    prepared: Prepared
    size: int  # bytes of the records

    def is_of(self, records: Sequence[LogRecord], journals: Mapping[str, int], rules: Rules) -> bool:
        """Whether it begins these records, and would become the same again."""
        count = len(self.records)
        return (
            count <= len(records)
            and (self.records[0].offset, self.records[-1].offset) == (records[0].offset, records[count - 1].offset)
            and self.journals == journals
            and self.rules == rules
        )


class Ahead:
    """`feed` it records in the order of the log; `run` prepares them; `take` hands out those of a block, prepared.

    Records that were fed together are prepared together. No more are while `limit` bytes of records are prepared.
    """

    def __init__(self, pipeline: Preparing, rules: Callable[[], Rules], limit: int) -> None:
        self._pipeline, self._rules, self._limit = pipeline, rules, limit
        self._fed: deque[Sequence[LogRecord]] = deque()
        self._parts: deque[_Part] = deque()
        self._journals: Mapping[str, int] | None = None  # after all that is prepared
        self._preparing = asyncio.Lock()
        self._came = asyncio.Event()

    def feed(self, records: Sequence[LogRecord]) -> None:
        """These come next."""
        if records:
            self._fed.append(records)
            self._came.set()

    async def run(self, journals: Callable[[], Mapping[str, int]]) -> None:
        """Prepare until cancelled; `journals` are the partition's, should nothing have been prepared yet."""
        while True:
            await self._came.wait()
            async with self._preparing:
                if self._fed and sum(part.size for part in self._parts) < self._limit:
                    records, rules = self._fed.popleft(), self._rules()
                    before = dict(journals()) if self._journals is None else self._journals
                    prepared = await self._prepare(records, before, rules)
                    size = sum(len(record.value or b"") for record in records)
                    self._parts.append(_Part(records, before, rules, prepared, size))
                else:
                    self._came.clear()

    async def take(self, records: Sequence[LogRecord], journals: Mapping[str, int], rules: Rules) -> Prepared:
        """These records prepared: what was prepared of them in advance, the others now."""
        async with self._preparing:
            whole = Prepared(dict(journals), 0)
            while whole.records < len(records) and self._parts:
                part = self._parts.popleft()
                if not part.is_of(records[whole.records :], whole.journals, rules):
                    self._parts.clear()
                    break
                whole.add(part.prepared)
            if whole.records < len(records):
                while self._fed and self._fed[0][0].offset <= records[-1].offset:
                    self._fed.popleft()
                whole.add(await self._prepare(records[whole.records :], whole.journals, rules))
            self._came.set()  # there may be room again
            return whole

    async def _prepare(self, records: Sequence[LogRecord], journals: Mapping[str, int], rules: Rules) -> Prepared:
        prepared = await asyncio.to_thread(self._pipeline.prepare, records, dict(journals), rules)
        self._journals = prepared.journals
        return prepared
