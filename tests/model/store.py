"""ClickHouse as the model sees it: requests of the real stores, answered by the warehouse in memory, step by step."""

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.blocks import Accounts, Block, Claim, Partition
from schemas.stages import EVENT_COLUMNS
from tests.model.machine import Ask
from warehouse import blocks, orphans, states
from warehouse.memory import MemoryWarehouse

_COLUMN = {name: index for index, name in enumerate(EVENT_COLUMNS)}


@dataclass(frozen=True, slots=True)
class Insert:
    """One insert under its token; `rows` can be compared and hashed."""

    table: str
    token: str
    rows: tuple[Any, ...]

    def __str__(self) -> str:
        return f"insert {len(self.rows)} into {self.table}, token {self.token}"


@dataclass(frozen=True, slots=True)
class Query:
    """A statement that reads or deletes, told by its text."""

    sql: str
    parameters: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"{_ANSWERS[self.sql][0]} {dict(self.parameters)}"


@dataclass(frozen=True, slots=True)
class Read:
    """One reading of the state by a method of StateStore."""

    method: str
    arguments: tuple[Any, ...] = field(hash=False)
    key: str

    def __str__(self) -> str:
        return f"read back: {self.method}"


@dataclass(frozen=True, slots=True)
class Send:
    """Dead letters for the log."""

    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"send dead letters {', '.join(self.keys)}"


class AskingClient:
    """In the place of `warehouse.client.ClickHouse`: every statement is asked of the search."""

    def __init__(self, ask: Ask, token_of: Callable[[str, str], str]) -> None:
        self._ask = ask
        self._token_of = token_of

    def insert(self, table: str, names: Sequence[str], columns: Sequence[Sequence[Any]], token: str) -> None:
        rows = [tuple(map(_frozen, row)) for row in zip(*columns, strict=True)]
        if table in ("blocks", "dead_letters"):
            rows = [tuple(zip(names, row, strict=True)) for row in rows]
        self._ask(Insert(table, self._token_of(table, token), tuple(rows)))

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return list(self._ask(Query(sql, tuple(sorted((parameters or {}).items())))))

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        self._ask(Query(sql, tuple(sorted((parameters or {}).items()))))


def _frozen(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


@dataclass(slots=True)
class ModelWarehouse(MemoryWarehouse):
    """With inserts whose worker was killed, and which the server still carries out."""

    flying: tuple[Insert, ...] = ()


def copied(warehouse: ModelWarehouse) -> ModelWarehouse:
    """Another warehouse of the same content."""
    other = copy.copy(warehouse)
    for name in ("claims", "events", "dead_letters", "ledger", "tokens"):
        setattr(other, name, getattr(warehouse, name).copy())
    other.rollups = {target: counts.copy() for target, counts in warehouse.rollups.items()}
    return other


def content(warehouse: ModelWarehouse) -> Hashable:
    """What two warehouses have to share to be the same state."""
    return (
        frozenset(warehouse.claims.items()),
        frozenset(Counter(warehouse.events).items()),
        frozenset(warehouse.dead_letters),
        frozenset((block, repr(accounts)) for block, accounts in warehouse.ledger),
        len(warehouse.ledger),
        frozenset(warehouse.tokens),
        warehouse.flying,
        frozenset((target, frozenset(counts.items())) for target, counts in warehouse.rollups.items()),
    )


def insert_steps(warehouse: ModelWarehouse, insert: Insert) -> list[Callable[[], None]]:
    """The steps of an insert, the table's own first."""
    if insert.table == "events":
        return warehouse.insert_steps(insert.token, list(insert.rows))
    return [lambda: _insert(warehouse, insert)]


def _insert(warehouse: ModelWarehouse, insert: Insert) -> None:
    if not warehouse.is_new(insert.table, insert.token):
        return
    if insert.table == "block_claims":
        ((log, topic, number, start, end, _),) = insert.rows
        warehouse.claims.setdefault((Partition(log, topic, number), start), Claim(end, 0))
    elif insert.table == "dead_letters":
        warehouse.dead_letters.update((dict(row)["key"], dict(row)) for row in insert.rows)  # type: ignore[misc]
    elif insert.table == "blocks":
        (row,) = (dict(row) for row in insert.rows)
        names = ("records", "redelivered", "stored", "duplicate", "dead")
        figures = {name: row[name] for name in names}
        accounts = Accounts(**figures, journals=dict(row["journals"]), last_received_at=row["lastReceivedAt"])
        partition = Partition(row["logId"], row["topic"], row["partition"])
        warehouse.ledger.append((Block(partition, row["start"], row["end"]), accounts))


def must_wait(warehouse: ModelWarehouse, request: Any) -> bool:
    """Whether the worker would ask the same again until an insert of a lost log has arrived."""
    return isinstance(request, Query) and request.sql == states._RUNNING and answer(warehouse, request)[0][0] > 0


def answer(warehouse: ModelWarehouse, request: Query | Read) -> Any:
    """A reading's answer; a deletion changes the warehouse."""
    if isinstance(request, Read):
        return getattr(warehouse, request.method)(*request.arguments)
    return _ANSWERS[request.sql][1](warehouse, dict(request.parameters))


def _running(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    tokens = [insert.token for insert in warehouse.flying]
    return [(sum(where["place"] in token and not token.startswith(where["own"]) for token in tokens),)]


def _position(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(warehouse.position(_partition(where))[0],)]


def _journals(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return sorted(warehouse.position(_partition(where))[1].items())


def _partition(where: Mapping[str, Any]) -> Partition:
    return Partition(where["log"], where["topic"], where["number"])


def _claim(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    partition, start = _partition(where), where["start"]
    claim = warehouse.claims.get((partition, start))
    ends = [block.end for block, _ in warehouse.ledger if block.partition == partition and block.start >= start]
    return [(claim.end if claim else 0, max(ends, default=0))]


def _others(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Block, Accounts]]:
    return [entry for entry in warehouse.ledger if entry[0].partition != _partition(where)]


def _unfinished(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    known = {(block.partition, block.start) for block, _ in warehouse.ledger}
    return [
        (partition.log_id, start, claim.end)
        for (partition, start), claim in sorted(warehouse.claims.items(), key=str)
        if partition != _partition(where) and (partition, start) not in known
    ]


def _adopted(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    blocks = sorted((block for block, accounts in _others(warehouse, where) if not accounts.records), key=str)
    return [(block.partition.log_id, block.start, block.end) for block in blocks]


def _events_in(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    topic = next((partition.topic for partition, _ in warehouse.claims), "")
    block = Block(Partition(where["log"], topic, where["number"]), where["start"], where["end"])
    return sorted(warehouse.rows_of(block), key=repr)


def _adopted_events(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    names = ("companyId", "eventId", "journal", "sequence")
    return [tuple(row[_COLUMN[name]] for name in names) for row in _events_in(warehouse, where)]


def _forget_letters(warehouse: ModelWarehouse, where: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    for key, letter in list(warehouse.dead_letters.items()):
        here = letter["logId"] == where["log"] and where["start"] <= letter["offset"] < where["end"]
        if here and letter["source"] == "streams":
            del warehouse.dead_letters[key]
    return []


_EVENTS_OF_BLOCK = f"SELECT {orphans._EVENT_COLUMNS} FROM events WHERE {orphans._IN_BLOCK}"
_ANSWERS: dict[str, tuple[str, Callable[[ModelWarehouse, Mapping[str, Any]], list[tuple[Any, ...]]]]] = {
    blocks._CLAIM: ("who claimed", _claim),
    orphans._UNFINISHED: ("unfinished blocks of other logs than", _unfinished),
    states._RUNNING: ("inserts of lost logs that still run at", _running),
    states._POSITION: ("the ledger's end", _position),
    states._JOURNALS: ("the journals' highest sequences", _journals),
    orphans._ADOPTED: ("adopted blocks of other logs than", _adopted),
    orphans._ADOPTED_EVENTS: ("adopted events", _adopted_events),
    orphans._FORGET_LETTERS: ("forget dead letters", _forget_letters),
    _EVENTS_OF_BLOCK: ("events of block", _events_in),
}
