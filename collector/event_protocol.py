"""Event requests without ASGI: a scope, a cycle, messages and a task are saved for each ordinary one.

Ordinary is a POST to an event route with a known write key, a small body of known length, and nothing else of HTTP that
asks for care. Every other request takes uvicorn's way to the same application.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from collector.answers import Answer, Headers
from collector.app import Collector
from collector.connections import LimitedProtocol, Waiting
from collector.request import EVENT_ROUTES, Request

_ROUTES: Final = {path.encode(): path for path in EVENT_ROUTES}
_FORWARDED: Final = b"x-forwarded-for"

_log = structlog.get_logger(__name__)


class _NoEvent:
    """Nobody waits for the body's parts: a request is begun when it is whole."""

    def set(self) -> None: ...


_NO_EVENT: Final[Any] = _NoEvent()


class _Exchange(RequestResponseCycle):
    """A request and its answer, with what uvicorn's protocol asks of its own cycle."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body: Any = b""
        self.more_body = self.keep_alive = True
        self.response_complete = self.disconnected = False
        self.message_event = _NO_EVENT


class Gathering:
    """Requests that became whole in one turn of the event loop: one task answers them all."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._whole: list[tuple[EventProtocol, _Exchange]] = []

    def add(self, protocol: "EventProtocol", exchange: _Exchange) -> None:
        """Answer this one with those of the same turn."""
        if not self._whole:
            task = protocol.loop.create_task(self._answer())  # it begins in the next turn
            protocol.tasks.add(task)  # the server's, which waits for them when it stops
            task.add_done_callback(protocol.tasks.discard)
        self._whole.append((protocol, exchange))

    async def _answer(self) -> None:
        whole, self._whole = self._whole, []
        answers: Sequence[tuple[Answer, Headers] | Exception]
        try:
            answers = await self.collector.respond_all([exchange.request for _, exchange in whole])
        except Exception as error:
            answers = [error] * len(whole)
        for (protocol, exchange), answer in zip(whole, answers, strict=True):
            protocol.answer(exchange, answer)


class EventProtocol(LimitedProtocol):
    """A LimitedProtocol that hands ordinary event requests to the collector itself."""

    def __init__(self, waiting: Waiting, gathering: Gathering, **options: Any) -> None:
        super().__init__(waiting, **options)
        self._gathering, self._collector = gathering, gathering.collector

    def on_message_begin(self) -> None:
        """Without the scope, which only uvicorn's way needs."""
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Take the request, or leave it to uvicorn."""
        request = self._ordinary()
        if request is None:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers  # in place: the scope has them
            super().on_headers_complete()
        else:
            self._begin_body()
            self.cycle = _Exchange(request)

    def _ordinary(self) -> Request | None:
        if self.cycle is not None and not self.cycle.response_complete:
            return None  # it came before the answer to the one before it
        parser, headers = self.parser, dict(self.headers)
        path, _, query = self.url.partition(b"?")
        length = headers.get(b"content-length", b"")
        if (
            path not in _ROUTES
            or parser.get_method() != b"POST"
            or not length.isdigit()
            or int(length[:20]) > HIGH_WATER_LIMIT
            or b"transfer-encoding" in headers
            or self.expect_100_continue
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            return None
        request = Request("POST", _ROUTES[path], query, headers, self._client(headers), b"", self._collector.tenants())
        return request if self._collector.awaits_body(request) else None

    def _client(self, headers: dict[bytes, bytes]) -> str:
        """The client's address, as a trusted proxy says it: by uvicorn's own rules."""
        peer = self.client[0] if self.client else ""
        if _FORWARDED not in headers or peer not in self.app.trusted_hosts:
            return peer
        said = b", ".join(value for name, value in self.headers if name == _FORWARDED).decode("latin-1")
        return self.app.trusted_hosts.get_trusted_client_address(said)[0] or peer

    def on_message_complete(self) -> None:
        """The request is whole: begin with it."""
        super().on_message_complete()
        exchange = self.cycle
        if isinstance(exchange, _Exchange) and not exchange.response_complete:
            exchange.request.body = exchange.body
            self._gathering.add(self, exchange)

    def answer(self, exchange: _Exchange, answer: tuple[Answer, Headers] | Exception) -> None:
        """Write the answer, or a 500 that ends the connection, once the client takes it."""
        try:
            if isinstance(answer, Exception):
                raise answer
            data = self._encode(*answer, exchange.keep_alive)
        except Exception:
            _log.exception("request_failed")
            exchange.keep_alive = False
            data = self._encode(Answer(500, b"Internal Server Error", b"text/plain; charset=utf-8"), (), False)
        if self.flow.write_paused and not exchange.disconnected:
            task = self.loop.create_task(self._write_later(exchange, data))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            self._write(exchange, data)

    async def _write_later(self, exchange: _Exchange, data: bytes) -> None:
        await self.flow.drain()
        self._write(exchange, data)

    def _write(self, exchange: _Exchange, data: bytes) -> None:
        exchange.response_complete = True
        if not exchange.disconnected and not self.transport.is_closing():
            self.transport.write(data)
            if not exchange.keep_alive:
                self.transport.close()
        self.on_response_complete()

    def _encode(self, answer: Answer, cors: Headers, keep_alive: bool) -> bytes:
        return b"%b%b%bcontent-length: %d\r\ncontent-type: %b\r\n\r\n%b" % (
            STATUS_LINE[answer.status],
            _header_lines((*self.server_state.default_headers, *answer.headers, *cors)),
            b"" if keep_alive else b"connection: close\r\n",
            len(answer.body),
            answer.content_type,
            answer.body,
        )


@lru_cache(maxsize=64)  # the same for a second, which is how long the server keeps the Date
def _header_lines(headers: Headers) -> bytes:
    for name, value in headers:
        if HEADER_VALUE_RE.search(value):
            raise ValueError(f"The value of the header {name.decode()} has a control character.")
    return b"".join(b"%b: %b\r\n" % header for header in headers)
