"""Serves the collector over HTTP until a signal, and stops without losing a request."""

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from collector.app import Collector
from collector.connections import Waiting
from collector.event_protocol import EventProtocol, Gathering
from collector.settings import CollectorSettings

log = structlog.get_logger(__name__)
_BACKLOG = 2_048
_OTHER_FILES: Final = 128  # the journal's, the log's, the listener


class _Server(uvicorn.Server):
    """uvicorn's server that tells the application when it is told to end.

    uvicorn raises the signal again once it has stopped, which would end the process with that signal's status.
    """

    def __init__(self, config: uvicorn.Config, app: Collector) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._app.stop()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def serve(app: Collector, settings: CollectorSettings) -> int:
    """Serve until SIGINT or SIGTERM; the exit code: 0 after a graceful stop, 1 where the port cannot be had.

    A graceful stop accepts no more connections and finishes the requests in flight, within `collector_stop_seconds`.
    The sink is closed either way. Run it with `uvloop.run`, in the main thread.
    """
    try:
        listener = _listen(settings.collector_host, settings.collector_port)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # create_server repeats the address
        where = f"{settings.collector_host}:{settings.collector_port}"
        print(f"The collector cannot listen on {where}: {why}; free the port or choose another.", file=sys.stderr)
        await app.close()
        return 1
    most = min(settings.collector_connections, max(_raise_file_limit() - _OTHER_FILES, 1))
    waiting = Waiting(settings.collector_request_seconds, most, settings.collector_body_bytes)
    server = _Server(_config(app, settings, waiting), app)
    log.info("collector_listens", address="{}:{}".format(*listener.getsockname()[:2]), connections=most)
    sweeping = asyncio.create_task(waiting.sweep())
    await server.serve(sockets=[listener])
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping
    log.info("collector_stopped")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _raise_file_limit() -> int:
    """As many files as the process may ask for; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _config(app: Collector, settings: CollectorSettings, waiting: Waiting) -> uvicorn.Config:
    protocol: Any = partial(EventProtocol, waiting, Gathering(app))
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        forwarded_allow_ips=settings.collector_trusted_proxies,
        timeout_graceful_shutdown=settings.collector_stop_seconds,
    )
