"""Sends events to a collector as a client should: in batches, a few at a time, again until told what became of
every event.

No event is given up silently: a batch that was not answered comes back with the sentence why.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
import orjson

from headrace.posting import NoAnswer, Reply

#: Statuses after which the same request may succeed. 501 and 505 say that it never will.
RETRIED: Final = frozenset((408, 425, 429, 500, 502, 503, 504, *range(506, 600)))
#: What the events of a request can cause, so that fewer of them may pass.
_OF_THE_BODY: Final = frozenset((400, 413, 422))
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 10.0

Post = Callable[[bytes], Awaitable[Reply]]


class Refusal(NamedTuple):
    """Why the collector did not take one event: its position in the batch, and the reason, field and sentence."""

    position: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch; `undelivered` is "" where every event was answered, else why not."""

    accepted: int
    refused: tuple[Refusal, ...] = ()
    undelivered: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try again: `seconds` without a 429, which says that the collector is there and when to come back.

    Between two tries: full jitter (a random part of a wait that doubles), and what Retry-After asks for.
    """

    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random

    def wait(self, attempt: int, retry_after: float) -> float:
        """Seconds to wait after a failed try, the first being attempt 0."""
        return retry_after + self.random() * min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt, 16))


class BatchSender:
    """Sends batches of events, each event as its JSON text; `context` is put under every event that has none of it."""

    def __init__(self, post: Post, context: dict[str, Any], patience: Patience) -> None:
        self._post, self._patience = post, patience
        self._head = b'{"context":' + orjson.dumps(context) + b',"batch":['

    async def send(self, events: Sequence[bytes]) -> Outcome:
        """The verdict of every event. Never raises because of what the network or the collector does."""
        if not events:
            return Outcome(0)
        reply = await self._post_until_answered(b"".join((self._head, b",".join(events), b"]}")))
        if isinstance(reply, str):
            return Outcome(0, undelivered=reply)
        if reply.status == 200:
            return read_verdicts(reply.body, len(events))
        if reply.status not in _OF_THE_BODY:
            return Outcome(0, undelivered=_sentence(reply))
        if len(events) == 1:
            answer = _error_of(reply)
            return Outcome(0, (Refusal(0, answer.error or str(reply.status), "", answer.message),))
        half = len(events) // 2
        return _joined(await self.send(events[:half]), await self.send(events[half:]), half)

    async def _post_until_answered(self, body: bytes) -> Reply | str:
        """The answer that stands, or why there is none."""
        deadline = self._patience.clock() + self._patience.seconds
        attempt = 0
        while True:
            reply, why, retry_after = await self._try(body)
            if reply is not None and reply.status not in RETRIED:
                return reply
            wait, now = self._patience.wait(attempt, retry_after), self._patience.clock()
            if reply is not None and reply.status == 429:
                deadline = now + self._patience.seconds
            if now + wait > deadline:
                return f"{why} It was tried {attempt + 1} times."
            await self._patience.sleep(wait)
            attempt += 1

    async def _try(self, body: bytes) -> tuple[Reply | None, str, float]:
        try:
            reply = await self._post(body)
        except NoAnswer as error:
            return None, str(error), 0.0
        return reply, _sentence(reply), reply.retry_after


class _Result(msgspec.Struct, gc=False):
    status: str
    reason: str = ""
    field: str = ""
    message: str = ""


class _Counts(msgspec.Struct, gc=False):
    accepted: int
    rejected: int


class _Verdicts(msgspec.Struct, gc=False):
    results: list[_Result]


class _Error(msgspec.Struct, gc=False):
    error: str = ""
    message: str = ""


_COUNTS: Final = msgspec.json.Decoder(_Counts)
_VERDICTS: Final = msgspec.json.Decoder(_Verdicts)
_ERROR: Final = msgspec.json.Decoder(_Error)


def read_verdicts(body: bytes, events: int) -> Outcome:
    """The outcome that a 200 tells of so many events; the single verdicts are only read where one is a refusal."""
    try:
        counts = _COUNTS.decode(body)
        results = _VERDICTS.decode(body).results if counts.rejected else []
    except msgspec.MsgspecError:
        return Outcome(0, undelivered="What answered does not answer as a collector does; check the URL.")
    refused = tuple(
        Refusal(position, result.reason, result.field, result.message)
        for position, result in enumerate(results)
        if result.status != "accepted"
    )
    if counts.accepted + counts.rejected != events or len(refused) != counts.rejected:
        return Outcome(0, undelivered="The collector's answer does not have a verdict for every event.")
    return Outcome(counts.accepted, refused)


def _joined(first: Outcome, second: Outcome, shift: int) -> Outcome:
    moved = (refusal._replace(position=refusal.position + shift) for refusal in second.refused)
    undelivered = first.undelivered or second.undelivered
    return Outcome(first.accepted + second.accepted, (*first.refused, *moved), undelivered)


def _sentence(reply: Reply) -> str:
    return f"The collector answered {reply.status}: {_error_of(reply).message or 'no message.'}"


def _error_of(reply: Reply) -> _Error:
    try:
        return _ERROR.decode(reply.body)
    except msgspec.MsgspecError:
        return _Error()


class Sendable(Protocol):
    """Something that consists of events to send."""

    @property
    def events(self) -> Sequence[bytes]: ...


_Batch = TypeVar("_Batch", bound=Sendable)


async def deliver(
    next_batch: Callable[[], Awaitable[_Batch | None]],
    send: Callable[[Sequence[bytes]], Coroutine[Any, Any, Outcome]],
    concurrency: int,
) -> AsyncGenerator[tuple[_Batch, Outcome]]:
    """Each batch with its outcome, in the order of the batches, `concurrency` of them on their way at a time.

    `next_batch` gives None at the end. Whoever stops early closes the iterator, which ends what is on its way.
    """
    underway: deque[tuple[_Batch, asyncio.Task[Outcome]]] = deque()
    ended = False
    try:
        while underway or not ended:
            while underway and (ended or underway[0][1].done() or len(underway) >= concurrency):
                sent, task = underway.popleft()
                yield sent, await task
            batch = None if ended else await next_batch()
            ended = batch is None
            if batch is not None:
                underway.append((batch, asyncio.create_task(send(batch.events))))
                await asyncio.sleep(0)  # the request begins before the next batch is read
    finally:
        tasks = [task for _, task in underway]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
