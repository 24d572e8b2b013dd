"""`headrace dead-letters`: list, show, and a replay that can be repeated."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from typer.testing import CliRunner, Result

from collector.app import Collector
from collector.sink import MemorySink, Outgoing
from headrace.commands import dead_letters
from schemas.records import DeadLetter
from tests.collecting import FixedTenants, letters_of, records_of
from tests.filling import CODEC, NOW, Filler, record_of, sent
from tests.ports import free_port
from warehouse.blocks import DEAD_LETTER_COLUMNS
from warehouse.client import ClickHouse

Run = Callable[..., Result]
FIX = '[{"op": "replace", "path": "/properties/results", "value": 3}]'
TENANTS = "tenants:\n  acme:\n    writeKeys: [wk-acme]\n  bolt:\n    writeKeys: [wk-bolt]\n"


class Served:
    """A collector on a real port, in a thread; its sink keeps what was accepted."""

    def __init__(self) -> None:
        self.sink = MemorySink()
        config = uvicorn.Config(
            Collector(FixedTenants(), self.sink), host="127.0.0.1", port=0, http="httptools", ws="none", log_config=None
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),))
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def take_sent(self) -> list[Outgoing]:
        """What was sent since the last call."""
        sent, self.sink.records = self.sink.records, []
        return sent


@pytest.fixture
def collector(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:  # noqa: ARG001 - it names another URL first
    served = Served()
    monkeypatch.setenv("HEADRACE_COLLECTOR_URL", served.url)
    yield served
    served.stop()


@pytest.fixture
def run(warehouse_url: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`headrace dead-letters` on the test's database, with a tenants file."""
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(TENANTS)
    monkeypatch.setenv("HEADRACE_TENANTS_FILE", str(tenants))
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_URL", warehouse_url)
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_DATABASE", database)
    monkeypatch.setenv("HEADRACE_COLLECTOR_URL", f"http://127.0.0.1:{free_port()}")
    app = typer.Typer()
    dead_letters.register(app)
    app.callback()(lambda: None)
    return lambda *options: CliRunner().invoke(app, ["dead-letters", *options])


def letter(key: str, payload: bytes, **fields: Any) -> DeadLetter:
    base: dict[str, Any] = dict.fromkeys(DEAD_LETTER_COLUMNS, "")
    numbers = {"partition": -1, "offset": -1, "position": -1, "truncated": False, "journal": "", "sequence": 0}
    times = {"receivedAt": NOW, "failedAt": NOW}
    base |= {"key": key, "companyId": "acme", "source": "collector", "reason": "invalid_field", "contentType": "json"}
    return {**base, **numbers, **times, "payload": payload, **fields}  # type: ignore[typeddict-item]


def put_letters(client: ClickHouse, *letters: DeadLetter) -> None:
    columns = [[each[name] for each in letters] for name in DEAD_LETTER_COLUMNS]
    client.insert("dead_letters", DEAD_LETTER_COLUMNS, columns, letters[0]["key"])


@pytest.fixture
def filler(client: ClickHouse) -> Filler:
    """Two letters of streams (a property of the wrong type; a record that is no Avro) and three of a collector."""
    filler = Filler(client)
    bad = sent("bad-1", NOW, eventCategory="search", eventAction="search", properties='{"term":"oil","results":"many"}')
    filler.put([record_of("tablet", [bad, sent("good-1", NOW)], app="web", timezone="Europe/Berlin")])
    filler.put_values([("acme:poison", b"\xff not avro")])
    no_id = {"type": "track", "anonymousId": "a", "eventAction": "x", "value": "3"}
    put_letters(
        client,
        letter("collector/1/0", json.dumps(no_id).encode(), eventId="minted", position=0, field="value"),
        letter("collector/2", b"{half", reason="invalid_json", contentType="raw", failedAt=NOW - 7_200_000),
        letter("collector/3/0", b'{"type": "track", "anonymousId": "b", "eventAction": "x"}', companyId="bolt"),
    )
    return filler


def keys_of(answer: Result) -> list[str]:
    assert answer.exit_code == 0, answer.output
    return [each["key"] for each in json.loads(answer.stdout)["deadLetters"]]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 5),
        (("--reason", "property_schema"), 1),
        (("--company", "bolt"), 1),
        (("--company", "acme", "--reason", "invalid_field"), 1),
        (("--since", "2026-09-21T14:00"), 4),
        (("--until", "2026-09-21T14:00:00Z"), 1),
        (("--since", "1h"), 0),
        (("--limit", "2"), 2),
    ],
)
@pytest.mark.usefixtures("filler")
def test_letters_are_listed_by_reason_tenant_and_time(run: Run, options: tuple[str, ...], count: int) -> None:
    assert len(keys_of(run("list", "--json", *options))) == count


@pytest.mark.usefixtures("filler")
def test_the_newest_letter_is_first_and_a_table_shows_its_reason(run: Run) -> None:
    assert keys_of(run("list", "--json"))[-1] == "collector/2"
    shown = run("list").stdout
    assert "5 of 5 dead letters." in shown
    assert "property_schema" in shown
    assert "log/events.collected/0/0/0" in shown


@pytest.mark.usefixtures("filler")
def test_a_shown_event_is_json_as_it_can_be_sent(run: Run) -> None:
    shown = json.loads(run("show", "log/events.collected/0/0/0", "--json").stdout)
    assert shown["reason"] == "property_schema"
    assert shown["events"][0]["properties"] == {"term": "oil", "results": "many"}
    assert "many" in run("show", "log/events.collected/0/0/0").stdout


@pytest.mark.usefixtures("filler")
def test_a_shown_payload_that_is_no_event_is_text_or_base64(run: Run) -> None:
    assert json.loads(run("show", "collector/2", "--json").stdout)["text"] == "{half"
    poison = json.loads(run("show", "log/events.collected/0/1/-1", "--json").stdout)
    assert poison["base64"] == "/yBub3QgYXZybw=="
    assert "cannot be decoded" in poison["notReplayable"]


@pytest.mark.usefixtures("filler")
def test_a_key_that_is_not_there_is_one_sentence(run: Run) -> None:
    for command in ("show", "replay"):
        answer = run(command, "nothing")
        assert (answer.exit_code, answer.stderr) == (1, "There is no dead letter nothing.\n")


def test_a_replayed_event_with_a_fix_is_stored_once_however_often_it_is_replayed(
    run: Run, client: ClickHouse, filler: Filler, collector: Served
) -> None:
    for _ in range(3):
        answer = run("replay", "--reason", "property_schema", "--fix", FIX, "--json")
        assert answer.exit_code == 0, answer.output
        report = json.loads(answer.stdout)
        assert (report["letters"], report["events"], report["accepted"]) == (1, 1, 1)
        filler.put(records_of(collector.take_sent()))
    columns = "properties, app, timezone, userAgent, ip, toUnixTimestamp64Milli(timestamp)"
    rows = client.rows(f"SELECT {columns} FROM events WHERE eventId = 'bad-1'")
    assert rows == [('{"term":"oil","results":3}', "web", "Europe/Berlin", "", "", NOW)]


def test_an_event_that_dies_again_has_one_letter_still(run: Run, filler: Filler, collector: Served) -> None:
    for _ in range(3):
        report = json.loads(run("replay", "--reason", "property_schema", "--json").stdout)
        assert (report["letters"], report["accepted"]) == (1, 1)
        filler.put(records_of(collector.take_sent()))


def test_an_event_is_sent_once_however_many_letters_it_has(run: Run, client: ClickHouse, collector: Served) -> None:
    event = b'{"type": "track", "anonymousId": "a", "eventAction": "x", "eventId": "e"}'
    put_letters(client, *(letter(key, event, eventId="e") for key in ("collector/1", "collector/2")))
    report = json.loads(run("replay", "--json").stdout)
    assert (report["letters"], report["accepted"]) == (2, 1)
    assert len(collector.take_sent()) == 1


@pytest.mark.usefixtures("filler")
def test_without_a_fix_the_event_is_rejected_again_and_the_exit_code_says_so(run: Run, collector: Served) -> None:
    answer = run("replay", "collector/1/0", "--json")
    assert answer.exit_code == 1
    [rejected] = json.loads(answer.stdout)["rejected"]
    assert (rejected["key"], rejected["eventId"], rejected["field"]) == ("collector/1/0", "minted", "value")
    [again] = letters_of(collector.take_sent())
    assert again["eventId"] == "minted"


@pytest.mark.usefixtures("filler")
def test_every_tenant_is_sent_with_its_own_key(run: Run, collector: Served) -> None:
    fix = '[{"op": "add", "path": "/value", "value": 3}]'
    answer = run("replay", "--reason", "invalid_field", "--fix", fix, "--json")
    assert answer.exit_code == 0, answer.output
    records = records_of(collector.take_sent())
    assert {record["companyId"] for record in records} == {"acme", "bolt"}
    assert {record["context"]["library"] for record in records} == {"headrace-replay"}


@pytest.mark.usefixtures("filler", "collector")
def test_what_cannot_be_replayed_is_reported_and_the_rest_is_sent(run: Run) -> None:
    answer = run("replay", "--company", "acme", "--fix", '[{"op": "add", "path": "/value", "value": 3}]', "--json")
    report = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert sorted(each["key"] for each in report["notReplayable"]) == ["collector/2", "log/events.collected/0/1/-1"]
    assert report["accepted"] == 2


def test_a_record_that_died_whole_is_replayed_event_by_event(
    run: Run, client: ClickHouse, filler: Filler, collector: Served
) -> None:
    payload = CODEC.encode_collected(record_of("desk", [sent("w-1", NOW), sent("w-2", NOW)]))
    put_letters(client, letter("whole", payload, contentType="avro", reason="undecodable"))
    assert run("replay", "whole").exit_code == 0
    filler.put(records_of(collector.take_sent()))
    assert client.rows("SELECT count() FROM events WHERE eventId IN ('w-1', 'w-2')") == [(2,)]


@pytest.mark.usefixtures("filler")
def test_a_dry_run_prints_the_events_and_sends_none(run: Run, collector: Served) -> None:
    answer = run("replay", "--reason", "property_schema", "--fix", FIX, "--dry-run")
    assert answer.exit_code == 0
    [line] = answer.stdout.splitlines()
    assert json.loads(line)["properties"]["results"] == 3
    assert "1 events to send" in answer.stderr
    assert collector.take_sent() == []


def test_more_letters_than_a_page_are_all_replayed(run: Run, client: ClickHouse, collector: Served) -> None:
    event = b'{"type": "track", "anonymousId": "a", "eventAction": "x", "timestamp": 5}'
    put_letters(client, *(letter(f"many/{number:05}", event) for number in range(4_321)))
    answer = run("replay", "--json")
    assert answer.exit_code == 0, answer.output
    sent_ids = [each["eventId"] for record in records_of(collector.take_sent()) for each in record["events"]]
    assert len(sent_ids) == len(set(sent_ids)) == 4_321
    assert run("replay", "--json", "--limit", "7").exit_code == 0
    again = [each["eventId"] for record in records_of(collector.take_sent()) for each in record["events"]]
    assert len(again) == 7
    assert set(again) <= set(sent_ids)


@pytest.mark.usefixtures("filler")
def test_a_collector_that_refuses_for_a_while_gets_the_events_when_it_is_back(run: Run, collector: Served) -> None:
    collector.sink.available = False
    threading.Timer(0.5, setattr, (collector.sink, "available", True)).start()
    answer = run("replay", "--company", "bolt", "--json")
    assert answer.exit_code == 0, answer.output
    assert len(collector.take_sent()) == 1


@pytest.mark.usefixtures("filler")
def test_a_collector_that_is_away_is_told_in_a_sentence(run: Run) -> None:
    answer = run("replay", "--company", "bolt", "--give-up-after", "0")
    assert answer.exit_code == 1
    assert "does not answer" in answer.stderr
    assert "changes nothing" in answer.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("replay", "--fix", "[{]"),
        ("replay", "--fix", "@/nonexistent"),
        ("replay", "--write-key", "wk-acme"),
        ("list", "--since", "yesterday"),
        ("list", "--reason", "bad_luck"),
    ],
)
@pytest.mark.usefixtures("filler")
def test_wrong_usage_exits_2_before_anything_is_sent(run: Run, collector: Served, options: tuple[str, ...]) -> None:
    assert run(*options).exit_code == 2
    assert collector.take_sent() == []


@pytest.mark.usefixtures("filler")
def test_a_tenant_without_a_write_key_is_named(run: Run, client: ClickHouse, collector: Served) -> None:
    put_letters(client, letter("zeta", b"{}", companyId="zeta"))
    answer = run("replay")
    assert answer.exit_code == 1
    assert "no write key of zeta" in answer.stderr
    assert collector.take_sent() == []


@pytest.mark.usefixtures("filler")
def test_a_write_key_that_is_not_known_is_a_sentence(run: Run, collector: Served) -> None:
    answer = run("replay", "--company", "bolt", "--write-key", "nonsense")
    assert answer.exit_code == 1
    assert "401" in answer.stderr
    assert collector.take_sent() == []
