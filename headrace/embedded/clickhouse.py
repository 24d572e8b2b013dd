"""The embedded ClickHouse: chdb on one folder behind ClickHouse's HTTP interface, on 127.0.0.1.

    python -m headrace.embedded.clickhouse --path DIR --port N

Writes JSON lines to stderr and nothing to stdout. SIGTERM and SIGINT let the running queries finish and close the
engine: exit 0. A taken port and a folder that cannot be opened are told in one sentence: exit 1. Data that was
answered with 200 is in the operating system's hands and survives kill -9 of the process. When a failed insert leaves a
deduplication token without its rows, the server ends itself at once: the next start drops the token.
"""

import argparse
import fcntl
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import structlog

from headrace.embedded.clickhouse_dictionaries import DictionaryReloader
from headrace.embedded.clickhouse_engine import Engine
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_http import Server
from headrace.embedded.clickhouse_sessions import Sessions
from headrace.embedded.clickhouse_tokens import drop_tokens_without_rows

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the text is the sentence for the user."""


def lock_folder(path: Path) -> int:
    """Make the data folder this process's own until it ends, killed or not. Raises StartError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "headrace.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"The ClickHouse data folder {path} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StartError(f"The ClickHouse data folder {path} is in use by another process; stop that first.") from error
    return lock


def open_engine(path: Path) -> Engine:
    """chdb on the folder, every token of which has its rows. Raises StartError."""
    try:
        for tokens in drop_tokens_without_rows(path):
            log.warning("a token without rows was dropped", log=tokens)
        return Engine(str(path))
    except (RuntimeError, QueryError, OSError) as error:
        reason = str(error).splitlines()[0][:300]
        raise StartError(f"ClickHouse cannot open its data folder {path}: {reason}") from error


def open_server(port: int, engine: Engine, slots: int) -> Server:
    """The HTTP server, bound and not yet serving. Raises StartError."""
    try:
        return Server(port, engine, Sessions(engine, time.monotonic), slots)
    except OSError as error:
        raise StartError(f"ClickHouse cannot listen on 127.0.0.1:{port}: {error.strerror}.") from error


def reload_dictionaries(engine: Engine, stop: threading.Event) -> None:
    """Reload dictionaries as they come due until `stop` is set."""
    reloader = DictionaryReloader(engine.ask, random.uniform, time.monotonic)
    while not stop.wait(1.0):
        try:
            for name, text in reloader.reload_due().items():
                log.warning("a dictionary did not reload", dictionary=name, error=text)
        except QueryError as error:
            log.warning("the dictionaries cannot be listed", error=error.text)


def serve(server: Server, engine: Engine) -> None:
    """Serve until one of STOP_SIGNALS, which are blocked, then finish what runs and close the engine."""
    stop = threading.Event()
    reloading = threading.Thread(target=reload_dictionaries, args=(engine, stop), daemon=True)
    reloading.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("listening", port=server.server_address[1], version=engine.version)
    signal.sigwait(STOP_SIGNALS)
    stop.set()
    server.shutdown()
    server.server_close()
    server.finish_queries()
    reloading.join()
    server.sessions.close()
    engine.close()
    log.info("stopped")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="headrace.embedded.clickhouse", description="The embedded ClickHouse.")
    parser.add_argument("--path", type=Path, required=True, help="data folder, made where there is none")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--slots", type=int, default=16, help="queries that run at once; further ones wait")
    options = parser.parse_args(argv)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # The engine's threads inherit the mask: a Python handler is missed when one of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        path = options.path.resolve()
        lock_folder(path)
        engine = open_engine(path)
        serve(open_server(options.port, engine, options.slots), engine)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
