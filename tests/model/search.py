"""Every order of steps of two workers, breadth first, so that the first broken promise has the shortest way to it."""

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.blocks import StoreUnavailable
from tests.model.machine import Outcome, Refused, Rest, open_writer, write_block
from tests.model.protocol import Fault, Protocol
from tests.model.store import Insert, ModelWarehouse, Send, answer, content, copied, insert_steps, must_wait

IDLE = -1


@dataclass(frozen=True, slots=True)
class Middle:
    """A worker in the middle of something: since which rest (IDLE: opening), up to which record, answers so far."""

    rest: int
    upto: int
    log: int
    answers: tuple[int, ...]


class State(NamedTuple):
    """What the world is in; numbers name what is interned. `workers` are alike, so they are kept sorted."""

    warehouse: int
    workers: tuple[int, ...]  # IDLE, or the number of a Rest or Middle
    log: int
    letters: int
    committed: tuple[int, ...]  # by log
    crashes: int
    faults: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found: the number of states, and the shortest way to a broken promise, if there is one."""

    states: int
    broken: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.broken:
            return f"{self.states} states, no counterexample"
        steps = "\n".join(f"{number:3} {step}" for number, step in enumerate(self.trace, start=1))
        return f"{self.states} states until: {self.broken}\n{steps}"


class Numbers:
    """Names things by numbers: equal things by the same one."""

    def __init__(self) -> None:
        self._number_of: dict[Hashable, int] = {}
        self.things: list[Any] = []

    def of(self, key: Hashable, thing: Any) -> int:
        number = self._number_of.setdefault(key, len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number


class Search:
    """One search; `limit` bounds the states."""

    def __init__(self, protocol: Protocol, limit: int = 1_000_000) -> None:
        self._protocol = protocol
        self._limit = limit
        self._warehouses, self._workers = Numbers(), Numbers()
        self._answers, self._letters = Numbers(), Numbers()
        self._outcomes: dict[int, Outcome] = {}
        self._applied: dict[Hashable, tuple[int, int]] = {}
        self._sound: set[tuple[int, int, tuple[int, ...]]] = set()
        self._answers.of(repr(None), None)

    def run(self) -> Found:
        """Look at every state that can be reached."""
        protocol = self._protocol
        empty = ModelWarehouse(views=protocol.views)
        logs = len(protocol.logs)
        first = State(
            self._warehouse(empty),
            (IDLE,) * protocol.workers,
            0,
            self._letters.of(frozenset(), frozenset()),
            (0,) * logs,
            protocol.crashes,
            protocol.faults,
        )
        came_from: dict[State, tuple[State, int, str] | None] = {first: None}
        waiting = deque([first])
        backwards: dict[State, list[State]] = {}
        while waiting:
            state = waiting.popleft()
            if broken := self._broken(state):
                return Found(len(came_from), broken, self._trace(came_from, state))
            for worker, label, following in self._steps(state):
                backwards.setdefault(following, []).append(state)
                if following not in came_from:
                    came_from[following] = (state, worker, label)
                    waiting.append(following)
            assert len(came_from) <= self._limit, f"more than {self._limit} states"
        return self._find_stuck(came_from, backwards)

    def _find_stuck(
        self, came_from: dict[State, tuple[State, int, str] | None], backwards: dict[State, list[State]]
    ) -> Found:
        """A state from which no step leads to an end is as bad as a wrong end."""
        ending = [state for state in came_from if self._is_end(state)]
        live = set(ending)
        while ending:
            for before in backwards.get(ending.pop(), ()):
                if before not in live:
                    live.add(before)
                    ending.append(before)
        for state in came_from:
            if state not in live:
                return Found(len(came_from), "the partition is stuck for good", self._trace(came_from, state))
        return Found(len(came_from))

    def _steps(self, state: State) -> Iterator[tuple[int, str, State]]:
        """Each step that is possible: the worker's index (-1: the world's), what happens, what follows."""
        yield from self._world_steps(state)
        for index in range(len(state.workers)):
            if index and state.workers[index] == state.workers[index - 1]:
                continue  # the same as its neighbour
            for label, worker, changed in self._worker_steps(state, index):
                workers = [*state.workers]
                workers[index] = worker
                yield index, label, changed._replace(workers=tuple(sorted(workers)))

    def _world_steps(self, state: State) -> Iterator[tuple[int, str, State]]:
        """A log is lost, and its workers are killed before there is another one; what they sent may arrive later."""
        warehouse = self._warehouses.things[state.warehouse]
        if warehouse.flying:
            landed = copied(warehouse)
            landed.flying = ()
            for step in insert_steps(landed, warehouse.flying[0]):
                step()
            yield -1, f"arrives: {warehouse.flying[0]}", state._replace(warehouse=self._warehouse(landed))
        if state.log + 1 == len(self._protocol.logs):
            return
        lost = state._replace(log=state.log + 1)
        if not self._protocol.kills_workers_of_a_lost_log:
            yield -1, "the log is lost; its journal sends again on a new one", lost
            return
        lost = lost._replace(workers=(IDLE,) * len(state.workers))
        yield -1, "the log is lost and its workers killed; its journal sends again on a new one", lost
        for insert in sorted({insert for number in state.workers for insert in self._inserting(number)}, key=str):
            sent = copied(warehouse)
            sent.flying = (insert,)
            label = f"the log is lost and its workers killed; still on its way: {insert}"
            yield -1, label, lost._replace(warehouse=self._warehouse(sent))

    def _inserting(self, number: int) -> Iterator[Insert]:
        worker = None if number == IDLE else self._workers.things[number]
        if isinstance(worker, Middle) and isinstance(request := self._outcome(number, worker).request, Insert):
            yield request

    def _warehouse(self, warehouse: ModelWarehouse) -> int:
        return self._warehouses.of(content(warehouse), warehouse)

    def _worker_steps(self, state: State, index: int) -> Iterator[tuple[str, int, State]]:
        number = state.workers[index]
        if number == IDLE:
            label = f"opens the partition of the {self._log_id(state.log)} log"
            yield label, *self._begun(Middle(IDLE, 0, state.log, ()), state)
            return
        worker = self._workers.things[number]
        if isinstance(worker, Rest):
            yield from self._rest_steps(state, number, worker)
            return
        if state.crashes:
            yield "dies", IDLE, state._replace(crashes=state.crashes - 1)
        yield from self._middle_steps(state, number, worker)

    def _rest_steps(self, state: State, number: int, rest: Rest) -> Iterator[tuple[str, int, State]]:
        yield "gives the partition up", IDLE, state
        log = self._protocol.log_of(rest.partition)
        if log != state.log:
            return
        records = len(self._protocol.logs[log].records)
        for upto in sorted({rest.following + 1, records}):
            if rest.following < upto <= records:
                label = f"has the records up to {upto}"
                yield label, *self._begun(Middle(number, upto, log, ()), state)
        if rest.pending:
            yield "writes what is pending", *self._begun(Middle(number, rest.following, log, ()), state)

    def _middle_steps(self, state: State, number: int, middle: Middle) -> Iterator[tuple[str, int, State]]:
        request = self._outcome(number, middle).request
        if isinstance(request, Send):
            letters = self._letters.things[state.letters] | set(request.keys)
            sent = state._replace(letters=self._letters.of(letters, letters))
            yield str(request), *self._answered(middle, 0, sent)
            return
        if must_wait(self._warehouses.things[state.warehouse], request):
            return
        warehouse, reply = self._apply(state.warehouse, request, None)
        yield str(request), *self._answered(middle, reply, state._replace(warehouse=warehouse))
        if state.faults and isinstance(request, Insert):
            for fault in self._protocol.faults_of(request):
                warehouse, reply = self._apply(state.warehouse, request, fault)
                faulty = state._replace(warehouse=warehouse, faults=state.faults - 1)
                yield f"{request}: {fault}", *self._answered(middle, reply, faulty)

    def _answered(self, middle: Middle, reply: int, state: State) -> tuple[int, State]:
        return self._begun(Middle(middle.rest, middle.upto, middle.log, (*middle.answers, reply)), state)

    def _begun(self, middle: Middle, state: State) -> tuple[int, State]:
        """The worker at its next question, or at rest; what it acknowledged on the way there is committed."""
        number = self._workers.of(middle, middle)
        outcome = self._outcome(number, middle)
        if outcome.acknowledged:
            state = state._replace(committed=_raised(state.committed, middle.log, outcome.acknowledged))
        return (number if outcome.rest is None else self._workers.of(outcome.rest, outcome.rest)), state

    def _outcome(self, number: int, middle: Middle) -> Outcome:
        if number not in self._outcomes:
            answers = tuple(self._answers.things[answer] for answer in middle.answers)
            protocol, log = self._protocol, self._protocol.logs[middle.log]
            if middle.rest == IDLE:
                outcome = open_writer(protocol.new_writer, log.partition, answers)
            else:
                rest = self._workers.things[middle.rest]
                outcome = write_block(protocol.new_writer, rest, log.records, middle.upto, answers)
            self._outcomes[number] = outcome
        return self._outcomes[number]

    def _apply(self, number: int, request: Any, fault: Fault | None) -> tuple[int, int]:
        key = (number, request, fault)
        if key not in self._applied:
            warehouse = copied(self._warehouses.things[number])
            reply: Any = None
            if not isinstance(request, Insert):
                reply = answer(warehouse, request)
            elif fault:
                self._protocol.insert_with_fault(warehouse, request, fault)
                reply = StoreUnavailable(str(fault))
            else:
                for step in insert_steps(warehouse, request):
                    step()
            self._applied[key] = (self._warehouse(warehouse), self._answers.of(repr(reply), reply))
        return self._applied[key]

    def _is_end(self, state: State) -> bool:
        """No worker is in the middle of a block, and one has stored the whole log."""
        if self._warehouses.things[state.warehouse].flying:
            return False
        ended = False
        for number in state.workers:
            worker = None if number == IDLE else self._workers.things[number]
            if isinstance(worker, Middle):
                return False
            if isinstance(worker, Rest):
                log = self._protocol.log_of(worker.partition)
                records = len(self._protocol.logs[log].records)
                ended |= log == len(self._protocol.logs) - 1 and worker.is_done and worker.following >= records
        return ended

    def _broken(self, state: State) -> str:
        for worker in (self._workers.things[number] for number in state.workers if number != IDLE):
            if isinstance(worker, Middle):
                request = self._outcome(self._workers.of(worker, worker), worker).request
                if isinstance(request, Refused):
                    return request.text
        warehouse = self._warehouses.things[state.warehouse]
        seen = (state.warehouse, state.letters, state.committed)
        if seen not in self._sound:
            if broken := self._protocol.broken_always(warehouse, self._letters.things[state.letters], state.committed):
                return broken
            self._sound.add(seen)
        return self._protocol.broken_at_the_end(warehouse) if self._is_end(state) else ""

    def _log_id(self, log: int) -> str:
        return self._protocol.logs[log].partition.log_id

    def _trace(self, came_from: dict[State, tuple[State, int, str] | None], state: State) -> tuple[str, ...]:
        """The steps from the first state, with workers named: they change places, since states keep them sorted."""
        steps: list[tuple[State, int, str, State]] = []
        while (step := came_from[state]) is not None:
            steps.append((step[0], step[1], step[2], state))
            state = step[0]
        names, lines = [*"AB"], []
        for before, index, label, after in reversed(steps):
            lines.append(f"{names[index]}: {label}" if index >= 0 else label)
            if index >= 0:
                kept = [entry for place, entry in enumerate(zip(before.workers, names, strict=False)) if place != index]
                (moved,) = _difference(after.workers, [number for number, _ in kept])
                names = [name for _, name in sorted([*kept, (moved, names[index])], key=lambda entry: entry[0])]
        return tuple(lines)


def _difference(after: tuple[int, ...], kept: list[int]) -> list[int]:
    rest = [*after]
    for number in kept:
        rest.remove(number)
    return rest


def _raised(committed: tuple[int, ...], log: int, acknowledged: tuple[int, ...]) -> tuple[int, ...]:
    highest = max((offset + 1 for offset in acknowledged), default=0)
    return tuple(max(end, highest) if number == log else end for number, end in enumerate(committed))
