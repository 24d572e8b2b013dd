"""Writes one partition's records as blocks: claim, settle (or before), dead letters, write, ledger, acknowledge.

What a failure at each step leaves behind, and why it is harmless:
- before the claim, or after it: the next owner asks for the same start, gets the same end, and writes that block;
- while writing: each insert has a token, so the repetition stores what is missing and nothing twice;
- after the ledger's row, before the acknowledgement: the next owner starts where the ledger ends.
While the warehouse is away the partition waits and repeats; only a bug ends the writer, and with it the worker.
"""

import asyncio
import contextlib
import itertools
import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from schemas import metrics
from schemas.blocks import (
    Block,
    BlockStore,
    Claim,
    Found,
    Lookup,
    OrphanStore,
    Partition,
    StateStore,
    StoreUnavailable,
    journal_key,
)
from schemas.fit import REPAIR, LedgerRefused
from schemas.stages import LogRecord
from streams.ahead import Ahead, Preparing
from streams.core.dead_share import NEVER, DeadLimit, DeadShare, judged, tell_pause
from streams.core.recent_ids import RecentIds
from streams.core.sessions import Sessions
from streams.core.state import PartitionState
from streams.core.validate import Rules
from streams.letters import LetterLog
from streams.prepared import Prepared, Settled
from streams.turns import Turn, Turns

log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_MINUTE_MS: Final = 60_000
_RULES_SECONDS: Final = 1.0  # so often a paused partition looks at the tenants file
_PIECES: Final = 8  # of a block are prepared one after the other
#: For at most so long, or so many ids and letters, nothing is forgotten because the next block is settled already.
_EVICT_SECONDS: Final = 10.0
_EVICT_COUNT: Final = 50_000
_LATE_SECONDS: Final = 3.0
_LATE_LINGERS: Final = 3
_RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1, 2, 5)


class BlockPipeline(Preparing, Protocol):
    """What a topic's records become; see `streams.pipeline.Pipeline` for what each method may do."""

    def wanted(self, prepared: Prepared, state: PartitionState) -> Lookup: ...

    def settle(self, prepared: Prepared, state: PartitionState, found: Found, now: int) -> Settled: ...


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of the past a partition keeps in memory; times in ms."""

    ids: int
    id_limit: int
    sessions: int
    gap: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What a writer works with. `clock` gives ms since the epoch; the stores are this writer's alone.

    `states` is asked in one thread while `blocks` writes in another. `linger` is how long a block grows (s), and
    `interval` how long at the least from the end of one to the next (s). `turns` are the worker's.
    """

    blocks: BlockStore
    states: StateStore
    orphans: OrphanStore
    letters: LetterLog
    pipeline: BlockPipeline
    rules: Callable[[], Rules]
    clock: Callable[[], int]
    worker: str
    memory: Memory
    linger: float
    max_bytes: int
    dead_limit: DeadLimit = NEVER
    interval: float = 0.0
    turns: Turns = field(default_factory=lambda: Turns(1))


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A record that is not stored yet, and when the log took it (s).

    `acknowledge` tells the log's client that this and all records before it are stored; None where a later one does.
    """

    record: LogRecord
    logged_at: float
    acknowledge: Callable[[], object] | None


@dataclass(frozen=True, slots=True)
class _Next:
    """The block after the one that is being written, up to `end`, and its settling."""

    end: int
    settling: asyncio.Task[Settled]


class PartitionWriter:
    """Owns one partition from assignment to revocation.

    `open` reads the state back and returns the offset to start from; `put` takes the next records while it `has_room`;
    `run` writes blocks until `close`, which lets the block under way finish or, while the warehouse is away or the
    partition is paused, gives it up; `end` lets go of what is left.

    To write a block is mostly to wait for the warehouse; where the next is full meanwhile, it is settled: then the
    state is ahead of the ledger by both. Nothing of the next is claimed or stored before the block under way is stored
    whole. What it looks up may lack that block, which is in memory.
    """

    def __init__(self, partition: Partition, partitions: int, parts: Parts, remembers: bool) -> None:
        self.partition = partition
        self._partitions = partitions
        self._parts = parts
        self._remembers = remembers
        self._state: PartitionState | None = None
        self._ahead = Ahead(parts.pipeline, parts.rules, parts.max_bytes // 2)
        self._pending: list[Pending] = []
        self._bytes = self._under_way = 0  # of what is pending, and of the block that is being written
        self._taken = 0  # how many of the pending are of that block
        self._ends: list[int] = []  # offsets after what is prepared at once; a block ends at one of them
        self._next: _Next | None = None
        self._is_storing = False  # a block that is settled
        self._evicted_at = 0.0  # s, monotonic
        self._stored_at = -math.inf  # the last block (s, monotonic)
        self._gave_up = False  # perhaps with a block in the state that the ledger lacks
        self._since = 0.0  # what is pending came at this time (s, monotonic) or later
        self._wanted_end = 0
        self._dead_share = DeadShare(parts.dead_limit)
        self.paused = False
        self._turn: Turn | None = None  # to write a block
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def position(self) -> int:
        """The first offset that is not stored."""
        return self._opened.position

    @property
    def oldest_pending(self) -> float | None:
        """When the log took the oldest record that is not stored (s), None when all is stored."""
        return self._pending[0].logged_at if self._pending else None

    @property
    def _opened(self) -> PartitionState:
        assert self._state is not None, "open() comes first"
        return self._state

    async def open(self) -> int:
        """Read the state back as of the ledger's end."""
        return (await open_writers([self]))[0]

    async def _begin(self) -> None:
        """Find the position, take over what an earlier log left; without recent ids and sessions yet."""
        partition, memory, states = self.partition, self._parts.memory, self._parts.states
        position, found = await self._repeated(lambda: states.position(partition))
        ours = journal_key("", self._partitions)
        journals = {key.removesuffix(ours): sequence for key, sequence in found.items() if key.endswith(ours)}
        now = self._parts.clock()
        ids, sessions = RecentIds(now - memory.ids, memory.id_limit), Sessions(memory.gap, now - memory.sessions)
        state = PartitionState(partition, position, journals, ids, sessions)
        if self._remembers:
            state.adopted.update(await self._repeated(lambda: self._parts.orphans.adopt(partition, journals)))
        self._state = state

    async def _read_recent(self, writers: Sequence["PartitionWriter"]) -> None:
        """Read back what these writers, all of this one's topic, remember."""
        states = {writer.partition: writer._opened for writer in writers}
        positions = {partition: state.position for partition, state in states.items()}
        since = min(min(state.ids.since, state.sessions.since) for state in states.values())
        recent = await self._repeated(lambda: self._parts.states.recent(positions, self._partitions, since))
        for partition, state in states.items():
            await asyncio.to_thread(state.load, recent[partition])

    @property
    def has_room(self) -> bool:
        """Whether more may be put: while three blocks are not full, or one besides that which is being written.

        One is being written, the next settled, and of the third it takes time to come.

        A claimed block that waits for its records has room for all of them.
        """
        full, waiting = self._parts.max_bytes, self._bytes - self._under_way
        return self._bytes < 3 * full or waiting < full or bool(self._wanted_end)

    def put(self, records: Iterable[Pending]) -> None:
        """Take the next records; what the ledger has is acknowledged at once."""
        if not self._pending:
            self._since = time.monotonic()
        following = max(self.position, self._pending[-1].record.offset + 1 if self._pending else 0)
        new: list[LogRecord] = []
        for pending in records:
            record = pending.record
            if record.offset >= following:
                following = record.offset + 1
                self._pending.append(pending)
                self._bytes += len(record.value or b"")
                new.append(record)
            elif record.offset < self.position:
                _acknowledge(pending)
        for piece in _pieces(new, self._parts.max_bytes // _PIECES):
            self._ahead.feed(piece)
            self._ends.append(piece[-1].offset + 1)
        self._settle_next()
        self._changed.set()

    async def run(self) -> None:
        """Write blocks as they fall due until closed."""
        preparing = asyncio.create_task(self._ahead.run(lambda: self._opened.journals))
        try:
            while await self._due():
                await self._write_block()
        except _Closed:
            self._gave_up = True
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)

    async def close(self) -> None:
        """Let `run` end after the block under way."""
        self._closing.set()
        self._changed.set()

    async def write_rest(self) -> None:
        """Once `run` has ended: write what is pending, unless the warehouse is away or was when it ended."""
        if self._gave_up:
            return
        end, before = self._pending[-1].record.offset + 1 if self._pending else 0, -1
        with contextlib.suppress(_Closed):
            while self._pending and self._pending[0].record.offset < end and before < self.position:
                before = self.position
                await self._write_block()

    async def end(self) -> None:
        """Once `run` has ended, and nothing more is to be written."""
        if self._next:
            self._next.settling.cancel()
            await asyncio.gather(self._next.settling, return_exceptions=True)
            self._next = None

    async def _due(self) -> bool:
        """Wait until a block should be written; False when closed."""
        while not self._closing.is_set():
            self._changed.clear()
            seconds = self.seconds_left()
            if seconds <= 0:
                return True
            await _is_set(self._changed, seconds)
        return False

    def seconds_left(self) -> float:
        """How long the next block may still grow; for ever while it has nothing, or not all that was claimed.

        What came while the last block was written has waited already, so that under load one block follows the other:
        the slower they are, the larger they become. Where records are late anyway, blocks may grow longer: the larger,
        the less an event costs, and the sooner the lag is made up.
        """
        if self._wanted_end:
            full = bool(self._pending) and self._pending[-1].record.offset + 1 >= self._wanted_end
            return 0 if full else math.inf
        if self._bytes >= self._parts.max_bytes:
            return 0
        if not self._pending:
            return math.inf
        late, now = self._parts.clock() / 1000 - self._pending[0].logged_at > _LATE_SECONDS, time.monotonic()
        linger = self._parts.linger * (_LATE_LINGERS if late else 1)
        return max(self._since + linger, self._stored_at + self._parts.interval) - now

    async def _write_block(self) -> None:
        self._drop_stored()
        if not self._pending:
            return
        following, self._next = self._next, None
        settled = await following.settling if following else None
        async with Turn(self._parts.turns) as self._turn:
            await self._write_in_turn(following, settled)

    async def _write_in_turn(self, following: _Next | None, settled: Settled | None) -> None:
        state, parts = self._opened, self._parts
        wanted = Block(self.partition, state.position, following.end if following else self._next_end())
        if wanted.end > self._pending[-1].record.offset:
            self._since = time.monotonic()  # for what comes from here on, and waits for the next block
        claim = await self._repeated(lambda: parts.blocks.claim(wanted, parts.worker))
        if claim.stored_end > wanted.start or (settled and claim.end != wanted.end):
            log.warning("block_of_another_worker", partition=str(self.partition), start=wanted.start)
            await self.open()
            return
        if not self._is_ready(claim, wanted):
            return
        self._wanted_end = 0
        block = Block(self.partition, wanted.start, claim.end)
        taken = self._pending[: self._place_of(block.end)]
        self._taken, self._under_way = len(taken), sum(len(pending.record.value or b"") for pending in taken)
        if settled is None:
            settled = await self._settle([pending.record for pending in taken])
        self._is_storing = True
        self._settle_next()
        await self._store(block, settled)
        self._advance(block, taken, settled)

    def _settle_next(self) -> None:
        """While a block is being stored, and the next is full: begin to settle that.

        Memory evicts only where all that was settled is stored, so not every block is settled in advance.
        """
        if self._next or not self._is_storing or self._closing.is_set():
            return
        state, is_full = self._opened, self._bytes - self._under_way >= self._parts.max_bytes
        evicted_lately = time.monotonic() - self._evicted_at < _EVICT_SECONDS
        if is_full and evicted_lately and len(state.found) + len(state.letters) < _EVICT_COUNT:
            end = self._next_end()
            records = [pending.record for pending in self._pending[self._taken : self._place_of(end)]]
            self._next = _Next(end, asyncio.create_task(self._settle(records)))

    def _next_end(self) -> int:
        """Where the block ends that begins after the one under way: where it is full, if it is."""
        size = 0
        for pending in self._pending[self._taken :]:
            size += len(pending.record.value or b"")
            if size >= self._parts.max_bytes:
                return next((end for end in self._ends if end > pending.record.offset), pending.record.offset + 1)
        return self._pending[-1].record.offset + 1

    def _place_of(self, offset: int) -> int:
        """The place among what is pending of the first record at or after the offset."""
        return bisect_left(self._pending, offset, key=_offset)

    def _is_ready(self, claim: Claim, wanted: Block) -> bool:
        """Whether the claimed block can be written now: all its records are here."""
        if claim.end <= wanted.start:
            raise LedgerRefused(
                f"The claim of {self.partition} at offset {wanted.start} ends at {claim.end}. {REPAIR}."
            )
        if claim.end > self._pending[-1].record.offset + 1:
            self._wanted_end = claim.end
            return False
        return True

    async def _settle(self, records: list[LogRecord]) -> Settled:
        state, parts = self._opened, self._parts
        prepared = await self._prepare(records)
        wanted = await asyncio.to_thread(parts.pipeline.wanted, prepared, state)
        found = Found()
        if wanted:
            metrics.WORKER_LOOKUPS.inc(len(wanted.ids | wanted.rejected) + len(wanted.spans))
            found = await self._repeated(lambda: parts.states.lookup(self.partition, state.position, wanted))
        return await asyncio.to_thread(parts.pipeline.settle, prepared, state, found, parts.clock())

    async def _prepare(self, records: list[LogRecord]) -> Prepared:
        """The block after the stages that look at the event alone.

        Waits, before anything of the block is stored, while too many of its events would be dead letters: until the
        tenants file says otherwise of them. A restart begins to count anew; a block that is settled twice counts twice.
        """
        parts, state = self._parts, self._opened
        while True:
            rules = parts.rules()
            prepared = await self._ahead.take(records, state.journals, rules)
            dead = judged(prepared.rejections, rules.tenants)
            events = prepared.events + len(dead)
            self.paused = self._dead_share.is_over(events, len(dead))
            if not self.paused:
                self._dead_share.add(events, len(dead))
                return prepared
            await self._wait_for_other(rules, tell_pause(parts.dead_limit, events, dead), records[0].offset)

    async def _wait_for_other(self, rules: Rules, problem: str, offset: int) -> None:
        self._pass_on()
        told = 0
        while self._parts.rules().tenants is rules.tenants:
            if self._parts.clock() - told >= _MINUTE_MS:
                told = self._parts.clock()
                log.error("partition_paused", partition=str(self.partition), offset=offset, problem=problem)
            if await _is_set(self._closing, _RULES_SECONDS):
                raise _Closed

    async def _store(self, block: Block, settled: Settled) -> None:
        parts = self._parts
        letters = [letter for letter in settled.rows.dead_letters if letter["source"] == "streams"]
        if letters:
            await self._repeated_async(lambda: parts.letters.send(letters))
        await self._repeated(lambda: parts.blocks.write(block, settled.rows))
        journals = {journal_key(name, self._partitions): last for name, last in settled.accounts.journals.items()}
        accounts = replace(settled.accounts, journals=journals)
        await self._repeated(lambda: parts.blocks.finish(block, accounts, parts.worker))

    def _advance(self, block: Block, taken: list[Pending], settled: Settled) -> None:
        state, memory, now = self._opened, self._parts.memory, self._parts.clock()
        state.position, self._stored_at = block.end, time.monotonic()
        self._drop_stored()
        self._taken = self._under_way = 0
        self._is_storing = False
        if self._next is None:
            # A look through all sessions costs 100 ms a million: once a minute, not once a block.
            state.evict(now - memory.ids, (now - memory.sessions) // _MINUTE_MS * _MINUTE_MS)
            self._evicted_at = time.monotonic()
        accounts = settled.accounts
        for outcome in ("stored", "duplicate", "dead"):
            metrics.WORKER_EVENTS.labels(outcome).inc(getattr(accounts, outcome))
        metrics.WORKER_RECORDS.inc(len(taken))
        metrics.WORKER_BLOCK_ROWS.observe(accounts.stored)
        for reason, letters in Counter(letter["reason"] for letter in settled.rows.dead_letters).items():
            metrics.WORKER_DEAD_LETTERS.labels(reason).inc(letters)
        if accounts.last_received_at:
            metrics.WORKER_FRESHNESS.observe((now - accounts.first_received_at) / 1000)
            metrics.WORKER_FRESHNESS.observe((now - accounts.last_received_at) / 1000)

    def _drop_stored(self) -> None:
        """Acknowledge, in the order of the log, what the ledger has."""
        stored = self._place_of(self.position)
        for pending in self._pending[:stored]:
            _acknowledge(pending)
            self._bytes -= len(pending.record.value or b"")
        del self._pending[:stored]
        del self._ends[: bisect_right(self._ends, self.position)]

    async def _repeated(self, call: Callable[[], _T]) -> _T:
        """The call's answer, repeated while the warehouse is away; raises _Closed when closed meanwhile."""
        return await self._repeated_async(lambda: asyncio.to_thread(call))

    async def _repeated_async(self, call: Callable[[], Awaitable[_T]]) -> _T:
        for attempt in itertools.count():
            try:
                return await call()
            except StoreUnavailable as error:
                wait = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                log.warning("partition_waits", partition=str(self.partition), error=str(error), seconds=wait)
                metrics.WORKER_RETRIES.inc()
                self._pass_on()
                if await _is_set(self._closing, wait):
                    raise _Closed from error
        raise AssertionError("unreachable")

    def _pass_on(self) -> None:
        """Other partitions do not wait for what this one waits for."""
        if self._turn:
            self._turn.pass_on()


async def open_writers(writers: Sequence[PartitionWriter]) -> list[int]:
    """Read the writers' states back as of the ledger's end; their positions."""
    await asyncio.gather(*(writer._begin() for writer in writers))
    if remembering := [writer for writer in writers if writer._remembers]:
        await remembering[0]._read_recent(remembering)
    for writer in writers:
        state = writer._opened
        known = {"ids": len(state.ids), "sessions": len(state.sessions)}
        log.info("partition_opened", partition=str(writer.partition), position=state.position, **known)
    return [writer.position for writer in writers]


def _offset(pending: Pending) -> int:
    return pending.record.offset


def _pieces(records: Iterable[LogRecord], size: int) -> Iterator[list[LogRecord]]:
    """The records in pieces of about `size` bytes."""
    piece, length = list[LogRecord](), 0
    for record in records:
        piece.append(record)
        length += len(record.value or b"")
        if length >= size:
            yield piece
            piece, length = [], 0
    if piece:
        yield piece


def _acknowledge(pending: Pending) -> None:
    if pending.acknowledge is not None:
        pending.acknowledge()


class _Closed(Exception):
    """The writer was closed while it waited."""


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event for at most so long."""
    try:
        await asyncio.wait_for(event.wait(), None if seconds == math.inf else seconds)
    except TimeoutError:
        return False
    return True
