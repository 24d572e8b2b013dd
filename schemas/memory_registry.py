"""A schema registry in memory, the twin of a real one: the part of the REST API that registering and reading uses.

As a Confluent registry at its default, a new version of a subject has to read what the newest one wrote (BACKWARD).
"""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote

import fastavro

from schemas.compatibility import find_mismatches
from schemas.registry import MEDIA_TYPE

Answer = tuple[int, Any]  # HTTP status, JSON body


class MemoryRegistry:
    """Subjects, versions and ids; an id names the same schema in every subject. A user, where given, is required."""

    def __init__(self, username: str = "", password: str = "") -> None:
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._authorization = f"Basic {token}" if username else ""
        self._texts: list[str] = []  # of id 1, 2, …
        self._subjects: dict[str, list[int]] = {}
        self._lock = Lock()

    def answer(self, method: str, path: str, authorization: str = "", body: bytes = b"") -> Answer:
        """What the registry answers to one request."""
        if self._authorization not in ("", authorization):
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if method == "GET" and path == "/subjects":
            return 200, sorted(self._subjects)
        if method == "GET" and (found := re.fullmatch(r"/schemas/ids/(\d+)", path)):
            return self._schema_of(int(found[1]))
        if method == "POST" and (found := re.fullmatch(r"/subjects/([^/]+)/versions", path)):
            with self._lock:
                return self._register(unquote(found[1]), body)
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema_of(self, number: int) -> Answer:
        if not 1 <= number <= len(self._texts):
            return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
        return 200, {"schema": self._texts[number - 1]}

    def _register(self, subject: str, body: bytes) -> Answer:
        try:
            schema = json.loads(json.loads(body)["schema"])
            fastavro.parse_schema(schema)
        except Exception as error:  # whatever is wrong with the text, the answer is the same
            return 422, {"error_code": 42201, "message": f"Invalid schema: {error}"}
        text = json.dumps(schema)
        ids = self._subjects.get(subject, [])
        if text in self._texts and self._texts.index(text) + 1 in ids:
            return 200, {"id": self._texts.index(text) + 1}
        mismatches = find_mismatches(json.loads(self._texts[ids[-1] - 1]), schema) if ids else []
        if mismatches:
            message = f"Schema being registered is incompatible with an earlier schema: {mismatches[0]}"
            return 409, {"error_code": 409, "message": message}
        if text not in self._texts:
            self._texts.append(text)
        number = self._texts.index(text) + 1
        self._subjects[subject] = [*ids, number]
        return 200, {"id": number}


@contextmanager
def serve_registry(registry: MemoryRegistry, port: int = 0) -> Iterator[str]:
    """Serve the registry over HTTP on 127.0.0.1 while the block runs; yields its URL. Port 0: a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = registry.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the program that serves it has its own log."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
