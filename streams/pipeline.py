"""The pipeline: the ordered list of stages that every event passes.

`prepare` runs the stages that look at the event alone. `wanted` says what of the past the others have to know that is
not in memory; the shell looks that up. `settle` runs the stages that depend on the past, and is the only one that
changes the partition's state, so a failure before it changes nothing.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, groupby
from operator import itemgetter
from typing import Final

import msgspec

from schemas.blocks import BlockRows, Found, Lookup
from schemas.codec import Codec, UndecodableRecord
from schemas.context import CONTEXT_FIELDS
from schemas.identifiers import event_key, record_key
from schemas.reasons import Reason
from schemas.records import CollectedEvent
from schemas.stages import (
    DecodedRecord,
    EnrichedRun,
    LogRecord,
    Rejection,
    ValidatedRecord,
)
from streams.core.enrich import UserAgent, enrich
from streams.core.pages import Pages
from streams.core.recent_ids import Coverage
from streams.core.redact import (
    RedactionPolicy,
    may_have_secret_keys,
    may_hold_secrets,
    redact_properties,
    redact_text,
)
from streams.core.rows import dead_letter, event_rows
from streams.core.sessions import Session
from streams.core.state import PartitionState
from streams.core.validate import Rules, validate
from streams.prepared import Prepared, Settled

_context_values: Final = itemgetter(*CONTEXT_FIELDS)
_own_context: Final = itemgetter("context")
#: How many of a run's events to place singly before looking no more whether all others are of one session.
_LOOKS: Final = 4
#: What is late comes with more of the same visitor and about the same time, whose sessions are looked up along with it
#: (ms to each side).
_ALONG_MS: Final = 6 * 3_600_000
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
    _pages: Pages = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pages", Pages(self.policy))

    def prepare(self, records: Sequence[LogRecord], journals: dict[str, int], rules: Rules) -> Prepared:
        """Decode the records and run validate, redact and enrich; a record that breaks a stage is rejected whole.

        `journals` is the partition's; records at or below it were stored before and are left out.
        """
        prepared = Prepared(dict(journals), len(records))
        for log_record in records:
            try:
                record = self.codec.decode_collected(log_record.value or b"")
                if prepared.is_redelivered(record["journal"], record["sequence"]):
                    continue
                runs, rejections = self._run_stateless(DecodedRecord(log_record.offset, record), rules)
            except Exception as error:  # a poison record must not stop its partition, whatever it breaks
                prepared.rejections.append(_reject_record(log_record, error))
                continue
            prepared.runs += runs
            prepared.rejections += rejections
            prepared.events += len(record["events"]) - len(rejections)
            prepared.note_received(record["receivedAt"])
        return prepared

    def _run_stateless(self, decoded: DecodedRecord, rules: Rules) -> tuple[list[EnrichedRun], list[Rejection]]:
        valid, rejections = validate(decoded, rules)
        if not valid.events:
            return [], rejections
        self._redact(valid)
        return self._enrich(valid), rejections

    def _redact(self, valid: ValidatedRecord) -> None:
        """Put redacted properties and labels in the place of those sent; nearly always there is nothing to do."""
        policy, texts = self.policy, [event["properties"] for event in valid.events]
        lines = "\n".join(texts)
        closer = may_hold_secrets("\n".join([lines, *(event["eventLabel"] for event in valid.events)]), policy)
        if not closer and not may_have_secret_keys(lines, valid.properties, policy):
            return
        for event, text, properties in zip(valid.events, texts, valid.properties, strict=True):
            if closer or may_have_secret_keys(text, [properties], policy):
                event["properties"] = redact_properties(text, policy)
            if closer:
                event["eventLabel"] = redact_text(event["eventLabel"], policy)

    def _enrich(self, valid: ValidatedRecord) -> list[EnrichedRun]:
        """The record's runs of events with the same context."""
        record, offset, events, times = valid.decoded.record, valid.decoded.offset, valid.events, valid.times
        if not any(map(_own_context, events)):  # nearly every record
            return [EnrichedRun(record, offset, self.complete_context(record["context"]), events, times)]
        runs, start = [], 0
        for own, same in groupby(events, _own_context):
            end = start + len(list(same))
            context = self.complete_context({**record["context"], **own})
            runs.append(EnrichedRun(record, offset, context, events[start:end], times[start:end]))
            start = end
        return runs

    def complete_context(self, context: Mapping[str, str]) -> tuple[str | bool, ...]:
        """A context redacted, enriched, and in the order of the columns."""
        full = enrich(
            context,
            user_agent_parser=self.parse_user_agent,
            country_of_ip=self.country_of_ip,
            page_of=self._pages.of,
        )
        return (*_context_values(full), full["bot"] == "1")

    def wanted(self, prepared: Prepared, state: PartitionState) -> Lookup:
        """What lies further back than the state: ids to look up, and visitors with the times of interest."""
        wanted, sessions = Lookup(ids_since=state.ids.since), state.sessions
        coverage = Coverage(state.ids.since)
        needs_lookup, around = sessions.needs_lookup, self.gap + _ALONG_MS
        for run in prepared.runs:
            company_id, received_at = run.record["companyId"], run.record["receivedAt"]
            ids = [event["eventId"] for event in run.events]
            raw = [event["timestamp"] for event in run.events]
            if not coverage.holds_all(raw, run.times, ids, received_at):
                holes = coverage.holes(raw, run.times, ids, received_at)
                wanted.ids.update((company_id, ids[place]) for place in holes)
            if needs_lookup(min(run.times)):
                for event, at in zip(run.events, run.times, strict=True):
                    if needs_lookup(at) and not sessions.has_loaded(key := _visitor(run, event), at):
                        first, last = wanted.spans.get(key, (at, at))
                        wanted.spans[key] = (min(first, at), max(last, at))
        for key, (first, last) in wanted.spans.items():
            wanted.spans[key] = (first - around, last + around)
        bad = [rejection for rejection in prepared.rejections if rejection.event_id]
        wanted.ids.update(_key(one) for one in bad if not state.ids.covers(one.oldest))
        wanted.rejected.update(_key(one) for one in bad if not state.letters.covers(one.oldest))
        return wanted

    def settle(self, prepared: Prepared, state: PartitionState, found: Found, now: int) -> Settled:
        """Run dedupe, sessionize, identify and rows, in the order of the log; changes `state` but for its position."""
        state.found.update(found.ids)
        for span in found.sessions:
            state.sessions.load(span.visitor, Session(span.session_id, span.start, span.end, span.overridden))
        for visitor, (first, last) in found.spans.items():
            state.sessions.note_loaded(visitor, first, last)
        rows, to_adopt = BlockRows(), len(state.adopted)
        for run in _put_new(prepared.runs, state):
            if run.events:
                rows.events.append(event_rows(run, _sessionize(run, state, rows), state.partition))
        dead = _drop_second_copies(prepared.rejections, state, found)
        rows.dead_letters.extend(dead_letter(rejection, state.partition, now) for rejection in dead)
        state.journals.update(prepared.journals)
        stored = sum(len(run.own) for run in rows.events) + to_adopt - len(state.adopted)
        return Settled(rows, prepared.accounts(stored, len(dead)))


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


def _visitor(run: EnrichedRun, event: CollectedEvent) -> str:
    return record_key(run.record["companyId"], run.record["anonymousId"] or event["userId"])


def _put_new(runs: Sequence[EnrichedRun], state: PartitionState) -> Sequence[EnrichedRun]:
    """The runs with those of their events that are not stored yet; the state has them now.

    All of a block at once, which costs a fifth of one run after the other.
    """
    if state.adopted or state.found:  # seldom
        runs = [
            _only(run, [_is_fresh((run.record["companyId"], event["eventId"]), state) for event in run.events])
            for run in runs
        ]
    keys = list(chain.from_iterable(map(_event_keys, runs)))
    known = state.ids.add_all(keys, max((run.record["receivedAt"] for run in runs), default=0))
    return _without(runs, known) if known else runs


def _without(runs: Sequence[EnrichedRun], places: Sequence[int]) -> Sequence[EnrichedRun]:
    """The runs without the events at these places, counted through all of them."""
    left, first, passed = list[EnrichedRun](), 0, 0
    for run in runs:
        end = first + len(run.events)
        following = bisect_left(places, end, passed)
        if following > passed:
            events, times = run.events.copy(), run.times.copy()
            for place in reversed(places[passed:following]):
                del events[place - first], times[place - first]
            left.append(EnrichedRun(run.record, run.offset, run.context, events, times))
        else:
            left.append(run)
        first, passed = end, following
    return left


def _event_keys(run: EnrichedRun) -> list[str]:
    company = event_key(run.record["companyId"], "")
    return [company + event["eventId"] for event in run.events]


def _only(run: EnrichedRun, which: Sequence[bool]) -> EnrichedRun:
    if all(which):
        return run
    return msgspec.structs.replace(
        run, events=list(compress(run.events, which)), times=list(compress(run.times, which))
    )


def _is_fresh(event: tuple[str, str], state: PartitionState) -> bool:
    """Whether neither a lookup found the event, nor an earlier log's unfinished block stored it, which counts once."""
    if event in state.adopted:
        state.adopted.remove(event)
        return False
    return event not in state.found


def _drop_second_copies(rejections: Sequence[Rejection], state: PartitionState, found: Found) -> list[Rejection]:
    """The rejections without those whose event is stored, or is dead already; comes after the block's events.

    An event that can be stored never asks for the letters: a letter may be sent again with a fix.
    """
    stored = state.ids.held([event_key(*_key(rejection)) for rejection in rejections])
    first: list[Rejection] = []
    for rejection in rejections:
        if rejection.event_id:
            key = _key(rejection)
            is_dead = key in state.letters or key in found.dead
            if is_dead or key in state.found or event_key(*key) in stored:
                continue
            state.letters.add(key, rejection.received_at)
        first.append(rejection)
    return first


def _key(rejection: Rejection) -> tuple[str, str]:
    return rejection.company_id, rejection.event_id


def _sessionize(run: EnrichedRun, state: PartitionState, rows: BlockRows) -> Sequence[str]:
    """The id of each event's session."""
    ids: list[str] = []
    visitor, looks = _visitor(run, run.events[0]), _LOOKS if run.record["anonymousId"] else 0
    for place, (event, at) in enumerate(zip(run.events, run.times, strict=True)):
        if place < looks:
            rest = run.times[place:]
            if session_id := state.sessions.extend(visitor, min(rest), max(rest)):
                return ids + [session_id] * len(rest)
            if session_id := state.sessions.extend(visitor, at, at):
                ids.append(session_id)
                continue
        ids.append(_put_in_session(run, event, at, state, rows))
    return ids


def _put_in_session(run: EnrichedRun, event: CollectedEvent, at: int, state: PartitionState, rows: BlockRows) -> str:
    visitor = _visitor(run, event)
    placement = state.sessions.put(visitor, at)
    if placement.overrides:
        starts = {session.session_id: session.start for session in state.sessions.of(visitor)}
        visitor_id = run.record["anonymousId"] or event["userId"]
        rows.overrides.extend(
            (run.record["companyId"], visitor_id, later, starts[target], target)
            for later, target in placement.overrides
        )
    return placement.session_id
