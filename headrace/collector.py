"""`headrace collector`: wires the HTTP side, the journal and the log, and serves until SIGTERM."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from collector.app import Collector
from collector.journal import Journal
from collector.journal_sink import JournalSink
from collector.log_client import LogClient
from collector.serve import serve
from collector.settings import CollectorSettings
from headrace.registered import registered_codec, warn_without_kernel
from schemas import metrics
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings, HeadraceSettings
from schemas.tenants import TenantsFile
from schemas.topics import COLLECTED, DEAD_LETTER
from warehouse.client import ClickHouse
from warehouse.journals import StoredSequences


class JournalSettings(HeadraceSettings):
    """The collector's journal on local disk."""

    journal: Literal["when_away", "always"] = Field(
        "when_away",
        description="when_away: only while the log is away (the spool); always: for a log that may forget, "
        "kept until ClickHouse has the events",
    )
    journal_dir: Path = Field(Path("data/journal"), description="folder of the journal, on a disk that survives")
    journal_max_bytes: int = Field(
        1 << 30, ge=1 << 20, description="bytes of the journal at the most; full: the collector answers 503"
    )
    log_ack_seconds: float = Field(5.0, gt=0, description="the log is away when it has not acknowledged after this")


async def run_collector(
    common: CommonSettings,
    broker: BrokerSettings,
    clickhouse: ClickHouseSettings,
    settings: CollectorSettings,
    journal_settings: JournalSettings,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises what the journal's folder and the registry raise."""
    warn_without_kernel()
    codec = registered_codec(broker)
    tenants = TenantsFile(common.tenants_file)
    journal = Journal.open(
        journal_settings.journal_dir, (COLLECTED, DEAD_LETTER), max_bytes=journal_settings.journal_max_bytes
    )
    always = journal_settings.journal == "always"  # then what goes to the log has been gathered
    log_client = LogClient(
        broker.client_options(),
        ack_seconds=journal_settings.log_ack_seconds,
        linger_seconds=0.0 if always else 0.005,
    )
    stored = _stored(clickhouse, journal, log_client) if always else None
    sink = JournalSink(journal, log_client, codec, stored)
    if stored:  # a spool has some of the events only
        metrics.COLLECTOR_JOURNAL_EVENTS.set_function(lambda: journal.accepted_events)
    await sink.start()
    return await serve(Collector(tenants, sink), settings)


def _stored(
    clickhouse: ClickHouseSettings, journal: Journal, log_client: LogClient
) -> Callable[[], Awaitable[Mapping[tuple[str, int], int]]]:
    sequences = StoredSequences(ClickHouse(clickhouse), journal.id)

    async def read() -> Mapping[tuple[str, int], int]:
        partitions = {topic: log_client.partitions(topic) for topic in journal.topics}
        return await asyncio.to_thread(sequences.read, partitions)

    return read
