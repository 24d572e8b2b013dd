"""Fills a warehouse the way a worker does: claim, pipeline, rows, ledger; one partition, offsets from 0."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from schemas.blocks import Block, Found, Lookup, Partition
from schemas.codec import Codec
from schemas.context import CONTEXT_FIELDS
from schemas.identifiers import record_key
from schemas.records import CollectedEvent, CollectedRecord
from schemas.stages import LogRecord
from schemas.tenants import Tenant
from schemas.topics import COLLECTED
from streams.core.enrich import UserAgent
from streams.core.identity import Alias, merge_aliases
from streams.core.recent_ids import RecentIds
from streams.core.redact import DEFAULT_POLICY
from streams.core.sessions import Sessions
from streams.core.state import PartitionState
from streams.core.validate import Rules
from streams.pipeline import Pipeline
from warehouse.aliases import ClickHouseAliases
from warehouse.blocks import ClickHouseBlockStore
from warehouse.client import ClickHouse
from warehouse.states import ClickHouseStateStore

MINUTE: Final = 60_000
GAP: Final = 30 * MINUTE
NOW: Final = 1_790_000_000_000
CODEC: Final = Codec()
PIPELINE: Final = Pipeline(CODEC, DEFAULT_POLICY, lambda agent: UserAgent(bot=agent == "bot"), lambda _: "", GAP)
RULES: Final = Rules({company: Tenant(company_id=company) for company in ("acme", "other")}, 600)


def sent(event_id: str, at: int, **fields: Any) -> CollectedEvent:
    """An event of a record."""
    event: CollectedEvent = {
        "eventId": event_id,
        "timestamp": at,
        "type": "track",
        "userId": "",
        "previousId": "",
        "eventCategory": "ui",
        "eventAction": "opened",
        "eventLabel": "",
        "value": None,
        "properties": "{}",
        "context": {},
    }
    return {**event, **fields}  # type: ignore[typeddict-item]


def record_of(visitor: str, events: Sequence[CollectedEvent], company: str = "acme", **context: str) -> CollectedRecord:
    """A visitor's events of one request, received at the time of the last."""
    return {
        "companyId": company,
        "anonymousId": visitor,
        "receivedAt": max([NOW, *(event["timestamp"] for event in events)]),
        "sentAt": None,
        "journal": "",
        "sequence": 0,
        "context": {**dict.fromkeys(CONTEXT_FIELDS, ""), **context},
        "events": list(events),
    }


class Filler:
    """Writes records as the next blocks of its partition."""

    def __init__(self, client: ClickHouse, log_id: str = "log", number: int = 0) -> None:
        self._store = ClickHouseBlockStore(client)
        self._states = ClickHouseStateStore(client, 0)
        self._aliases = ClickHouseAliases(client, _merge)
        partition = Partition(log_id, COLLECTED, number)
        self.state = PartitionState(partition, 0, {}, RecentIds(0, 10_000_000), Sessions(GAP, 0))

    def put(self, records: Iterable[CollectedRecord], *, finish: bool = True) -> Block:
        """One block of these records; without `finish` it stays claimed and written, as after a crash."""
        values = [
            (record_key(record["companyId"], record["anonymousId"]), CODEC.encode_collected(record))
            for record in records
        ]
        return self.put_values(values, finish=finish)

    def put_values(self, values: Sequence[tuple[str, bytes]], *, finish: bool = True) -> Block:
        """One block of records that are bytes already, each with its key."""
        start = self.state.position
        logged = [LogRecord(start + at, key.encode(), value) for at, (key, value) in enumerate(values)]
        block = Block(self.state.partition, start, start + len(logged))
        self._store.claim(block, "filler")
        prepared = PIPELINE.prepare(logged, self.state.journals, RULES)
        wanted = PIPELINE.wanted(prepared, self.state)
        found = (
            self._states.lookup(block.partition, start, Lookup(rejected=wanted.rejected))
            if wanted.rejected
            else Found()
        )
        settled = PIPELINE.settle(prepared, self.state, found, NOW)
        self._store.write(block, settled.rows)
        if finish:
            self._store.finish(block, settled.accounts, "filler")
        self.state.position = block.end
        self._aliases.update()
        return block


def _merge(pairs: list[tuple[str, str]]) -> Mapping[str, str]:
    return merge_aliases(Alias(previous, user) for previous, user in pairs)
