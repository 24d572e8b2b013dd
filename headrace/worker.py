"""`headrace worker`: wires the Faust app, the pipeline and the warehouse, and runs them until SIGTERM."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from headrace.faults import FragileClickHouse, FragileLetters, Reach, make_commits_fragile, reach_in
from headrace.log_fit import LogFit
from headrace.registered import registered_codec, warn_without_kernel
from schemas.blocks import StoreUnavailable
from schemas.codec import Codec
from schemas.fit import LedgerRefused
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from schemas.tenants import TenantsFile
from schemas.topics import COLLECTED, DEAD_LETTER
from streams.app import build_app
from streams.core.dead_share import NEVER, DeadLimit
from streams.core.identity import Alias, merge_aliases
from streams.core.redact import DEFAULT_POLICY, RedactionPolicy
from streams.core.validate import Rules
from streams.geo import open_country_lookup
from streams.letters import KafkaLetterLog, LetterLog, LetterPipeline
from streams.partitions import Assignment, Partitions
from streams.pipeline import Pipeline
from streams.settings import WorkerSettings
from streams.turns import Turns
from streams.user_agents import parse_user_agent
from streams.writer import BlockPipeline, Memory, PartitionWriter, Parts
from warehouse.aliases import ClickHouseAliases
from warehouse.blocks import ClickHouseBlockStore
from warehouse.client import ClickHouse
from warehouse.extents import ClickHouseExtents
from warehouse.logs import ClickHouseLogs
from warehouse.orphans import ClickHouseOrphans
from warehouse.states import ClickHouseStateStore

log = structlog.get_logger(__name__)
_MINUTE_MS: Final = 60_000
#: A block costs ClickHouse as much for three letters as for a thousand, and no number waits for them.
_LETTER_SECONDS: Final = 5.0


def worker_name(settings: WorkerSettings) -> str:
    """The name that claims and the ledger show."""
    return settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"


def redaction_policy(settings: WorkerSettings) -> RedactionPolicy:
    """The default policy and what the settings add."""
    return RedactionPolicy(
        keys=DEFAULT_POLICY.keys | _listed(settings.redact_keys),
        patterns=tuple(re.compile(line) for line in settings.redact_patterns.splitlines() if line),
        url_parameters=DEFAULT_POLICY.url_parameters | _listed(settings.redact_url_parameters),
    )


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in text.split(",") if part.strip())


def _pipelines(codec: Codec, settings: WorkerSettings) -> dict[str, BlockPipeline]:
    events = Pipeline(
        codec=codec,
        policy=redaction_policy(settings),
        parse_user_agent=parse_user_agent,
        country_of_ip=open_country_lookup(str(settings.geo_file) if settings.geo_file else None),
        gap=int(settings.session_gap_minutes * _MINUTE_MS),
    )
    return {COLLECTED: events, DEAD_LETTER: LetterPipeline(codec)}


def _writer_factory(
    settings: WorkerSettings,
    clickhouse: ClickHouseSettings,
    pipelines: Mapping[str, BlockPipeline],
    letters: LetterLog,
    common: CommonSettings,
    reach: Reach | None,
) -> Callable[[Assignment], PartitionWriter]:
    tenants = TenantsFile(common.tenants_file)
    memory = Memory(
        ids=int(settings.recent_ids_minutes * _MINUTE_MS),
        id_limit=settings.recent_ids_limit,
        sessions=int(settings.recent_sessions_minutes * _MINUTE_MS),
        gap=int(settings.session_gap_minutes * _MINUTE_MS),
    )

    limit = DeadLimit(settings.dead_share_limit, settings.dead_share_events)
    turns = Turns(settings.blocks_at_once)

    def connect() -> ClickHouse:
        return ClickHouse(clickhouse) if reach is None else FragileClickHouse(clickhouse, reach)

    def new_writer(assignment: Assignment) -> PartitionWriter:
        client, partition = connect(), assignment.partition
        parts = Parts(
            blocks=ClickHouseBlockStore(client),
            states=ClickHouseStateStore(connect(), settings.recent_ids_limit),  # asked while a block is written
            orphans=ClickHouseOrphans(client),
            letters=letters,
            pipeline=pipelines[partition.topic],
            rules=lambda: Rules(tenants.current().by_company, clickhouse.retention_months),
            clock=lambda: time.time_ns() // 1_000_000,
            worker=worker_name(settings),
            memory=memory,
            linger=settings.block_linger_seconds,
            max_bytes=settings.block_max_bytes,
            dead_limit=limit if partition.topic == COLLECTED else NEVER,
            interval=0.0 if partition.topic == COLLECTED else _LETTER_SECONDS,
            turns=turns,
        )
        return PartitionWriter(partition, assignment.partitions, parts, remembers=partition.topic == COLLECTED)

    return new_writer


async def run_worker(
    common: CommonSettings, broker: BrokerSettings, clickhouse: ClickHouseSettings, settings: WorkerSettings
) -> int:
    """Run until SIGTERM or SIGINT (0), or until something ends the worker (1)."""
    stopping, failures = asyncio.Event(), list[BaseException]()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    def fail(error: BaseException) -> None:
        failures.append(error)
        stopping.set()

    warn_without_kernel()
    codec = registered_codec(broker)
    letters: LetterLog = KafkaLetterLog(codec, broker.client_options())
    reach = reach_in(settings.faults_dir) if settings.faults_dir else None
    letters = letters if reach is None else FragileLetters(letters, reach)
    client = ClickHouse(clickhouse)
    fit = LogFit(broker, ClickHouseLogs(client), ClickHouseExtents(client))
    new_writer = _writer_factory(settings, clickhouse, _pipelines(codec, settings), letters, common, reach)
    partitions = Partitions(new_writer, fail)
    aliases = ClickHouseAliases(ClickHouse(clickhouse), _merge)
    app = build_app(broker, settings, partitions, fit.assign, lambda: _update_aliases(aliases))
    if reach is not None:
        make_commits_fragile(app, reach)
    await app.start()
    log.info("worker_started", worker=worker_name(settings), port=settings.worker_port)
    await _first(stopping.wait(), app.wait_until_stopped())
    if app.crash_reason is not None:
        failures.append(app.crash_reason)
    await partitions.close(list(partitions.owned), finish=not failures)
    await app.stop()
    await letters.close()
    for error in failures:
        if isinstance(error, LedgerRefused):
            log.error("worker_refuses", reason=str(error))
        else:
            log.error("worker_failed", error=repr(error), exc_info=error)
    log.info("worker_stopped", worker=worker_name(settings))
    return 1 if failures else 0


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when the first has ended; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _merge(pairs: list[tuple[str, str]]) -> Mapping[str, str]:
    return merge_aliases(Alias(previous, user) for previous, user in pairs)


async def _update_aliases(aliases: ClickHouseAliases) -> None:
    try:
        await asyncio.to_thread(aliases.update)
    except StoreUnavailable as error:
        log.warning("aliases_wait", error=str(error))
