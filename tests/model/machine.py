"""A worker as a function: from where it rests and the answers it got, to what it asks next.

The real writer runs each time from its last rest, on the answers recorded since; a question beyond them ends the run.
So a worker's state in the middle of a block is the list of those answers, and nothing of the writer has to be copied.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

import streams.ahead
import streams.writer
from schemas.blocks import Partition
from schemas.fit import LedgerRefused
from schemas.stages import LogRecord
from streams.core.state import PartitionState
from streams.writer import PartitionWriter, Pending


class Asked(BaseException):
    """The writer wants to know what was not recorded."""

    def __init__(self, request: Any) -> None:
        self.request = request


@dataclass(frozen=True, slots=True)
class Refused:
    """The writer will not go on: it found the warehouse wrong."""

    text: str


class Ask:
    """Gives the recorded answers in turn; one that is an exception is raised."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self._answers = iter(answers)

    def __call__(self, request: Any) -> Any:
        for answer in self._answers:
            if isinstance(answer, Exception):
                raise answer
            return copy.copy(answer)
        raise Asked(request)


@dataclass(frozen=True, slots=True)
class Rest:
    """A worker between two blocks: what its writer holds, and which record it reads next. Equal by `key`."""

    partition: Partition
    following: int
    state: PartitionState = field(compare=False)
    pending: tuple[int, ...] = ()
    wanted_end: int = 0
    key: str = ""

    @property
    def is_done(self) -> bool:
        """Whether everything that was read is stored."""
        return not self.pending


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: with a request, a refusal or at rest, and the offsets acknowledged meanwhile."""

    request: Any
    rest: Rest | None
    acknowledged: tuple[int, ...]


NewWriter = Callable[[Ask, Partition], PartitionWriter]


def open_writer(new_writer: NewWriter, partition: Partition, answers: tuple[Any, ...]) -> Outcome:
    """The new owner of a partition reads its state back."""
    writer = new_writer(Ask(answers), partition)
    return _run(writer, writer.open(), None, [])


def write_block(
    new_writer: NewWriter, rest: Rest, log: tuple[LogRecord, ...], upto: int, answers: tuple[Any, ...]
) -> Outcome:
    """The owner takes the records below `upto`, then writes what is pending."""
    writer = new_writer(Ask(answers), rest.partition)
    writer._state = copy.deepcopy(rest.state)
    writer._wanted_end = rest.wanted_end
    acknowledged: list[int] = []
    writer._pending = [_pending(log[offset], acknowledged) for offset in rest.pending]

    async def deliver() -> None:
        for record in log[rest.following : upto]:
            writer.put([_pending(record, acknowledged)])
        await writer.write_rest()

    return _run(writer, deliver(), upto, acknowledged)


def _pending(record: LogRecord, acknowledged: list[int]) -> Pending:
    return Pending(record, 0.0, partial(acknowledged.append, record.offset))


def _run(
    writer: PartitionWriter, steps: Coroutine[Any, Any, Any], following: int | None, acknowledged: list[int]
) -> Outcome:
    try:
        steps.send(None)
    except Asked as asked:
        return Outcome(asked.request, None, tuple(acknowledged))
    except LedgerRefused as refused:
        return Outcome(Refused(str(refused)), None, tuple(acknowledged))
    except StopIteration:
        state = writer._opened
        rest = Rest(
            writer.partition,
            state.position if following is None else following,
            state,
            tuple(pending.record.offset for pending in writer._pending),
            writer._wanted_end,
        )
        return Outcome(None, replace(rest, key=_key(rest)), tuple(acknowledged))
    raise AssertionError("the writer waits for something that the model does not know")


def _key(rest: Rest) -> str:
    state = rest.state
    sessions = sorted((visitor, repr(session)) for visitor, session in state.sessions)
    known = (sorted(state.ids), state.ids.since, sessions, sorted(state.found), sorted(state.adopted))
    return repr((state.position, sorted(state.journals.items()), known))


@contextmanager
def without_a_loop() -> Iterator[None]:
    """The writer's threads and waits replaced by plain calls; a wait for the warehouse ends at once, not closed."""

    async def to_thread(call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    async def gather(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
        return [await call for call in calls]

    async def is_set(event: asyncio.Event, seconds: float) -> bool:  # noqa: ARG001
        return event.is_set()

    with pytest.MonkeyPatch.context() as patch:
        calls = SimpleNamespace(Event=asyncio.Event, to_thread=to_thread, gather=gather)
        patch.setattr(streams.writer, "asyncio", calls)
        patch.setattr(
            streams.ahead, "asyncio", SimpleNamespace(Event=asyncio.Event, Lock=asyncio.Lock, to_thread=to_thread)
        )
        patch.setattr(streams.writer, "_is_set", is_set)
        patch.setattr(streams.writer, "log", structlog.wrap_logger(None, processors=[_drop]))
        yield


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent
