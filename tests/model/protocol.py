"""The world of a search: logs, rules that can be broken one by one, faults, and what has to hold."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.blocks import Found, Lookup, Partition, RecentState
from schemas.codec import Codec
from schemas.records import DeadLetter
from schemas.stages import EVENT_COLUMNS, LogRecord, runs_of
from schemas.tenants import Tenant
from streams.core.enrich import UserAgent
from streams.core.redact import DEFAULT_POLICY
from streams.core.validate import Rules
from streams.pipeline import Pipeline
from streams.writer import Memory, PartitionWriter, Parts
from tests.model.machine import Ask
from tests.model.store import AskingClient, Insert, ModelWarehouse, Read, Send, insert_steps
from warehouse.blocks import ClickHouseBlockStore, by_month
from warehouse.memory import MemoryView, MemoryWarehouse
from warehouse.orphans import ClickHouseOrphans
from warehouse.states import ClickHouseStateStore

MINUTE = 60_000
GAP = 30 * MINUTE
NOW = 1_792_000_000_000
CODEC = Codec()
_AT, _ID = EVENT_COLUMNS.index("timestamp"), EVENT_COLUMNS.index("eventId")

#: Targets of the two kinds: partitioned by month as the events are, and not partitioned.
MONTHS = MemoryView(
    "monthly", lambda row: next(iter(by_month(runs_of([row])))), lambda row: next(iter(by_month(runs_of([row]))))
)
TOTALS = MemoryView("totals", lambda _: "all", lambda _: "")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with an insert: its first `steps` are stored, and the next one's token too if it `leaves` it."""

    name: str
    steps: int
    leaves: str = ""  # the table whose token is noted without rows

    def __str__(self) -> str:
        return self.name


class AskingStates(ClickHouseStateStore):
    """The real position; the rest of the state as the warehouse in memory reads it, in one question each."""

    def __init__(self, ask: Ask, client: Any) -> None:
        super().__init__(client, 1_000_000)
        self._ask = ask

    def recent(self, positions: Mapping[Partition, int], partitions: int, since: int) -> dict[Partition, RecentState]:
        return self._read("recent", dict(positions), partitions, since)  # type: ignore[no-any-return]

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:
        sets = sorted(asked.ids), sorted(asked.spans.items()), sorted(asked.rejected)
        name = repr((partition, position, sets, asked.ids_since))
        return self._ask(Read("lookup", (partition, position, asked), name))  # type: ignore[no-any-return]

    def _read(self, method: str, *arguments: Any) -> Any:
        return self._ask(Read(method, arguments, repr(arguments)))


class AskingLetters:
    """LetterLog by questions."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def send(self, letters: Iterable[DeadLetter]) -> None:
        self._ask(Send(tuple(letter["key"] for letter in letters)))

    async def close(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Log:
    """A partition of one log: its records, and by offset the positions of the events that become dead letters: the
    first copy of each.
    """

    partition: Partition
    records: tuple[LogRecord, ...]
    dead: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is searched. Everything below `faults` is a rule as the product has it; tests break one each."""

    logs: tuple[Log, ...]
    ids: Counter[str]  # every id that is sent and is not dead, with its copies
    dead_copies: int = 0  # further copies of dead events
    workers: int = 2
    crashes: int = 1
    faults: int = 1
    views: tuple[MemoryView, ...] = (MONTHS, TOTALS)
    drops_tokens_without_rows: bool = True
    kills_workers_of_a_lost_log: bool = True
    token_of: Callable[[str, str], str] = lambda _, token: token
    writer: type[PartitionWriter] = PartitionWriter
    blocks: type[ClickHouseBlockStore] = ClickHouseBlockStore
    states: type[AskingStates] = AskingStates
    orphans: type[ClickHouseOrphans] = ClickHouseOrphans
    pipeline: Pipeline = field(
        default_factory=lambda: Pipeline(CODEC, DEFAULT_POLICY, lambda _: UserAgent(), lambda _: "", GAP)
    )

    def new_writer(self, ask: Ask, partition: Partition) -> PartitionWriter:
        """The real writer on the real stores, with nothing behind them but questions."""
        client: Any = AskingClient(ask, self.token_of)
        parts = Parts(
            blocks=self.blocks(client),
            states=self.states(ask, client),
            orphans=self.orphans(client),
            letters=AskingLetters(ask),
            pipeline=self.pipeline,
            rules=lambda: Rules({"acme": Tenant(company_id="acme")}, 24),
            clock=lambda: NOW,
            worker="w",
            memory=Memory(60 * MINUTE, 1_000_000, 120 * MINUTE, GAP),
            linger=0,
            max_bytes=1_000_000,
        )
        return self.writer(partition, 1, parts, remembers=True)

    def log_of(self, partition: Partition) -> int:
        """The number of the partition's log."""
        return next(number for number, log in enumerate(self.logs) if log.partition == partition)

    def faults_of(self, insert: Insert) -> Iterable[Fault]:
        """What can go wrong with an insert, beyond not being stored at all, which is as if it were still to come."""
        views = self.views if insert.table == "events" else ()
        yield Fault("stored, its answer lost", 1 + len(views))
        for steps, view in enumerate(views, start=1):
            yield Fault(f"stored, the view of {view.target} throws", steps)
        if not self.drops_tokens_without_rows:
            for steps, table in enumerate((insert.table, *(view.target for view in views))):
                yield Fault(f"the server is killed between token and rows of {table}", steps, table)

    def insert_with_fault(self, warehouse: ModelWarehouse, insert: Insert, fault: Fault) -> None:
        """What the fault leaves behind."""
        for step in insert_steps(warehouse, insert)[: fault.steps]:
            step()
        if fault.leaves:
            months = by_month(runs_of(insert.rows)) if insert.table == "events" else ()
            warehouse.tokens.update((fault.leaves, month, insert.token) for month in ("", *months))

    def broken_always(self, warehouse: MemoryWarehouse, letters: frozenset[str], committed: tuple[int, ...]) -> str:
        """What has to hold at every moment."""
        for number, log in enumerate(self.logs):
            blocks = [block for block, accounts in warehouse.ledger if block.partition == log.partition]
            blocks.sort(key=lambda block: (block.start, block.end))
            end = 0
            for block in blocks:
                if block.start > end:
                    return f"the ledger goes from {end} to {block.start}"
                if block.start < end:
                    return f"the ledger has {block.start} twice"
                end = block.end
            if committed[number] > end:
                return f"the offset {committed[number]} is committed, the ledger ends at {end}"
        for block, accounts in warehouse.ledger:
            log = self.logs[self.log_of(block.partition)]
            places = ((offset, place) for offset in range(block.start, block.end) for place in log.dead[offset])
            keys = {f"{block.partition}/{offset}/{place}" for offset, place in places}
            if len(keys & letters & warehouse.dead_letters.keys()) < accounts.dead:
                return f"the ledger has {block.start}-{block.end}, and not all of its dead letters are stored and sent"
        return ""

    def broken_at_the_end(self, warehouse: MemoryWarehouse) -> str:
        """What has to hold once everything is stored."""
        stored = Counter(row[_ID] for row in warehouse.events)
        for event_id in self.ids | stored:
            if stored[event_id] != 1:
                return f"the event {event_id} is stored {stored[event_id]} times"
        for view in self.views:
            counted, expected = warehouse.rollups.get(view.target, Counter()), view.recount(warehouse.events)
            if counted != expected:
                return f"the rollup {view.target} has {dict(counted)}, the events say {dict(expected)}"
        return self._broken_figures(warehouse)

    def _broken_figures(self, warehouse: MemoryWarehouse) -> str:
        entries = [accounts for _, accounts in warehouse.ledger]
        dead = sum(map(len, self.logs[-1].dead))
        duplicate = self.ids.total() - len(self.ids) + self.dead_copies
        wanted = {"stored": len(self.ids), "duplicate": duplicate, "dead": dead}
        figures = {name: sum(getattr(accounts, name) for accounts in entries) for name in wanted}
        if figures != wanted:
            return f"the ledger counts {figures}, sent were {wanted}"
        if len(warehouse.dead_letters) != dead:
            return f"{len(warehouse.dead_letters)} dead letters are stored, {dead} events were dead"
        return ""
