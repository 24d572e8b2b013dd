"""The warehouse in memory: the same deduplication by token as ClickHouse, for tests without a server.

What it shares with the real one is held by `tests/contract/test_block_stores.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from schemas.blocks import (
    Accounts,
    Block,
    BlockRows,
    Claim,
    Found,
    Lookup,
    Partition,
    RecentState,
    SessionSpan,
    StoreUnavailable,
)
from schemas.digests import key_digest
from schemas.identifiers import event_key, record_key
from schemas.records import DeadLetter
from schemas.stages import EVENT_COLUMNS, runs_of
from warehouse.blocks import by_month
from warehouse.states import merge_overridden

Row = tuple[Any, ...]
_COLUMN = {name: index for index, name in enumerate(EVENT_COLUMNS)}
_NO_END = 1 << 63


@dataclass(frozen=True, slots=True)
class MemoryView:
    """A view of `events` that counts them: `key_of` gives an event's row in the target, `month_of` the target's
    partition that the row lies in. A target that does not `deduplicate` has no window.
    """

    target: str
    key_of: Callable[[Row], Hashable]
    month_of: Callable[[Row], str]
    deduplicates: bool = True

    def recount(self, events: Iterable[Row]) -> Counter[Hashable]:
        """What the target has to hold for these events."""
        return Counter(map(self.key_of, events))


@dataclass(slots=True)
class MemoryWarehouse:
    """Both the BlockStore and the StateStore. Rows that were inserted stay, whatever their inserter does next.

    The partition of a visitor is not computed: `recent` gives what the asked partition stored.
    """

    claims: dict[tuple[Partition, int], Claim] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    overrides: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    dead_letters: dict[str, DeadLetter] = field(default_factory=dict)
    ledger: list[tuple[Block, Accounts]] = field(default_factory=list)
    tokens: set[tuple[str, str, str]] = field(default_factory=set)  # table, partition of the table, token
    views: tuple[MemoryView, ...] = ()
    rollups: dict[str, Counter[Hashable]] = field(default_factory=dict)
    refusing: str = ""  # the target whose view throws

    def claim(self, wanted: Block, worker: str) -> Claim:  # noqa: ARG002
        """The first claim of a start decides its end."""
        first = self.claims.setdefault((wanted.partition, wanted.start), Claim(wanted.end, 0))
        ends = [block.end for block, _ in self.ledger if block.partition == wanted.partition]
        return Claim(first.end, max((end for end in ends if end > wanted.start), default=0))

    def write(self, block: Block, rows: BlockRows) -> None:
        """Each month of events under its own token, then overrides and dead letters."""
        for month, runs in sorted(by_month(rows.events).items()):
            events = [row for run in runs for row in run.rows()]
            self.insert_events(f"{block.partition}/{block.start}-{block.end}/{month}", events)
        for company, visitor, later, start, target in rows.overrides:
            key = (company, visitor, later)
            self.overrides[key] = min(self.overrides.get(key, (start, target)), (start, target))
        self.dead_letters.update((letter["key"], letter) for letter in rows.dead_letters)

    def insert_events(self, token: str, events: list[Row]) -> None:
        """One insert: the table first, then the target of each view."""
        for step in self.insert_steps(token, events):
            step()

    def insert_steps(self, token: str, events: list[Row]) -> list[Callable[[], None]]:
        """The steps of one insert, each whole or not at all; one that fails ends the insert, those before it stand.

        A token is known for each table and partition of it by itself. The views get every row, also where the table
        dropped them, so that a repetition fills what an earlier failure left out.
        """
        return [
            lambda: self._insert("events", token, _rows_by_month(events), self.events.extend),
            *(partial(self._fill, view, token, events) for view in self.views),
        ]

    def _fill(self, view: MemoryView, token: str, events: list[Row]) -> None:
        if view.target == self.refusing:
            raise StoreUnavailable(f"The view of {view.target} refused the rows.")
        months: dict[str, list[Row]] = defaultdict(list)
        for row in events:
            months[view.month_of(row)].append(row)
        target = self.rollups.setdefault(view.target, Counter())
        if view.deduplicates:
            self._insert(view.target, token, months, lambda rows: target.update(view.recount(rows)))
        else:
            target.update(view.recount(events))

    def _insert(
        self, table: str, token: str, months: Mapping[str, list[Row]], store: Callable[[list[Row]], None]
    ) -> None:
        for month, rows in sorted(months.items()):
            if self.is_new(table, token, month):
                store(rows)

    def is_new(self, table: str, token: str, month: str = "") -> bool:
        """Whether the token was not used yet for the partition of the table; it is now."""
        known = (table, month, token) in self.tokens
        self.tokens.add((table, month, token))
        return not known

    def finish(self, block: Block, accounts: Accounts, worker: str) -> None:  # noqa: ARG002
        """The ledger's row, once."""
        if self.is_new("blocks", f"{block.partition}/{block.start}-{block.end}"):
            self.ledger.append((block, accounts))

    def position(self, partition: Partition) -> tuple[int, Mapping[str, int]]:
        """The end of the ledger, and the highest sequences; those of other logs of the topic count too."""
        mine = [block.end for block, _ in self.ledger if block.partition == partition]
        journals: dict[str, int] = {}
        for block, accounts in self.ledger:
            if (block.partition.topic, block.partition.number) == (partition.topic, partition.number):
                for journal, sequence in accounts.journals.items():
                    journals[journal] = max(sequence, journals.get(journal, -1))
        return max(mine, default=0), journals

    def recent(self, positions: Mapping[Partition, int], partitions: int, since: int) -> dict[Partition, RecentState]:  # noqa: ARG002
        """What the partitions stored at or after `since`."""
        return {partition: self._recent(partition, position, since) for partition, position in positions.items()}

    def _recent(self, partition: Partition, position: int, since: int) -> RecentState:
        ids = sorted(
            (self._value(row, "receivedAt"), self._value(row, "companyId"), self._value(row, "eventId"))
            for row in self._finished(partition, position)
            if self._value(row, "receivedAt") >= since
        )
        digests = [(at, [key_digest(event_key(company, event))]) for at, company, event in ids]
        letters = (each for each in self.dead_letters.values() if each["source"] == "streams")
        received = (each["receivedAt"] for each in letters if each["topic"] == partition.topic)
        sessions = [span for span in self._spans() if span.end >= since]
        return RecentState(since, digests, sessions=sessions, letters_since=max(received, default=0) + 1)

    def lookup(self, partition: Partition, position: int, asked: Lookup) -> Found:
        """Stored ids and letters among these, and the visitors' sessions that touch their spans."""
        rows = [row for row in self._finished(partition, position) if self._value(row, "receivedAt") < asked.ids_since]
        stored = {(self._value(row, "companyId"), self._value(row, "eventId")) for row in rows}
        touching = [
            span
            for span in self._spans()
            if (times := asked.spans.get(span.visitor)) and span.end >= times[0] and span.start <= times[1]
        ]
        dead = {
            (letter["companyId"], letter["eventId"])
            for letter in self.dead_letters.values()
            if letter["source"] == "streams" and not _is_of(letter, Block(partition, position, _NO_END))
        }
        return Found(frozenset(stored & asked.ids), touching, frozenset(dead & asked.rejected), asked.spans)

    def adopt(self, partition: Partition, journals: Mapping[str, int]) -> Collection[tuple[str, str]]:
        """Events of other logs' blocks of the partition that are not in the ledger, their views filled."""
        finished = {(block.partition, block.start) for block, accounts in self.ledger if accounts.records}
        adopted: set[tuple[str, str]] = set()
        for (other, start), claim in self.claims.items():
            if (other.topic, other.number) != (partition.topic, partition.number) or other == partition:
                continue
            if (other, start) not in finished:
                block = Block(other, start, claim.end)
                rows = self.rows_of(block)
                self.write(block, BlockRows(events=runs_of(rows)))
                letters = self.dead_letters
                self.dead_letters = {key: letter for key, letter in letters.items() if not _is_of(letter, block)}
                self.finish(block, Accounts(), "adopted")
                adopted |= {
                    (self._value(row, "companyId"), self._value(row, "eventId"))
                    for row in rows
                    if self._value(row, "sequence") > journals.get(self._value(row, "journal"), -1)
                }
        return adopted

    def rows_of(self, block: Block) -> list[Row]:
        """The events of a block that are stored."""
        where = (block.partition.log_id, block.partition.number)
        return [
            row
            for row in self.events
            if (self._value(row, "logId"), self._value(row, "logPartition")) == where
            and block.start <= self._value(row, "logOffset") < block.end
        ]

    def _finished(self, partition: Partition, position: int) -> list[Row]:
        where = ("logId", "logPartition")
        own = (partition.log_id, partition.number)
        return [
            row
            for row in self.events
            if tuple(self._value(row, name) for name in where) != own or self._value(row, "logOffset") < position
        ]

    def _spans(self) -> list[SessionSpan]:
        times: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in self.events:
            visitor = self._value(row, "anonymousId") or self._value(row, "userId")
            key = (record_key(self._value(row, "companyId"), visitor), self._value(row, "sessionId"))
            times[key].append(self._value(row, "timestamp"))
        rows = [(*key, min(at), max(at)) for key, at in times.items()]
        overrides = [
            (record_key(company, visitor), later, target)
            for (company, visitor, later), (_, target) in self.overrides.items()
        ]
        return list(merge_overridden(rows, overrides))

    @staticmethod
    def _value(row: Row, column: str) -> Any:
        return row[_COLUMN[column]]

    def visitors(self) -> dict[str, list[tuple[int, str]]]:
        """Every visitor's stored events as (time, session after overrides), for comparison with a recomputation."""
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for row in self.events:
            company = self._value(row, "companyId")
            visitor = self._value(row, "anonymousId") or self._value(row, "userId")
            session_id = self._value(row, "sessionId")
            resolved = self.overrides.get((company, visitor, session_id), (0, session_id))[1]
            found[record_key(company, visitor)].append((self._value(row, "timestamp"), resolved))
        return found


def _is_of(letter: DeadLetter, block: Block) -> bool:
    """Whether streams wrote the letter for an offset of the block."""
    where = Partition(letter["logId"], letter["topic"], letter["partition"])
    return letter["source"] == "streams" and where == block.partition and block.start <= letter["offset"] < block.end


def _rows_by_month(rows: Iterable[Row]) -> dict[str, list[Row]]:
    return {month: [row for run in runs for row in run.rows()] for month, runs in by_month(runs_of(rows)).items()}
