"""The Faust app: one consumer group, one agent a topic, and nothing but wiring."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import faust
import structlog
from faust.types import TP
from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.fit import LedgerRefused
from schemas.settings import BrokerSettings
from schemas.topics import COLLECTED, DEAD_LETTER
from streams.ledger_transport import LedgerConsumer, LedgerTransport
from streams.partitions import Assignment, Partitions
from streams.settings import WorkerSettings

log = structlog.get_logger(__name__)
_CHECK_SECONDS: Final = 15.0  # a log that was created anew while it was read is noticed after so long


def build_app(
    broker: BrokerSettings,
    settings: WorkerSettings,
    partitions: Partitions,
    assign: Callable[[Collection[TP]], Awaitable[Mapping[TP, Assignment]]],
    merge_aliases: Callable[[], Awaitable[None]],
) -> faust.App:
    """The app of one worker; it holds no state of its own."""
    servers = ";".join(f"kafka://{server.strip()}" for server in broker.broker.split(","))
    app = faust.App(
        settings.consumer_group,
        broker=servers,
        broker_credentials=_credentials(broker),
        broker_session_timeout=settings.group_session_seconds,
        broker_heartbeat_interval=min(settings.group_session_seconds / 5, 3),
        broker_request_timeout=max(40.0, settings.group_session_seconds + 10),
        broker_rebalance_timeout=30,
        broker_commit_interval=1.0,
        broker_commit_every=None,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.worker_name or None,
        broker_client_id=settings.worker_name or "headrace-worker",  # the name by which `up` finds a dead member
        stream_wait_empty=False,  # waiting for acknowledgements would outlast a rebalance that made them impossible
        stream_buffer_maxsize=16,  # polls, each of as much as the broker gives at once
        topic_allow_declare=False,
        topic_disable_leader=True,
        autodiscover=False,
        agent_supervisor="mode.supervisors.CrashingSupervisor",  # the default would go on after the event that failed
        store="memory://",
        web_enabled=True,
        web_bind=settings.worker_host,
        web_port=settings.worker_port,
        web_host=settings.worker_host,
    )
    app.transport = LedgerTransport(app.conf.broker_consumer, app)
    app.transport.Consumer = type("Consumer", (LedgerConsumer,), {"has_room": staticmethod(partitions.has_room)})
    _add_agents(app, partitions)
    opened = asyncio.Event()  # a worker that never was a member of its group has nothing to rebalance, and is not ready
    _add_pages(app, opened)

    @app.on_rebalance_complete.connect
    async def open_partitions(app: faust.App, **_: Any) -> None:
        assignment = app.consumer.assignment()
        try:
            app.consumer.starts = await partitions.open(await assign(assignment))
            opened.set()
        except LedgerRefused as error:
            app.consumer.starts = dict.fromkeys(assignment, 0)  # what comes meets no writer, and is not acknowledged
            partitions.refuse(error)

    @app.on_partitions_revoked.connect
    async def close_partitions(_app: Any, revoked: set[TP], **_: Any) -> None:
        await partitions.close(revoked, finish=False)

    @app.timer(1.0)
    async def merge_aliases_of_users() -> None:
        await merge_aliases()

    @app.timer(_CHECK_SECONDS)
    async def check_log() -> None:
        owned = {tp: writer.partition for tp, writer in partitions.owned.items()}
        try:
            for tp, assignment in (await assign(owned)).items():
                if assignment.partition != owned[tp]:
                    raise LedgerRefused(f"{assignment.partition} was {owned[tp]} before: begin again with the new log.")
        except LedgerRefused as error:
            partitions.refuse(error)

    @app.timer(1.0)
    async def measure_lag() -> None:
        partitions.measure_lag(app.consumer.highwater, time.time())

    return app


def _add_agents(app: faust.App, partitions: Partitions) -> None:
    for name in (COLLECTED, DEAD_LETTER):
        topic = app.topic(name, key_serializer="raw", value_serializer="raw")

        async def write(stream: Any) -> None:
            async for event in stream.noack().events():
                partitions.put(event)

        app.agent(topic, name=f"write {name}")(write)


def _add_pages(app: faust.App, opened: asyncio.Event) -> None:
    @app.page("/healthz")
    async def healthz(_web: View, _request: Request) -> Response:
        return _web.text("ok\n")

    @app.page("/readyz")
    async def readyz(_web: View, _request: Request) -> Response:
        ready = opened.is_set() and not app.rebalancing
        return _web.text("ready\n" if ready else "rebalancing\n", status=200 if ready else 503)

    @app.page("/metrics")
    async def metrics_page(_web: View, _request: Request) -> Response:
        text = await asyncio.to_thread(generate_latest)
        return _web.bytes(text, content_type=CONTENT_TYPE_LATEST.split(";")[0])


def _credentials(broker: BrokerSettings) -> Any:
    """Faust's form of the broker's security settings."""
    if broker.broker_security == "PLAINTEXT":
        return None
    context = broker.ssl_context() if "SSL" in broker.broker_security.replace("SASL_PLAINTEXT", "") else None
    if "SASL" not in broker.broker_security:
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=broker.broker_username,
        password=broker.broker_password.get_secret_value(),
        mechanism=broker.broker_sasl_mechanism,
        ssl_context=context,
    )
