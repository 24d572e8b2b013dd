"""HTTP sessions (URL parameter session_id): what SET, USE and temporary tables leave for a client's next request.

Clients name a session with every request whether they need one or not, so a session keeps a connection only from
the first statement on that gives it state. The settings in a request's URL are undone after it.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headrace.embedded.clickhouse_engine import Engine, apply_settings, run_query
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_query import quote

DEFAULT_TIMEOUT = 60.0
"""Seconds a session lives after its last request."""


@dataclass(slots=True)
class Session:
    """One client's session; `connection` is None until a statement gives it state."""

    expires: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: Any = None


class Sessions:
    """The sessions of one engine, each for one request at a time. Thread-safe."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        """`clock` tells the seconds that session timeouts are counted in."""
        self._engine = engine
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._guard = threading.Lock()

    @contextmanager
    def connection(self, parameters: Mapping[str, str], settings: Mapping[str, str], keep: bool) -> Iterator[Any]:
        """The connection for one request, with `settings`; `keep` = its statement gives its session state.

        Raises QueryError where `session_check` asks for a session that is gone, or it is busy with another request.
        """
        name = parameters.get("session_id")
        if not name:
            with self._engine.connection(settings) as connection:
                yield connection
            return
        with self._locked(name, parameters) as session:
            if keep and session.connection is None:
                session.connection = self._engine.connect()
            lease = self._engine.connection(settings) if session.connection is None else _borrowed(session, settings)
            with lease as connection:
                yield connection

    @contextmanager
    def _locked(self, name: str, parameters: Mapping[str, str]) -> Iterator[Session]:
        self._drop_expired(self._clock())
        with self._guard:
            if name not in self._sessions and parameters.get("session_check") == "1":
                raise QueryError(372, f"Session {name} not found")
            session = self._sessions.setdefault(name, Session())
            if not session.lock.acquire(blocking=False):
                raise QueryError(373, f"Session {name} is locked by a concurrent client")
        try:
            yield session
        finally:
            session.expires = self._clock() + _parse_timeout(parameters.get("session_timeout", ""))
            session.lock.release()

    def _drop_expired(self, now: float) -> None:
        with self._guard:
            expired = [n for n, s in self._sessions.items() if s.expires < now and s.lock.acquire(blocking=False)]
            dropped = [self._sessions.pop(name) for name in expired]
        for session in dropped:
            if session.connection is not None:
                session.connection.close()

    def close(self) -> None:
        """Close the sessions that no request holds."""
        self._drop_expired(float("inf"))


def _parse_timeout(text: str) -> float:
    return min(float(text), 3600.0) if text.isdigit() else DEFAULT_TIMEOUT


@contextmanager
def _borrowed(session: Session, settings: Mapping[str, str]) -> Iterator[Any]:
    """A session's own connection, with `settings` for as long as one request has it."""
    before = _snapshot(session.connection, settings)
    try:
        apply_settings(session.connection, settings)
        yield session.connection
    finally:
        _restore(session, before)


def _snapshot(connection: Any, settings: Mapping[str, str]) -> dict[str, str | None]:
    """What those of `settings` that ClickHouse knows are on a connection now; None = the default."""
    listed = ", ".join(quote(name) for name in settings) or "''"
    sql = f"SELECT name, if(changed, value, NULL) FROM system.settings WHERE name IN ({listed})"
    rows = run_query(connection, sql.encode(), "JSONCompactEachRow").body.splitlines()
    snapshot: dict[str, str | None] = dict(json.loads(row) for row in rows)
    if "database" in snapshot:
        snapshot["database"] = run_query(connection, b"SELECT currentDatabase()", "TabSeparatedRaw").body.decode()[:-1]
    return snapshot


def _restore(session: Session, before: Mapping[str, str | None]) -> None:
    try:
        apply_settings(session.connection, {name: value for name, value in before.items() if value is not None})
        for name in (name for name, value in before.items() if value is None):
            run_query(session.connection, f"SET {name} = DEFAULT".encode(), "Null")
    except QueryError:
        # A session that cannot be put back (readonly = 1) loses its state rather than leak this request's.
        session.connection.close()
        session.connection = None
