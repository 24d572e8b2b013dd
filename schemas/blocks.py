"""What workers and the warehouse agree on: blocks of a partition, and the ledger that says which are stored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from schemas.records import DeadLetter
from schemas.stages import EventRun

#: ms; later than anything that is received, and a time that ClickHouse can hold.
END_OF_TIME: Final = 9_000_000_000_000


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one log: offsets mean something only together with it."""

    log_id: str
    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.log_id}/{self.topic}/{self.number}"


@dataclass(frozen=True, slots=True)
class Block:
    """The offsets [start, end) of a partition: what is stored whole or not at all."""

    partition: Partition
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim: where the block that begins at `start` ends, and how far the ledger is already."""

    end: int
    stored_end: int


@dataclass(slots=True)
class BlockRows:
    """What a block stores: rows of `events`, session overrides, dead letters."""

    events: list[EventRun] = field(default_factory=list)
    overrides: list[tuple[str, str, str, int, str]] = field(default_factory=list)  # company, visitor, id, start, target
    dead_letters: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The ledger's figures of one block: events = stored + duplicate + dead. Times are milliseconds.

    `journals` maps a `journal_key` to the highest sequence of that journal in the block.
    """

    records: int = 0
    redelivered: int = 0
    stored: int = 0
    duplicate: int = 0
    dead: int = 0
    journals: Mapping[str, int] = field(default_factory=dict)
    first_received_at: int = 0
    last_received_at: int = 0

    @property
    def events(self) -> int:
        """Every event of the block that counts."""
        return self.stored + self.duplicate + self.dead


def journal_key(journal: str, partitions: int) -> str:
    """The name of a journal in the ledger: its order holds within a partition, as long as the topic has so many."""
    return f"{journal}/{partitions}"


class BlockStore(Protocol):
    """Claims, writes and finishes blocks; each call may be repeated after a failure and then changes nothing.

    `claim` inserts the claim and reads back who won: every worker that asks for the same start gets the same end.
    `write` stores the rows, one insert a table and calendar month. `finish` writes the ledger's row, last of all.
    All raise StoreUnavailable when the warehouse is away; the caller repeats.
    """

    def claim(self, wanted: Block, worker: str) -> Claim: ...

    def write(self, block: Block, rows: BlockRows) -> None: ...

    def finish(self, block: Block, accounts: Accounts, worker: str) -> None: ...


class OrphanStore(Protocol):
    """Takes over the blocks that an earlier log, now gone, left half written.

    `adopt` completes what their inserts had begun, so that table and rollups agree, and returns their events as
    (companyId, eventId), without those whose record the partition has stored again since by `journals`. The collector's
    journal sends their records again; then they are stored already, and no duplicates. Raises StoreUnavailable.
    """

    def adopt(self, partition: Partition, journals: Mapping[str, int]) -> Collection[tuple[str, str]]: ...


class StoreUnavailable(Exception):
    """The warehouse does not answer now; nothing is lost by trying again."""


class SessionSpan(NamedTuple):
    """A session as it is stored: the ids that were overridden into it count as it."""

    visitor: str  # the record key, companyId:visitor
    session_id: str
    start: int
    end: int
    overridden: tuple[str, ...] = ()


class StateStore(Protocol):
    """Reads a partition's state back from the warehouse, as the ledger's position has it.

    `position` is the offset after the last block in the ledger (0: none) and the highest sequence of each journal that
    the partition has stored. `recent` gives the ids received, and the sessions that ended, at or after `since`, of
    partitions of one log's topic as of their positions: all of a worker's at once, as each would read the same rows.
    `lookup` answers for what is older than that: which of the ids are stored and were received before `ids_since`,
    which of the `rejected` have a dead letter of streams already, and every session of the visitors that touches its
    span. Rows of unfinished blocks of the partition are left out. All raise StoreUnavailable.
    """

    def position(self, partition: Partition) -> tuple[int, Mapping[str, int]]: ...

    def recent(
        self, positions: Mapping[Partition, int], partitions: int, since: int
    ) -> Mapping[Partition, "RecentState"]: ...

    def lookup(self, partition: Partition, position: int, asked: "Lookup") -> "Found": ...


#: The ids that are remembered lie in about so many runs of time: few enough that each is large, and enough that
#: forgetting the oldest keeps most of them.
GENERATIONS: Final = 8


@dataclass(frozen=True, slots=True)
class RecentState:
    """What a new owner of a partition needs: the ids, and the sessions either packed or as spans.

    Visitors come by the million, so nearly all of it are runs of bytes, one entry after the other (see
    `schemas.digests`). Every id received at or after `ids_since` (ms) is among `ids`, which are in the order of time:
    (time, digests of event keys received at or before it). `packed` are runs of PACKED_SESSION in the order of start,
    one run a bucket; `sessions` is what cannot be packed. No event of the topic that was received at or after
    `letters_since` has a dead letter of streams in the store.
    """

    ids_since: int
    ids: list[tuple[int, list[bytes]]] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    sessions: list[SessionSpan] = field(default_factory=list)
    letters_since: int = END_OF_TIME


@dataclass(slots=True)
class Lookup:
    """What has to be looked up before a block can be settled. An event is (companyId, eventId).

    `ids` may be stored already, `rejected` may have a dead letter; `spans` are earliest and latest time of interest by
    visitor (record key). Whatever was received at or after `ids_since` (ms) is known.
    """

    ids: set[tuple[str, str]] = field(default_factory=set)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    rejected: set[tuple[str, str]] = field(default_factory=set)
    ids_since: int = END_OF_TIME

    def __bool__(self) -> bool:
        return bool(self.ids or self.spans or self.rejected)


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a lookup. `spans` are those that were asked for: `sessions` has all that touch them."""

    ids: frozenset[tuple[str, str]] = frozenset()
    sessions: Sequence[SessionSpan] = ()
    dead: frozenset[tuple[str, str]] = frozenset()
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
