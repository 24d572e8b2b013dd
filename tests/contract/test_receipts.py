"""`headrace event`: the receipt of an event that is stored, dead, on its way or unknown."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from headrace.commands import event
from tests.contract.test_verify import DAY, fill, lag_page, publishing, reload_dictionaries
from tests.filling import MINUTE, NOW, record_of, sent
from tests.ports import free_port
from warehouse.client import ClickHouse

Run = Callable[..., Result]


@pytest.fixture
def run(warehouse_url: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`headrace event` on the test's database."""
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_URL", warehouse_url)
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_DATABASE", database)
    for part in ("COLLECTOR", "WORKER"):
        monkeypatch.setenv(f"HEADRACE_{part}_URL", f"http://127.0.0.1:{free_port()}")
    app = typer.Typer()
    event.register(app)
    app.callback()(lambda: None)
    return lambda *options: CliRunner().invoke(app, ["event", *options])


@pytest.fixture
def filled(client: ClickHouse) -> ClickHouse:
    fill(client)
    reload_dictionaries(client)
    return client


def document(answer: Result) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(answer.stdout)
    return shown


@pytest.mark.usefixtures("filled")
def test_a_stored_event_has_its_block_session_person_and_rollups(run: Run) -> None:
    answer = run("search-1", "--json")
    assert answer.exit_code == 0
    [stored] = document(answer)["stored"]
    assert stored["timestamp"] == "2026-09-12T14:13:20.001Z"
    assert stored["receivedAt"] == "2026-09-21T14:13:20.000Z"
    block = stored["block"]
    assert (block["logId"], block["partition"], block["start"], block["end"]) == ("log", 0, 2, 10)
    assert block["start"] <= block["offset"] < block["end"]
    assert block["worker"] == "filler"
    assert block["finishedAt"] >= stored["storedAt"]
    assert (stored["session"]["events"], stored["person"]) == (8, "tablet")
    assert stored["rollups"]["searches"] == {"date": "2026-09-12", "companyId": "acme", "app": "web", "term": "oil"}
    assert set(stored["rollups"]) == {"aggregated_events", "hourly_events", "searches"}


@pytest.mark.usefixtures("filled")
def test_an_event_of_a_bridged_session_shows_the_session_it_is_read_as(run: Run) -> None:
    first, last = NOW - 10 * DAY, NOW - 10 * DAY + 70 * MINUTE
    sessions = [document(run(f"desk-{at}", "--json"))["stored"][0]["session"] for at in (first, last)]
    assert sessions[0] == sessions[1]
    assert sessions[0]["events"] == 5


@pytest.mark.usefixtures("filled")
def test_the_person_is_the_user_that_the_visitor_was_linked_to(run: Run) -> None:
    [stored] = document(run("phone-1", "--json"))["stored"]
    assert stored["person"] == "user-1"


@pytest.mark.usefixtures("filled")
def test_a_bot_counts_in_no_rollup_and_the_receipt_says_why(run: Run) -> None:
    answer = run("bot-1")
    assert answer.exit_code == 0
    assert "bots are left out" in answer.stdout


@pytest.mark.usefixtures("filled")
def test_an_id_of_two_tenants_shows_both_or_the_one_asked_for(run: Run) -> None:
    companies = [stored["companyId"] for stored in document(run("desk-late", "--json"))["stored"]]
    assert companies == ["acme", "other"]
    only = document(run("desk-late", "--company", "other", "--json"))["stored"]
    assert [stored["companyId"] for stored in only] == ["other"]


@pytest.mark.usefixtures("filled")
def test_a_dead_event_says_why_and_how_to_send_it_again(run: Run) -> None:
    answer = run("bad-1", "--json")
    assert answer.exit_code == 3
    [letter] = document(answer)["deadLetters"]
    assert (letter["reason"], letter["field"]) == ("property_schema", "properties.results")
    assert letter["replay"] == f"headrace dead-letters replay {letter['key']}"
    assert "property_schema" in run("bad-1").stdout


def test_an_event_that_was_dead_and_is_stored_since_is_stored(client: ClickHouse, run: Run) -> None:
    fill(client).put([record_of("tablet", [sent("bad-1", NOW)])])
    answer = run("bad-1", "--json")
    assert (answer.exit_code, document(answer)["state"]) == (0, "stored")
    assert len(document(answer)["deadLetters"]) == 1


def test_an_event_of_a_block_under_way_is_stored_but_not_finished(client: ClickHouse, run: Run) -> None:
    fill(client).put([record_of("phone", [sent("crash-1", NOW)])], finish=False)
    answer = run("crash-1", "--json")
    assert (answer.exit_code, document(answer)["stored"][0]["finished"]) == (0, False)


@pytest.mark.usefixtures("filled")
def test_an_unknown_event_says_what_was_looked_at_and_how_far_the_workers_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publishing(lag_page(4)) as worker:
        monkeypatch.setenv("HEADRACE_WORKER_URL", worker)
        answer = run("nobody", "--json")
    assert (answer.exit_code, document(answer)["state"]) == (4, "not_found")
    looked = " ".join(document(answer)["lookedAt"])
    assert "4 records, the oldest 2.5 s old" in looked
    assert "The collector at" in looked


@pytest.mark.usefixtures("filled")
def test_an_id_with_quotes_is_an_id(run: Run) -> None:
    assert run("it's \\ ' OR 1=1 --").exit_code == 4


def test_a_server_that_is_away_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_URL", f"http://127.0.0.1:{free_port()}")
    answer = run("e")
    assert answer.exit_code == 1
    assert "does not answer" in answer.stderr
