"""ClickHouse's HTTP interface over an Engine, one thread for each connection.

Source of the protocol: ClickHouse's documentation of the HTTP interface, and what clickhouse-connect, clickhouse-go
and the JDBC driver send.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog

from headrace.embedded.clickhouse_body import Body, parse_form, read_query
from headrace.embedded.clickhouse_engine import Answer, Engine
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_requests import (
    compress_answer,
    content_type,
    encode_result,
    open_data,
    run_request,
)
from headrace.embedded.clickhouse_sessions import Sessions
from headrace.embedded.clickhouse_tokens import has_lasting_token_without_rows
from headrace.endpoints import DROP_REQUESTS

log = structlog.get_logger()

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = {"database": "X-ClickHouse-Database", "default_format": "X-ClickHouse-Format"}
_FAILED = 500
_OK = b"Ok.\n"
_TEXT = {"Content-Type": "text/plain; charset=UTF-8"}


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1; at most `slots` queries run at once, the others wait. /ping waits for nothing."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, engine: Engine, sessions: Sessions, slots: int) -> None:
        """Raises OSError where the port is taken."""
        self.engine = engine
        self.sessions = sessions
        self.slots = threading.BoundedSemaphore(slots)
        self.connections: set[Any] = set()  # sockets, but for those whose requests are dropped
        self._idle = threading.Condition()
        self._running = 0
        self._closing = False
        super().__init__(("127.0.0.1", port), Handler)

    def enter(self) -> bool:
        """Count a query in; False where the server is about to stop."""
        with self._idle:
            self._running += not self._closing
            return not self._closing

    def leave(self) -> None:
        """Count a query out, its answer sent."""
        with self._idle:
            self._running -= 1
            self._idle.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Know of a connection before the next one is accepted."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def drop_requests(self, asking: socket.socket) -> None:
        """Begin nothing that came over another connection so far; what runs goes on, and is answered.

        Whoever knows that a client is dead may so be sure that nothing of it is still to come.
        """
        for each in self.connections.copy() - {asking}:
            self.connections.discard(each)
            with contextlib.suppress(OSError):  # it has ended by itself
                each.shutdown(socket.SHUT_RD)

    def end_after(self, error: QueryError) -> None:
        """End the process, unanswered, where a failure left a token without rows: only a start can drop that."""
        if error.status == _FAILED and has_lasting_token_without_rows(Path(self.engine.path)):
            log.critical("an insert left its token without its rows; the server ends", error=error.text)
            os._exit(1)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Tell the log of what no client was told; a client that has gone away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            log.error("a connection failed", client=str(client_address), error=repr(sys.exc_info()[1]))

    def finish_queries(self) -> None:
        """Let no further query in and return when the running ones are answered."""
        with self._idle:
            self._closing = True
            self._idle.wait_for(lambda: not self._running)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client; requests follow each other on it."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "headrace"
    sys_version = ""
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    wbufsize = -1

    def do_GET(self) -> None:
        """A query in the URL that may not change anything, or a sign of life."""
        self._handle()

    def do_HEAD(self) -> None:
        """As GET, without the body of the answer."""
        self._handle()

    def do_POST(self) -> None:
        """A query in the URL, the body, or both."""
        self._handle()

    def handle_expect_100(self) -> bool:
        """Let a client that asks first send its body."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: at thousands a second a line for each costs more than the request."""

    def _handle(self) -> None:
        body = Body(self.rfile, self.headers)
        try:
            self._route(body)
            self.close_connection |= not body.drain()
        except ConnectionError:
            self.close_connection = True

    def _route(self, body: Body) -> None:
        url = urlsplit(self.path)
        if not self._is_local():
            self._send(403, _TEXT, b"This server answers to local programs only, not to web pages of other sites.\n")
        elif url.path in ("/ping", "/replicas_status"):
            self._send(200, _TEXT, _OK)
        elif url.path == DROP_REQUESTS and self.command == "POST":
            self.server.drop_requests(self.connection)
            self._send(200, _TEXT, _OK)
        elif url.path != "/":
            self._send(404, _TEXT, f"There is no handle {url.path}\n".encode())
        elif not self.server.enter():
            self.close_connection = True
            self._send(503, _TEXT, b"The server is stopping.\n")
        else:
            try:
                self._answer(dict(parse_qsl(url.query, keep_blank_values=True)), body)
            finally:
                self.server.leave()

    def _is_local(self) -> bool:
        """False for what a page of another site makes a browser send: this server has no password to stop it."""
        host = urlsplit(f"//{self.headers.get('Host', 'localhost')}").hostname
        origin = self.headers.get("Origin")
        return host in _LOCAL and (origin is None or urlsplit(origin).hostname in _LOCAL)

    def _answer(self, parameters: dict[str, str], body: Body) -> None:
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        try:
            if self.headers.get_content_type() == "multipart/form-data":
                parameters |= parse_form(self.headers["Content-Type"], read_query(iter(body)))
            if self.command != "POST" and not parameters.get("query"):
                self._send(200, _TEXT, _OK)
                return
            for name in ("database", "default_format"):
                parameters.setdefault(name, self.headers.get(_HEADERS[name], ""))
            data = self._unless_dropped(open_data(parameters, body, self.headers.get("Content-Encoding", "")))
            with self.server.slots:
                answer, output_format = run_request(self.server.sessions, parameters, data, self.command != "POST")
            self._send_answer(parameters, query_id, answer, output_format)
        except QueryError as error:
            self.server.end_after(error)
            self._send_error(parameters, query_id, error)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("a request failed", query_id=query_id)
            self._send_error(parameters, query_id, QueryError(1002, f"The embedded server failed: {error!r}"))

    def _unless_dropped(self, data: Iterator[bytes]) -> Iterator[bytes]:
        """The whole of a request: it runs when this has ended."""
        yield from data
        if self.connection not in self.server.connections:
            raise ConnectionError("The request was dropped before it ran.")

    def _send_answer(self, parameters: Mapping[str, str], query_id: str, answer: Answer, output_format: str) -> None:
        headers = self._headers(query_id) | {"Content-Type": content_type(output_format)}
        headers["X-ClickHouse-Summary"] = json.dumps(answer.summary, separators=(",", ":"))
        if output_format:
            headers["X-ClickHouse-Format"] = output_format
        self._send_encoded(200, parameters, headers, encode_result(parameters, answer.body, output_format))

    def _send_error(self, parameters: Mapping[str, str], query_id: str, error: QueryError) -> None:
        headers = self._headers(query_id) | _TEXT | {"X-ClickHouse-Exception-Code": str(error.code)}
        version = "" if "(version " in error.text else f" (version {self.server.engine.version})"
        self._send_encoded(error.status, parameters, headers, f"{error.text}{version}\n".encode())

    def _send_encoded(self, status: int, parameters: Mapping[str, str], headers: dict[str, str], body: bytes) -> None:
        packed, encoding = compress_answer(parameters, self.headers.get("Accept-Encoding", ""), body)
        if encoding:
            headers["Content-Encoding"] = encoding
        self._send(status, headers, packed)

    def _headers(self, query_id: str) -> dict[str, str]:
        return {
            "X-ClickHouse-Server-Display-Name": self.server.engine.host,
            "X-ClickHouse-Query-Id": "".join(char for char in query_id if char.isascii() and char.isprintable()),
            "X-ClickHouse-Timezone": self.server.engine.timezone,
        }

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
