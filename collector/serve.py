"""Serves the collector over HTTP until a signal, and stops without losing a request."""

import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn

from collector.app import Collector
from collector.settings import CollectorSettings

log = structlog.get_logger(__name__)
_BACKLOG = 2_048


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
    server = _Server(_config(app, settings), app)
    log.info("collector_listens", address="{}:{}".format(*listener.getsockname()[:2]))
    await server.serve(sockets=[listener])
    log.info("collector_stopped")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _config(app: Collector, settings: CollectorSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
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
