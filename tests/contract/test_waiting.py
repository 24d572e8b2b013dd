"""What waits on the log and on the collector's disk, as `headrace status` and `headrace verify` count it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from collector.app import Collector
from collector.journal import Journal
from collector.journal_format import Frame
from collector.journal_sink import JournalSink
from collector.log_client import LogClient
from collector.settings import CollectorSettings
from headrace.collector import JournalSettings, run_collector
from headrace.log_identity import BrokerUnavailable, describe_topics
from headrace.waiting import Positions, count_waiting
from schemas import metrics
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from schemas.tenants import write_tenants
from schemas.topics import COLLECTED, DEAD_LETTER
from tests.contract.broker_fixture import Broker
from tests.ports import free_port


async def test_what_lies_between_the_ledgers_end_and_the_logs_is_waiting(broker: Broker) -> None:
    settings = BrokerSettings(broker=broker.options["bootstrap_servers"])
    assert await count_waiting(settings, Positions()) == 0
    client = LogClient(broker.options)
    positions = [await (await client.append(COLLECTED, b"visitor%d" % n, b"")) for n in range(50)]
    await client.close()
    log_id = (await describe_topics(settings))[COLLECTED].cluster
    ends = {(log_id, at.partition): at.offset + 1 for at in positions}
    assert await count_waiting(settings, Positions()) == 50
    assert await count_waiting(settings, Positions(ends)) == 0
    first, *_ = ends
    assert await count_waiting(settings, Positions(ends | {first: ends[first] - 3})) == 3
    of_another_log = {("another", partition): end for (_, partition), end in ends.items()}
    assert await count_waiting(settings, Positions(of_another_log, {log_id: "another"})) == 0
    assert await count_waiting(settings, Positions(of_another_log)) == 50


async def test_an_absent_log_is_one_sentence() -> None:
    with pytest.raises(BrokerUnavailable, match=r"The broker at 127\.0\.0\.1:\d+ does not answer"):
        await count_waiting(BrokerSettings(broker=f"127.0.0.1:{free_port()}"), Positions())


@pytest.mark.parametrize(("journal", "counted"), [("when_away", 0.0), ("always", 3.0)])
async def test_only_a_journal_of_all_events_counts_what_was_accepted(
    journal: Any, counted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Journal.open(tmp_path / "journal", (COLLECTED, DEAD_LETTER))
    await written.append([Frame(0, events=3, sequence=1, key=b"k", value=b"v")])
    await written.close()
    metrics.COLLECTOR_JOURNAL_EVENTS.set_function(lambda: 0)
    found: list[float | None] = []

    async def serve(app: Collector, _: Any) -> int:
        names = ("headrace_collector_journal_events", "headrace_collector_spool_records")
        found.extend(REGISTRY.get_sample_value(name) for name in names)
        await app.close()
        return 0

    monkeypatch.setattr("headrace.collector.serve", serve)
    monkeypatch.setattr("headrace.collector.JournalSink", partial(JournalSink, close_seconds=0.0))
    write_tenants(tenants := tmp_path / "tenants.yaml", "acme", "write-key", "read-token")
    away = BrokerSettings(broker=f"127.0.0.1:{free_port()}")
    settings = JournalSettings(journal=journal, journal_dir=tmp_path / "journal")
    await run_collector(CommonSettings(tenants_file=tenants), away, ClickHouseSettings(), CollectorSettings(), settings)
    assert found == [counted, 1.0]
