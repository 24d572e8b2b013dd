"""ClickHouse's HTTP interface over an Engine, one thread for each connection.

Source of the protocol: ClickHouse's documentation of the HTTP interface, and what clickhouse-connect, clickhouse-go
and the JDBC driver send.
"""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from urllib.parse import parse_qsl, urlsplit

from headrace.embedded.clickhouse_body import Body, parse_form, read_query, read_until
from headrace.embedded.clickhouse_codecs import compress, from_blocks, inflate, pick_encoding, to_blocks
from headrace.embedded.clickhouse_engine import RESULT_LIMIT, Answer, Engine, apply_settings, run_insert, run_query
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_native import CUSTOM_SERIALIZATION_REVISION, upgrade_native
from headrace.embedded.clickhouse_query import (
    find_keyword,
    find_result_format,
    has_result,
    keeps_session_state,
    parse_query_parameters,
    parse_settings,
    split_insert,
)
from headrace.embedded.clickhouse_sessions import Sessions

_HEAD = 1 << 18  # An INSERT's data begins within ClickHouse's default max_query_size.
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_TRUE = frozenset({"1", "true"})
_OK = b"Ok.\n"
_TEXT = {"Content-Type": "text/plain; charset=UTF-8"}

_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
}


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
            with self.server.slots:
                answer, output_format = self._run(parameters, self._data(parameters, body))
            self._send_answer(parameters, query_id, answer, output_format)
        except QueryError as error:
            self._send_error(parameters, query_id, error)

    def _data(self, parameters: Mapping[str, str], body: Body) -> Iterator[bytes]:
        """The query text and what follows it, as the engine is to see them."""
        pieces = inflate(body, self.headers.get("Content-Encoding", "").lower())
        if parameters.get("decompress") in _TRUE:
            pieces = from_blocks(pieces)
        query = parameters.get("query", "")
        return chain((query.encode() + b"\n",), pieces) if query else pieces

    def _run(self, parameters: Mapping[str, str], data: Iterator[bytes]) -> tuple[Answer, str]:
        """The answer and its format; "" for a statement that answers with no rows."""
        head = read_until(data, _HEAD)
        keyword = find_keyword(head)
        insert = split_insert(head)
        settings = {"max_result_bytes": str(RESULT_LIMIT)} if insert is None else {}
        settings |= parse_settings(parameters, self.command != "POST")
        keep = keeps_session_state(keyword, head)
        with self.server.sessions.connection(parameters, settings, keep) as connection:
            values = parse_query_parameters(parameters)
            if insert is not None:
                apply_settings(connection, {f"param_{name}": value for name, value in values.items()})
                return run_insert(connection, insert, chain((head[insert.data_at :],), data)), ""
            sql = head + read_query(data)
            if not keyword and not sql.strip():
                raise QueryError(62, "Syntax error: the query is empty")
            default = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
            answer = run_query(connection, sql, default, values)
            return answer, find_result_format(sql, default) if has_result(keyword) or answer.body else ""

    def _send_answer(self, parameters: Mapping[str, str], query_id: str, answer: Answer, output_format: str) -> None:
        headers = self._headers(query_id) | {"Content-Type": _CONTENT_TYPES.get(output_format, "text/plain")}
        headers["X-ClickHouse-Summary"] = json.dumps(answer.summary, separators=(",", ":"))
        if output_format:
            headers["X-ClickHouse-Format"] = output_format
        body = answer.body
        if output_format == "Native" and _parse_revision(parameters) >= CUSTOM_SERIALIZATION_REVISION:
            body = upgrade_native(body)
        self._send(200, headers, self._compress(parameters, headers, body))

    def _compress(self, parameters: Mapping[str, str], headers: dict[str, str], body: bytes) -> bytes:
        """The body of an answer or an error as the client wants it compressed."""
        if parameters.get("compress") in _TRUE:
            return to_blocks(body)
        encoding = pick_encoding(self.headers.get("Accept-Encoding", ""))
        if not body or not encoding or parameters.get("enable_http_compression") not in _TRUE:
            return body
        headers["Content-Encoding"] = encoding
        return compress(body, encoding)

    def _send_error(self, parameters: Mapping[str, str], query_id: str, error: QueryError) -> None:
        headers = self._headers(query_id) | _TEXT | {"X-ClickHouse-Exception-Code": str(error.code)}
        version = "" if "(version " in error.text else f" (version {self.server.engine.version})"
        text = f"{error.text}{version}\n".encode()
        self._send(error.status, headers, self._compress(parameters, headers, text))

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


def _parse_revision(parameters: Mapping[str, str]) -> int:
    text = parameters.get("client_protocol_version", "0")
    return int(text) if text.isdigit() else 0
