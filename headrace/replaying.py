"""Sends dead letters to a collector again, a batch at a time, and keeps the tally."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headrace.posting import CollectorClient
from headrace.replay import NotReplayable, Replayed, replay
from headrace.sending import BatchSender, Outcome, Patience, deliver
from schemas.codec import Codec
from warehouse.client import ClickHouse
from warehouse.letters import StoredLetter, Wanted, read_letters

#: What events that name no library get: it tells the collector that the request's address is not the visitor's.
LIBRARY: Final = "headrace-replay"
_BATCH_EVENTS: Final = 500
_BATCH_BYTES: Final = 700_000
_CONNECTIONS: Final = 2


@dataclass(slots=True)
class Tally:
    """What became of the letters and the events in them.

    `rejected` has one entry for each event, `not_replayable` one for each letter.
    """

    letters: int = 0
    events: int = 0
    accepted: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)
    not_replayable: list[dict[str, str]] = field(default_factory=list)
    undelivered: str = ""

    @property
    def complete(self) -> bool:
        """Whether every letter's events were accepted."""
        return not (self.rejected or self.not_replayable or self.undelivered)

    def note(self, batch: "ReplayBatch", outcome: Outcome) -> None:
        """Add a batch's verdicts."""
        self.accepted += outcome.accepted
        self.undelivered = self.undelivered or outcome.undelivered
        for refusal in outcome.refused:
            item = batch.items[refusal.position]
            why = {"reason": refusal.reason, "field": refusal.field, "message": refusal.message}
            self.rejected.append({"key": item.key, "eventId": item.event_id, **why})


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Events of one request."""

    items: Sequence[Replayed]

    @property
    def events(self) -> Sequence[bytes]:
        """Their JSON."""
        return [item.text for item in self.items]


def replayable(letters: Iterator[StoredLetter], codec: Codec, patch: Any, tally: Tally) -> Iterator[Replayed]:
    """The events of the letters; a letter that has none to send goes to the tally.

    An event that died several times has several letters and is sent once, or every replay would double its letters.
    """
    seen: set[tuple[str, str]] = set()
    for letter in letters:
        tally.letters += 1
        try:
            items = replay(letter, codec, patch)
        except NotReplayable as error:
            tally.not_replayable.append({"key": letter.key, "reason": letter.reason, "message": str(error)})
            continue
        for item in items:
            if (letter.company_id, item.event_id) not in seen:
                seen.add((letter.company_id, item.event_id))
                tally.events += 1
                yield item


def batches(items: Iterator[Replayed]) -> Iterator[ReplayBatch]:
    """Requests that a collector takes."""
    batch: list[Replayed] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= _BATCH_EVENTS or size + len(item.text) > _BATCH_BYTES):
            yield ReplayBatch(batch)
            batch, size = [], 0
        batch.append(item)
        size += len(item.text)
    if batch:
        yield ReplayBatch(batch)


async def send_again(
    url: str, write_key: str, ready: Iterator[ReplayBatch], tally: Tally, patience: Patience, show: Callable[[], None]
) -> None:
    """Deliver the batches of one tenant; stops at the first that cannot be delivered. `show` is called after each."""

    async def next_batch() -> ReplayBatch | None:
        return None if tally.undelivered else next(ready, None)

    async with CollectorClient(url, write_key, LIBRARY, _CONNECTIONS) as client:
        sender = BatchSender(client.post, {"library": LIBRARY}, patience)
        async for batch, outcome in deliver(next_batch, sender.send, _CONNECTIONS):
            tally.note(batch, outcome)
            show()


@dataclass(frozen=True, slots=True)
class Job:
    """Which letters to send again, how they are fixed, and to which collector."""

    client: ClickHouse
    wanted: Wanted
    codec: Codec
    patch: Any
    url: str
    patience: Patience

    async def run(
        self, write_keys: Mapping[str, str], limit: int | None, tally: Tally, show: Callable[[], None]
    ) -> None:
        """Tenant by tenant, each with its write key."""
        for company, write_key in write_keys.items():
            left = None if limit is None else limit - tally.letters
            letters = read_letters(self.client, replace(self.wanted, company=company), left)
            ready = batches(replayable(letters, self.codec, self.patch, tally))
            await send_again(self.url, write_key, ready, tally, self.patience, show)
            if tally.undelivered:
                return
