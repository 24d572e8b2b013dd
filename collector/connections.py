"""Bounds on what connections hold: how long a client may take for a request, how many connections there are, how many
bytes of bodies.

uvicorn bounds none of these: a connection that never completes a request stays for ever, and its `limit_concurrency`
refuses whoever comes last, which is every honest client while slow ones hold their places. Here whoever has kept the
collector waiting longest goes first. A request that has arrived whole is always answered.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from collector.limits import MAX_HEAD
from schemas import metrics

_SWEEP_SECONDS: Final = 0.5


class Waiting:
    """The connections of one server that wait for their client, longest first.

    Each has `seconds` for a whole request, from its opening or from the answer before; at most `connections` are open,
    and they hold at most `body_bytes` of bodies that are not answered yet.
    """

    def __init__(self, seconds: float, connections: int, body_bytes: int) -> None:
        self._seconds, self._most, self._body_bytes = seconds, connections, body_bytes
        self._deadlines: dict[LimitedProtocol, float] = {}
        self.open = 0
        self.held = 0

    def add(self, connection: "LimitedProtocol", now: float) -> None:
        """From now on the connection waits; one that does already keeps its place."""
        self._deadlines.setdefault(connection, now + self._seconds)

    def remove(self, connection: "LimitedProtocol") -> None:
        """It waits no more."""
        self._deadlines.pop(connection, None)

    def shed(self) -> None:
        """Close who waits longest while there are too many connections; then, of those with a body, too many bytes."""
        while self.open > self._most and self._deadlines:
            self._close(next(iter(self._deadlines)), "connections")
        while self.held > self._body_bytes and (slowest := next((each for each in self._deadlines if each.held), None)):
            self._close(slowest, "body_bytes")

    def expire(self, now: float) -> None:
        """Close whoever is over its time."""
        while self._deadlines and next(iter(self._deadlines.values())) <= now:
            self._close(next(iter(self._deadlines)), "seconds")

    def _close(self, connection: "LimitedProtocol", limit: str) -> None:
        metrics.COLLECTOR_CONNECTIONS_CLOSED.labels(limit).inc()
        self.remove(connection)
        connection.drop()

    async def sweep(self) -> None:
        """Close the late for as long as the server runs."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.expire(now())
            metrics.COLLECTOR_CONNECTIONS.set(self.open)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol that tells `waiting` when it waits for its client: for a request, or to take the answer."""

    def __init__(self, waiting: Waiting, **options: Any) -> None:
        super().__init__(**options)
        self._waiting = waiting
        self._is_open = False
        self._head_bytes = 0
        self._in_body = False
        self.held = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client has to send a request now."""
        super().connection_made(transport)
        self._is_open = True
        self._waiting.open += 1
        self._waiting.add(self, self.loop.time())
        self._waiting.shed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is held any more."""
        self._leave()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close at once, whatever is still to be written."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        self._waiting.open -= self._is_open
        self._is_open = False
        self._waiting.remove(self)
        self._let_go()

    def _let_go(self) -> None:
        self._waiting.held -= self.held
        self.held = 0

    def data_received(self, data: bytes) -> None:
        """A head is bounded too; the parser would take any."""
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is over {MAX_HEAD} bytes.")

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._begin_body()
        super().on_headers_complete()

    def _begin_body(self) -> None:
        self._in_body, self._head_bytes = True, 0

    def on_body(self, body: bytes) -> None:
        """A body of which nothing is needed any more is not kept."""
        if self._is_open and not self.cycle.response_complete:
            self.held += len(body)
            self._waiting.held += len(body)
            self._waiting.shed()
            if self.transport.is_closing():
                return  # it was this one
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: now the client waits."""
        self._in_body, self._head_bytes = False, 0
        super().on_message_complete()
        if not self.cycle.response_complete:  # else it was answered before its body had come
            self._waiting.remove(self)

    def on_response_complete(self) -> None:
        """The next request has its own time, and no timer beside that as uvicorn would set for each."""
        self._let_go()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        self._waiting.remove(self)
        if self._is_open and (self.cycle.response_complete or self.cycle.more_body):
            self._waiting.add(self, self.loop.time())

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._waiting.add(self, self.loop.time())

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self._waiting.remove(self)
