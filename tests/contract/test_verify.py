"""Every check of `headrace verify` on a warehouse that was filled as workers fill it, and with each thing broken."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from headrace.commands import verify
from headrace.commands.verify import recomputation
from schemas.blocks import Partition
from schemas.records import CollectedRecord
from schemas.settings import BrokerSettings
from streams.core.sessions import Sessions
from tests.clickhouse import RETENTION_MONTHS
from tests.filling import GAP, MINUTE, NOW, PIPELINE, Filler, record_of, sent
from tests.ports import free_port
from warehouse.client import ClickHouse
from warehouse.orphans import ClickHouseOrphans
from warehouse.verification.checks import CHECKS, run_checks
from warehouse.verification.findings import Findings
from warehouse.verification.scope import Retention, Scope

DAY = 24 * 60 * MINUTE
TODAY = date(2026, 9, 22)
SEARCH = {"eventCategory": "search", "eventAction": "search"}
CONTENT = {"eventCategory": "content", "properties": '{"contentType":"manual","contentId":"m-1","title":"Brakes"}'}
FEATURE = {"eventCategory": "feature", "eventAction": "use", "properties": '{"feature":"export"}'}
RESULT = '{"term":"oil","resultId":"r-1","rank":%d}'
#: Accounted for by `fill`: stored 24, duplicate 1, dead 2.
STORED, DUPLICATE, DEAD = 24, 1, 2


def identify(event_id: str, at: int, user: str) -> Any:
    return sent(event_id, at, type="identify", eventCategory="identity", eventAction="identify", userId=user)


def desk_records() -> list[CollectedRecord]:
    """A visitor with two sessions a month, a late event that bridges two, and a login."""
    start, before = NOW - 10 * DAY, NOW - 45 * DAY
    times = [start, start + 20 * MINUTE, start + 70 * MINUTE, before, before + 5 * MINUTE, before + 50 * MINUTE]
    events = [sent(f"desk-{at}", at, type="page", eventCategory="page", eventAction="view") for at in times]
    bridge = sent("desk-late", start + 45 * MINUTE)
    return [
        record_of("desk", events, app="web", path="/home"),
        record_of("desk", [bridge, identify("desk-login", start + 71 * MINUTE, "user-1")], app="web"),
    ]


def other_records() -> list[CollectedRecord]:
    """A second device, an alias, every rollup, a bot, a duplicate, a bad event, another tenant with the same ids."""
    at = NOW - 9 * DAY
    alias = sent("alias-1", at, type="alias", eventCategory="identity", eventAction="alias", userId="user-1")
    alias["previousId"] = "user-2"
    properties = ['{"term":"Oil ","results":3}', '{"term":"oil","results":0}']
    searches = [sent(f"search-{n}", at + n, **SEARCH, properties=text) for n, text in enumerate(properties)]
    clicks = [
        sent(f"click-{n}", at + n, eventCategory="search", eventAction="result_click", properties=RESULT % n)
        for n in (1, 2)
    ]
    views = [sent("view-1", at, **CONTENT, eventAction="view"), sent("view-2", at + 1, **CONTENT, eventAction="view")]
    return [
        record_of("phone", [sent("phone-1", at), identify("phone-login", at + 1, "user-1")], app="shop", country="DE"),
        record_of("tablet", [*searches, *clicks, *views], app="web"),
        record_of("tablet", [sent("use-1", at, **FEATURE), sent("use-2", at, **FEATURE), sent("use-1", at, **FEATURE)]),
        record_of("", [sent("server-1", at, userId="user-2"), alias]),
        record_of("crawler", [sent("bot-1", at)], userAgent="bot"),
        record_of("desk", [sent("desk-late", at), identify("login", at, "user-1")], company="other"),
        record_of("tablet", [sent("bad-1", at, **SEARCH, properties='{"term":"oil","results":"many"}')]),
        record_of("feedback", [sent("fb", at, **CONTENT | {"properties": HELPFUL}, eventAction="feedback")]),
    ]


HELPFUL = '{"contentType":"manual","contentId":"m-1","helpful":true}'


def fill(client: ClickHouse) -> Filler:
    filler = Filler(client)
    for record in desk_records():
        filler.put([record])
    filler.put(other_records())
    filler.put_values([("acme:poison", b"not avro")])
    return filler


@pytest.fixture
def filled(client: ClickHouse) -> ClickHouse:
    fill(client)
    reload_dictionaries(client)
    return client


def reload_dictionaries(client: ClickHouse) -> None:
    for name in ("session_targets", "visitor_users", "user_persons"):
        client.command(f"SYSTEM RELOAD DICTIONARY {name}")


def scope_of(client: ClickHouse, *, months: int = RETENTION_MONTHS, part_rows: int = 1_000_000) -> Scope:
    return Scope(client, Retention(months, TODAY), recomputation(GAP), part_rows)


def verified(scope: Scope) -> dict[str, Findings]:
    return {findings.check: findings for findings in run_checks(scope, lambda *_: None, pauses=())}


def differing(client: ClickHouse, **scope: int) -> set[str]:
    """The names of the checks that find a difference."""
    reload_dictionaries(client)
    return {name for name, findings in verified(scope_of(client, **scope)).items() if not findings.agrees}


def copy_event(client: ClickHouse, event_id: str, **replaced: str) -> None:
    """One row of `events` once more, with other values, as a bug would write it."""
    columns = "* REPLACE (" + ", ".join(f"{value} AS {name}" for name, value in replaced.items()) + ")"
    selected = columns if replaced else "*"
    client.command(f"INSERT INTO events SELECT {selected} FROM events WHERE events.eventId = '{event_id}'")


def test_a_warehouse_filled_by_the_pipeline_agrees_in_everything(filled: ClickHouse) -> None:
    every = verified(scope_of(filled))
    assert list(every) == list(CHECKS)
    assert [difference for findings in every.values() for difference in findings.first] == []
    assert all(findings.compared for findings in every.values())


def test_comparing_in_many_small_parts_finds_the_same(filled: ClickHouse) -> None:
    assert differing(filled, part_rows=10) == set()
    filled.command("DELETE FROM daily_parts WHERE app = 'shop'")
    filled.command("DELETE FROM event_ids WHERE eventId = 'phone-1'")
    assert differing(filled, part_rows=10) == {"aggregated_events", "event ids"}


def test_an_empty_warehouse_agrees(client: ClickHouse) -> None:
    assert differing(client) == set()


def test_no_check_writes(filled: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = scope_of(filled)
    monkeypatch.delattr(ClickHouse, "command")
    monkeypatch.delattr(ClickHouse, "insert")
    assert all(findings.agrees for findings in verified(scope).values())


def test_a_row_that_stands_twice_is_found_by_id_and_by_block(filled: ClickHouse) -> None:
    copy_event(filled, "phone-1")
    every = verified(scope_of(filled))
    twice, block = every["event ids"].first[0], every["ledger"].first[0]
    assert (twice.key, twice.field, twice.expected, twice.found) == (
        "companyId=acme eventId=phone-1",
        "rows in events",
        "1",
        "2",
    )
    assert block.field == "rows of events (stored)"
    assert int(block.found) == int(block.expected) + 1


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        ("DELETE FROM blocks WHERE start = 1", {"ledger"}),
        ("INSERT INTO blocks SELECT * FROM blocks WHERE start = 1", {"ledger"}),
        ("INSERT INTO blocks SELECT * REPLACE (start + 1 AS start) FROM blocks WHERE start = 2", {"ledger"}),
        ("ALTER TABLE blocks UPDATE duplicate = 7 WHERE start = 1 SETTINGS mutations_sync = 2", {"ledger"}),
        ("DELETE FROM dead_letters WHERE eventId = 'bad-1'", {"ledger"}),
        ("DELETE FROM event_ids WHERE eventId = 'phone-1'", {"event ids"}),
        ("INSERT INTO event_ids SELECT * REPLACE ('x' AS eventId) FROM event_ids LIMIT 1", {"event ids"}),
        (
            "ALTER TABLE event_ids UPDATE visitorId = 'x' WHERE eventId = 'phone-1' SETTINGS mutations_sync = 2",
            {"event ids"},
        ),
        ("DELETE FROM daily_parts WHERE app = 'shop'", {"aggregated_events"}),
        ("INSERT INTO daily_parts SELECT * FROM daily_parts WHERE app = 'shop'", {"aggregated_events"}),
        ("INSERT INTO daily_parts SELECT * REPLACE ('JP' AS country) FROM daily_parts LIMIT 1", {"aggregated_events"}),
        ("DELETE FROM hourly_parts WHERE app = 'shop'", {"hourly_events"}),
        ("DELETE FROM search_parts WHERE 1", {"searches"}),
        ("ALTER TABLE search_parts UPDATE rankSum = 9 WHERE 1 SETTINGS mutations_sync = 2", {"searches"}),
        ("ALTER TABLE content_parts UPDATE helpful = 9 WHERE 1 SETTINGS mutations_sync = 2", {"content"}),
        ("DELETE FROM feature_parts WHERE 1", {"features"}),
        ("ALTER TABLE session_parts UPDATE app = 'x' WHERE 1 SETTINGS mutations_sync = 2", {"session_parts"}),
        ("DELETE FROM session_parts WHERE visitorId = 'phone'", {"session_parts", "sessions"}),
        ("DELETE FROM session_overrides WHERE 1", {"sessions"}),
        ("DELETE FROM identity_links WHERE anonymousId = 'desk' AND companyId = 'acme'", {"persons"}),
        ("DELETE FROM alias_persons WHERE 1", {"persons"}),
    ],
)
def test_what_is_broken_is_found_by_its_check_and_by_no_other(
    filled: ClickHouse, broken: str, checks: set[str]
) -> None:
    filled.command(broken)
    assert differing(filled) == checks


def test_a_link_that_is_missing_shows_in_the_unique_users_of_the_day_two_devices_shared(filled: ClickHouse) -> None:
    at = NOW - 9 * DAY
    Filler(filled, number=1).put(
        [record_of(name, [sent(f"same-{name}", at)], app="both") for name in ("desk", "phone")]
    )
    assert differing(filled) == set()
    filled.command("DELETE FROM identity_links WHERE anonymousId = 'desk' AND companyId = 'acme'")
    assert differing(filled) == {"persons", "aggregated_events", "hourly_events"}
    found = verified(scope_of(filled))["aggregated_events"].first[0]
    assert (found.field, found.expected, found.found) == ("uniqueUsers", "1", "2")
    assert "app=both" in found.key


def test_another_visitor_of_the_same_number_is_found(filled: ClickHouse) -> None:
    filled.command("DELETE FROM daily_parts WHERE app = 'shop' AND eventCategory = 'ui'")
    filled.command(
        "INSERT INTO daily_parts SELECT toDate(timestamp), companyId, eventCategory, eventAction, app, deviceType, "
        "country, count(), groupUniqArrayState(toUInt64(7)) FROM events WHERE eventId = 'phone-1' GROUP BY ALL"
    )
    findings = verified(scope_of(filled))["aggregated_events"]
    assert [difference.field for difference in findings.first] == ["checksum of visitors"]


def test_an_event_stored_under_a_session_of_its_own_is_found(client: ClickHouse) -> None:
    filler = fill(client)
    filler.state.sessions = Sessions(GAP, 0)  # a worker that forgot
    filler.put([record_of("phone", [sent("phone-2", NOW - 9 * DAY + MINUTE)])])
    assert differing(client) == {"sessions"}
    fields = [(found.expected, found.found) for found in verified(scope_of(client))["sessions"].first]
    assert fields == [
        ("2026-09-12T14:13:20.000Z to 2026-09-12T14:14:20.000Z, 3 events", "no such session"),
        ("no such session", "2026-09-12T14:13:20.000Z to 2026-09-12T14:13:20.001Z, 2 events"),
        ("no such session", "2026-09-12T14:14:20.000Z to 2026-09-12T14:14:20.000Z, 1 events"),
    ]


def test_an_event_that_says_of_identity_what_it_should_not_is_found(filled: ClickHouse) -> None:
    filled.command("ALTER TABLE events UPDATE identity = 'link' WHERE eventId = 'phone-1' SETTINGS mutations_sync = 2")
    found = verified(scope_of(filled))["persons"].first[0]
    assert (found.field, found.expected, found.found) == ("identity", "['']", "['link']")


def test_a_row_outside_of_every_block_is_found(filled: ClickHouse) -> None:
    copy_event(filled, "phone-1", eventId="'stray'", logOffset="logOffset + 1000")
    [found] = verified(scope_of(filled))["ledger"].first
    assert found.field == "rows of events outside of every block"


def test_the_rows_of_a_claimed_block_are_on_their_way(client: ClickHouse) -> None:
    fill(client).put([record_of("phone", [sent("crash-1", NOW)])], finish=False)
    ledger = verified(scope_of(client))["ledger"]
    assert ledger.agrees
    assert ["claimed and not finished" in note for note in ledger.notes] == [True]


def test_rows_adopted_from_a_lost_log_count_where_their_records_come_again(client: ClickHouse) -> None:
    lost = record_of("phone", [sent("again-1", NOW)]) | {"journal": "j", "sequence": 5}
    fill(client).put([lost], finish=False)
    later = Filler(client, log_id="later")
    later.state.adopted.update(ClickHouseOrphans(client).adopt(Partition("later", "events.collected", 0), {}))
    ledger = verified(scope_of(client))["ledger"]
    assert (ledger.agrees, ledger.notes) == (True, ["1 rows of events of a lost log are there and not counted yet"])
    later.put([lost])
    ledger = verified(scope_of(client))["ledger"]
    assert (ledger.agrees, ledger.notes) == (True, [])


def test_what_retention_removed_is_no_difference_and_what_else_is_gone_is_one(filled: ClickHouse) -> None:
    for table in ("events", "event_ids"):
        filled.command(f"DELETE FROM {table} WHERE timestamp < toDateTime('2026-08-08 14:00:00', 'UTC')")
    reload_dictionaries(filled)
    every = verified(scope_of(filled, months=1))
    assert [difference for findings in every.values() for difference in findings.first] == []
    assert every["ledger"].notes == ["3 rows of events were removed by retention"]
    assert "ledger" in differing(filled)
    for table in ("events", "event_ids"):
        filled.command(f"DELETE FROM {table} WHERE eventId = 'phone-1'")
    assert differing(filled, months=1) >= {"ledger", "aggregated_events", "session_parts", "sessions"}


def test_a_difference_that_is_gone_when_the_check_runs_again_is_none(
    filled: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.command("DELETE FROM feature_parts WHERE 1")
    sums = (
        f"{text} AS {name}" for name, text in {"uses": "count()", "visitors": "groupUniqArrayState(visitor)"}.items()
    )
    repair = (
        "INSERT INTO feature_parts SELECT toDate(timestamp) AS date, companyId, app, "
        f"JSONExtractString(properties, 'feature') AS feature, {', '.join(sums)} FROM events "
        "WHERE eventCategory = 'feature' GROUP BY date, companyId, app, feature"
    )
    monkeypatch.setattr("time.sleep", lambda _: filled.command(repair))
    every = {findings.check: findings for findings in run_checks(scope_of(filled), lambda *_: None, pauses=(1.0,))}
    assert every["features"].agrees


# The command.

Run = Callable[..., Result]


@pytest.fixture
def run(warehouse_url: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`headrace verify` on the test's database."""
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_URL", warehouse_url)
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_DATABASE", database)
    monkeypatch.setenv("HEADRACE_RETENTION_MONTHS", str(RETENTION_MONTHS))
    monkeypatch.setenv("HEADRACE_TENANTS_FILE", "/nonexistent/tenants.yaml")
    for part in ("COLLECTOR", "WORKER"):
        monkeypatch.setenv(f"HEADRACE_{part}_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(verify, "run_checks", partial(run_checks, pauses=()))
    app = typer.Typer()
    verify.register(app)
    app.callback()(lambda: None)
    return lambda *options: CliRunner().invoke(app, ["verify", *options])


@contextmanager
def publishing(text: str) -> Iterator[str]:
    """A page of metrics."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def collector_page(accepted: int, journal: int, *, spooled: int = 0, started: float = 1.0) -> str:
    return (
        f'headrace_collector_accepted_total{{companyId="acme"}} {accepted}\n'
        f"headrace_collector_journal_events {journal}\n"
        f"headrace_collector_spool_records {spooled}\nprocess_start_time_seconds {started}\n"
    )


def lag_page(records: int) -> str:
    return (
        f'headrace_worker_lag_records{{topic="events.collected",partition="0"}} {records}\n'
        f'headrace_worker_lag_seconds{{topic="events.collected",partition="0"}} 2.5\n'
        'headrace_worker_lag_records{topic="events.dead_letter",partition="0"} 9\n'
    )


TOTAL = STORED + DUPLICATE + DEAD - 1  # the poison record was never accepted


@pytest.mark.usefixtures("filled")
def test_verify_exits_0_when_what_was_accepted_is_accounted_for(run: Run) -> None:
    answer = run("--accepted", str(TOTAL), "--json")
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    assert document["agrees"] is True
    assert document["differences"] == []
    figures = {name: document[name] for name in ("accepted", "stored", "duplicate", "dead", "inFlight")}
    assert figures == {"accepted": TOTAL, "stored": STORED, "duplicate": DUPLICATE, "dead": DEAD - 1, "inFlight": 0}
    assert [check["check"] for check in document["checks"]] == ["accepted", *CHECKS]


def test_verify_exits_1_and_shows_the_difference(filled: ClickHouse, run: Run) -> None:
    filled.command("DELETE FROM feature_parts WHERE 1")
    answer = run("--accepted", str(TOTAL))
    assert answer.exit_code == 1
    assert "features" in answer.stdout
    assert "feature=export" in " ".join(answer.stdout.split())


@pytest.mark.usefixtures("filled")
def test_more_accounted_for_than_accepted_is_doubled(run: Run) -> None:
    answer = run("--accepted", str(TOTAL - 1), "--wait", "0", "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["differences"][0]["field"] == "stored + duplicate + dead: doubled"


@pytest.mark.parametrize(
    ("lag", "spooled", "code", "told"),
    [
        (0, 0, 1, "stored + duplicate + dead: lost"),
        (4, 0, 0, "4 records on the log, the oldest 2.5 s old"),
        (0, 7, 0, "7 on the collector's disk"),
        (None, 0, 1, "stored + duplicate + dead: in flight or lost"),
    ],
)
@pytest.mark.usefixtures("filled")
def test_what_is_missing_is_in_flight_or_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch, lag: int | None, spooled: int, code: int, told: str
) -> None:
    page = collector_page(0, TOTAL + 3, spooled=spooled)
    with publishing(page) as collector, publishing(lag_page(lag or 0)) as worker:
        monkeypatch.setenv("HEADRACE_COLLECTOR_URL", collector)
        if lag is not None:
            monkeypatch.setenv("HEADRACE_WORKER_URL", worker)
        answer = run("--wait", "0", "--json")
    document = json.loads(answer.stdout)
    assert (answer.exit_code, document["inFlight"]) == (code, 3)
    assert told in json.dumps(document)


@pytest.mark.usefixtures("filled")
def test_a_collector_that_counts_from_its_own_start_is_not_believed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with publishing(collector_page(TOTAL, 0, started=NOW / 1000 + 60)) as collector:
        monkeypatch.setenv("HEADRACE_COLLECTOR_URL", collector)
        answer = run("--wait", "0")
    assert answer.exit_code == 1
    assert "the ledger reaches further back; give the number with --accepted" in answer.stderr
    assert run("--accepted", "unknown").exit_code == 0


@pytest.mark.usefixtures("filled")
def test_a_collector_that_counted_from_the_first_event_is_believed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with publishing(collector_page(TOTAL, 0)) as collector:
        monkeypatch.setenv("HEADRACE_COLLECTOR_URL", collector)
        assert run("--wait", "0").exit_code == 0


@pytest.fixture
def on_kafka(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Result]:
    """`headrace verify` of a stack on a log that keeps, where so many records wait, by the collector's page."""

    def verified(page: str, records: int) -> Result:
        async def count_waiting(*_: Any) -> int:
            return records

        monkeypatch.setattr("headrace.balance.count_waiting", count_waiting)
        with publishing(page) as collector, publishing(lag_page(0)) as worker:
            monkeypatch.setenv("HEADRACE_COLLECTOR_URL", collector)
            monkeypatch.setenv("HEADRACE_WORKER_URL", worker)
            return run("--wait", "0", "--json")

    monkeypatch.setattr(verify, "log_that_keeps", lambda *_: BrokerSettings())
    return verified


LATER = NOW / 1000 + 60


@pytest.mark.parametrize(
    ("page", "waiting", "code", "accepted", "told"),
    [
        (collector_page(7, 0, started=LATER), 0, 0, TOTAL, ""),  # the log's own count needs no collector's
        (collector_page(TOTAL - 1, 0), 0, 0, TOTAL, ""),  # an acknowledgement was lost, the record was not
        (collector_page(0, 0, spooled=2), 3, 0, TOTAL + 5, "5 records are on the log or the collector's disk"),
        (collector_page(TOTAL + 2, 0), 0, 1, TOTAL + 2, "stored + duplicate + dead: lost"),
    ],
)
@pytest.mark.usefixtures("filled")
def test_on_a_log_that_keeps_what_the_collector_counted_has_to_be_there(
    on_kafka: Callable[[str, int], Result], page: str, waiting: int, code: int, accepted: int, told: str
) -> None:
    answer = on_kafka(page, waiting)
    document = json.loads(answer.stdout)
    assert (answer.exit_code, document["accepted"]) == (code, accepted)
    assert told in json.dumps(document)


def test_a_record_that_died_whole_counts_with_all_its_events(
    client: ClickHouse, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_on(agent: str) -> Any:
        raise RuntimeError(agent)

    monkeypatch.setattr("tests.filling.PIPELINE", replace(PIPELINE, parse_user_agent=break_on))
    Filler(client).put([record_of("phone", [sent("a", NOW), sent("b", NOW)])])
    answer = run("--accepted", "2", "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["dead"] == 2


def test_a_server_that_is_away_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_URL", url := f"http://127.0.0.1:{free_port()}")
    answer = run()
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"ClickHouse at {url} does not answer")
    assert isinstance(answer.exception, SystemExit)


@pytest.mark.usefixtures("client")
def test_a_collector_that_is_away_is_one_sentence(run: Run) -> None:
    answer = run()
    assert answer.exit_code == 1
    assert answer.stderr.startswith("The collector at http://127.0.0.1:")
    assert answer.stderr.count("\n") == 1


def test_a_database_without_tables_is_one_sentence(run: Run) -> None:
    answer = run("--accepted", "unknown")
    assert answer.exit_code == 1
    assert "run `headrace migrate`" in answer.stderr


def test_a_number_that_is_none_is_wrong_usage(run: Run) -> None:
    assert run("--accepted", "many").exit_code == 2
