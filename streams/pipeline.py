"""The pipeline: the ordered list of stages that every event passes.

`prepare` runs the stages that look at the event alone. `wanted` says what of the past the others have to know that is
not in memory; the shell looks that up. `settle` runs the stages that depend on the past, and is the only one that
changes the partition's state, so a failure before it changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.blocks import Accounts, BlockRows, Found
from schemas.codec import Codec, UndecodableRecord
from schemas.context import CONTEXT_FIELDS
from schemas.identifiers import event_key, record_key
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.stages import (
    DecodedRecord,
    EnrichedEvent,
    LogRecord,
    Rejection,
    ValidatedEvent,
)
from streams.core.enrich import UserAgent, enrich
from streams.core.identity import Link, link_or_alias
from streams.core.recent_ids import Coverage
from streams.core.redact import (
    RedactionPolicy,
    may_have_secret_keys,
    may_hold_secrets,
    redact_context,
    redact_properties,
    redact_text,
)
from streams.core.rows import dead_letter, event_row
from streams.core.sessions import Session
from streams.core.state import PartitionState
from streams.core.validate import Rules, validate

#: The order of the path, and the name of each stage in metrics and docs.
STAGES: Final = ("validate", "redact", "enrich", "dedupe", "sessionize", "identify", "rows")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages with what they are configured by; `parse_user_agent` and `country_of_ip` never raise."""

    codec: Codec
    policy: RedactionPolicy
    parse_user_agent: Callable[[str], UserAgent]
    country_of_ip: Callable[[str], str]
    gap: int

    def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> "Prepared":
        """Decode the records and run validate, redact and enrich; a record that breaks a stage is rejected whole.

        `journals` is the partition's; records at or below it were stored before and are left out.
        """
        prepared = Prepared(dict(journals), len(records))
        for log_record in records:
            try:
                record = self.codec.decode_collected(log_record.value or b"")
                if prepared.is_redelivered(record["journal"], record["sequence"]):
                    continue
                events, rejections = self._run_stateless(DecodedRecord(log_record.offset, record), rules)
            except Exception as error:  # a poison record must not stop its partition, whatever it breaks
                prepared.rejections.append(_reject_record(log_record, error))
                continue
            prepared.events.extend(events)
            prepared.rejections.extend(rejections)
            prepared.note_received(record["receivedAt"])
        return prepared

    def _run_stateless(self, decoded: DecodedRecord, rules: Rules) -> tuple[list[EnrichedEvent], list[Rejection]]:
        record, offset = decoded.record, decoded.offset
        events, rejections = validate(decoded, rules)
        self._redact(events)
        contexts = _Contexts(self, record["context"])
        enriched = [
            EnrichedEvent(event.source, record, offset, event.timestamp, contexts.of(event.source["context"]))
            for event in events
        ]
        return enriched, rejections

    def _redact(self, events: Sequence[ValidatedEvent]) -> None:
        """Put redacted properties and labels in the place of those sent; nearly always there is nothing to do."""
        policy = self.policy
        texts = [event.source["properties"] for event in events]
        closer = may_hold_secrets("\n".join([*texts, *(event.source["eventLabel"] for event in events)]), policy)
        for event, text in zip(events, texts, strict=True):
            if closer or may_have_secret_keys(text, event.properties, policy):
                event.source["properties"] = redact_properties(text, policy)
            if closer:
                event.source["eventLabel"] = redact_text(event.source["eventLabel"], policy)

    def complete_context(self, context: dict[str, str]) -> tuple[str | bool, ...]:
        """A context redacted, enriched, and in the order of the columns."""
        redacted = redact_context(context, self.policy)
        full = enrich(redacted, user_agent_parser=self.parse_user_agent, country_of_ip=self.country_of_ip)
        return (*(full[name] for name in CONTEXT_FIELDS), full["bot"] == "1")

    def wanted(self, prepared: "Prepared", state: PartitionState) -> "Wanted":
        """What lies further back than the state: ids to look up, and visitors with the times of interest."""
        wanted, covers, needs_lookup = Wanted(), Coverage(state.ids.since).holds, state.sessions.needs_lookup
        for event in prepared.events:
            source, record, at = event.source, event.record, event.timestamp
            if not covers(source["timestamp"], at, source["eventId"], record["receivedAt"]):
                wanted.ids.add((record["companyId"], source["eventId"]))
            if needs_lookup(at):
                first, last = wanted.spans.get(key := _visitor(event), (at, at))
                wanted.spans[key] = (min(first, at), max(last, at))
        for key, (first, last) in wanted.spans.items():
            wanted.spans[key] = (first - self.gap, last + self.gap)
        wanted.rejected.update(_key(rejection) for rejection in prepared.rejections if rejection.event_id)
        wanted.ids |= wanted.rejected
        return wanted

    def settle(self, prepared: "Prepared", state: PartitionState, found: Found, now: int) -> "Settled":
        """Run dedupe, sessionize, identify and rows, in the order of the log; changes `state` but for its position."""
        state.found.update(found.ids)
        for span in found.sessions:
            state.sessions.load(span.visitor, Session(span.session_id, span.start, span.end, span.overridden))
        rows, adopted = BlockRows(), 0
        for event in prepared.events:
            if state.adopted and _is_adopted(event, state):
                adopted += 1
            elif not _is_duplicate(event, state):
                session_id = _sessionize(event, state, rows)
                rows.events.append(event_row(event, session_id, _identify(event), state.partition))
        dead = _drop_second_copies(prepared.rejections, state, found)
        rows.dead_letters.extend(dead_letter(rejection, state.partition, now) for rejection in dead)
        state.journals.update(prepared.journals)
        return Settled(rows, prepared.accounts(len(rows.events) + adopted, len(dead)))


@dataclass(slots=True)
class Prepared:
    """A block after the stages that look at the event alone."""

    journals: dict[str, int]
    records: int
    redelivered: int = 0
    events: list[EnrichedEvent] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    first_received_at: int = 0
    last_received_at: int = 0

    def is_redelivered(self, journal: str, sequence: int) -> bool:
        """Whether the journal sent this record before; journals send in order, so the highest sequence tells."""
        if not journal:
            return False
        if sequence <= self.journals.get(journal, -1):
            self.redelivered += 1
            return True
        self.journals[journal] = sequence
        return False

    def note_received(self, at: int) -> None:
        """Keep the first and last time of receipt of the block."""
        self.first_received_at = min(self.first_received_at or at, at)
        self.last_received_at = max(self.last_received_at, at)

    def accounts(self, stored: int, dead: int = 0) -> Accounts:
        """The block's figures once `stored` of its events are rows, and `dead` of them letters."""
        return Accounts(
            records=self.records,
            redelivered=self.redelivered,
            stored=stored,
            duplicate=len(self.events) + len(self.rejections) - stored - dead,
            dead=dead,
            journals=self.journals,
            first_received_at=self.first_received_at,
            last_received_at=self.last_received_at,
        )


@dataclass(slots=True)
class Wanted:
    """What has to be looked up before a block can be settled: ids, and record key -> (first, last) time.

    `rejected` are those of the ids that may have a dead letter.
    """

    ids: set[tuple[str, str]] = field(default_factory=set)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    rejected: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.ids or self.spans)


@dataclass(frozen=True, slots=True)
class Settled:
    """A block ready to be written."""

    rows: BlockRows
    accounts: Accounts


class _Contexts:
    """The complete contexts of one record: its events share one, or a run of them one that differs alike."""

    def __init__(self, pipeline: Pipeline, shared: dict[str, str]) -> None:
        self._pipeline = pipeline
        self._raw = shared
        self._shared: tuple[str | bool, ...] | None = None
        self._last_own: dict[str, str] = {}
        self._last: tuple[str | bool, ...] = ()

    def of(self, own: dict[str, str]) -> tuple[str | bool, ...]:
        """The context of an event, `own` what it has of its own."""
        if own:
            if own != self._last_own:
                self._last_own, self._last = own, self._pipeline.complete_context({**self._raw, **own})
            return self._last
        if self._shared is None:
            self._shared = self._pipeline.complete_context(dict(self._raw))
        return self._shared


def _reject_record(log_record: LogRecord, error: Exception) -> Rejection:
    message = str(error) if isinstance(error, UndecodableRecord) else f"The record broke a stage: {error!r}"
    return Rejection(
        offset=log_record.offset,
        position=-1,
        reason=Reason.UNDECODABLE,
        field="",
        message=message,
        company_id=(log_record.key or b"").decode(errors="replace").partition(":")[0],
        content_type="avro",
        payload=log_record.value or b"",
    )


def _visitor(event: EnrichedEvent) -> str:
    return record_key(event.record["companyId"], event.record["anonymousId"] or event.source["userId"])


def _is_adopted(event: EnrichedEvent, state: PartitionState) -> bool:
    """Whether the event's row was stored by a block that an earlier log left unfinished; counts once."""
    key = (event.record["companyId"], event.source["eventId"])
    if key not in state.adopted:
        return False
    state.adopted.remove(key)
    return True


def _is_duplicate(event: EnrichedEvent, state: PartitionState) -> bool:
    company_id, event_id = event.record["companyId"], event.source["eventId"]
    if state.found and (company_id, event_id) in state.found:
        return True
    return not state.ids.add_new(event_key(company_id, event_id), event.record["receivedAt"])


def _drop_second_copies(rejections: Sequence[Rejection], state: PartitionState, found: Found) -> list[Rejection]:
    """The rejections without those whose event is stored, or is dead already; comes after the block's events.

    An event that can be stored never asks for the letters: a letter may be sent again with a fix.
    """
    dead = set(found.dead)
    first: list[Rejection] = []
    for rejection in rejections:
        key = _key(rejection)
        if rejection.event_id and (key in dead or key in state.found or state.ids.seen(event_key(*key))):
            continue
        dead.add(key)
        first.append(rejection)
    return first


def _key(rejection: Rejection) -> tuple[str, str]:
    return rejection.company_id, rejection.event_id


def _sessionize(event: EnrichedEvent, state: PartitionState, rows: BlockRows) -> str:
    """The id of the event's session."""
    visitor = _visitor(event)
    if session_id := state.sessions.extend(visitor, event.timestamp):
        return session_id
    placement = state.sessions.put(visitor, event.timestamp)
    if placement.overrides:
        starts = {session.session_id: session.start for session in state.sessions.of(visitor)}
        visitor_id = event.record["anonymousId"] or event.source["userId"]
        rows.overrides.extend(
            (event.record["companyId"], visitor_id, later, starts[target], target)
            for later, target in placement.overrides
        )
    return placement.session_id


def _identify(event: EnrichedEvent) -> str:
    """What the event says of identity: 'link', 'alias' or ''."""
    source = event.source
    if source["type"] not in ("identify", "alias"):
        return ""
    said = link_or_alias(
        source["type"], event.record["anonymousId"], source["userId"], source["previousId"], event.timestamp
    )
    return "" if said is None else "link" if isinstance(said, Link) else "alias"
