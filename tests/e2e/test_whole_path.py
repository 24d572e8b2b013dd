"""The whole path as a new user tries it: one command, real broker, real ClickHouse, a third party's SDK."""

import json
import random
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import segment.analytics.client

from tests.ports import free_port_base
from tests.stack import BROKERS, HEADRACE, RunningStack, eventually, running_stack

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=BROKERS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), broker=request.param) as running:
        yield running


def test_the_printed_curl_line_works_when_pasted(stack: RunningStack) -> None:
    text = eventually((stack.folder / "up.log").read_text, lambda text: "Ctrl-C stops everything." in text)
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("curl") and "/v1/batch" in line]
    answer = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert '"accepted":1' in answer.stdout
    (query,) = [
        line.strip() for line in text.splitlines() if line.strip().startswith("curl") and "--data-binary" in line
    ]
    shown = eventually(
        lambda: subprocess.run(query, shell=True, capture_output=True, text=True, check=True).stdout,
        lambda output: "click" in output,
    )
    assert "uniqueUsers" in shown


def test_segments_python_sdk_sends_visitors_with_logins_and_the_numbers_are_right(stack: RunningStack) -> None:
    before = stack.settled()["stored"]
    failures: list[Any] = []
    client = segment.analytics.client.Client(
        stack.write_key,
        host=f"http://127.0.0.1:{stack.port_base}",
        max_queue_size=10_000,
        on_error=lambda error, _: failures.append(error),
        gzip=True,
    )
    rng = random.Random(11)
    uses = dict.fromkeys(range(500), 0)
    linked: dict[int, int] = {}
    for number in range(3_000):
        visitor = rng.randrange(500)
        if number % 10 == 0:
            linked.setdefault(visitor, visitor % 300)
            client.identify(user_id=f"segment-user-{linked[visitor]}", anonymous_id=f"segment-{visitor}")
        else:
            uses[visitor] += 1
            client.track(anonymous_id=f"segment-{visitor}", event="Feature Used", properties={"feature": "torque"})
    client.flush()
    client.join()
    assert failures == []
    persons = {f"user {linked[v]}" if v in linked else f"visitor {v}" for v, count in uses.items() if count}
    eventually(stack.settled, lambda status: status["stored"] == before + 3_000)
    feature = "SELECT sum(uses), max(uniqueUsers) FROM headrace.features WHERE feature = 'torque'"
    found = eventually(lambda: stack.query(feature), lambda rows: rows[0][1] == len(persons))
    assert [int(figure) for figure in found[0]] == [sum(uses.values()), len(persons)]


def test_a_login_counts_for_the_events_before_it_within_seconds(stack: RunningStack) -> None:
    for visitor in ("phone", "laptop"):
        stack.post({"type": "track", "eventCategory": "late", "eventAction": "login", "anonymousId": visitor})
    sql = "SELECT uniqueUsers FROM headrace.aggregated_events WHERE eventCategory = 'late' AND eventAction = 'login'"
    eventually(lambda: stack.query(sql), lambda rows: rows == [[2]])
    for visitor in ("phone", "laptop"):
        stack.post({"type": "identify", "userId": "one person", "anonymousId": visitor})
    eventually(lambda: stack.query(sql), lambda rows: rows == [[1]])


def test_two_users_joined_by_an_alias_are_one_person(stack: RunningStack) -> None:
    for user in ("old name", "new name"):
        stack.post({"type": "track", "eventCategory": "alias", "eventAction": "seen", "userId": user})
    sql = "SELECT uniqueUsers FROM headrace.aggregated_events WHERE eventCategory = 'alias'"
    eventually(lambda: stack.query(sql), lambda rows: rows == [[2]])
    stack.post({"type": "alias", "previousId": "old name", "userId": "new name"})
    eventually(lambda: stack.query(sql), lambda rows: rows == [[1]])


def test_a_late_event_bridges_two_sessions_into_one(stack: RunningStack) -> None:
    def visit(minute: int) -> None:
        at = datetime(2026, 11, 1, 10, minute % 60, tzinfo=UTC).replace(hour=10 + minute // 60)
        stack.post({"type": "track", "eventAction": "seen", "anonymousId": "bridge", "timestamp": at.isoformat()})

    sql = "SELECT events, durationSeconds FROM headrace.sessions WHERE visitorId = 'bridge' ORDER BY startedAt"
    visit(0)
    visit(50)
    eventually(lambda: stack.query(sql), lambda rows: [row[0] for row in rows] == [1, 1])
    visit(25)
    eventually(lambda: stack.query(sql), lambda rows: [row[0] for row in rows] == [3])
    assert stack.query(sql)[0][1] == 3_000


def test_a_rejected_event_is_told_with_reason_and_kept_as_a_dead_letter_that_can_be_fixed(stack: RunningStack) -> None:
    stack.post(
        {
            "type": "track",
            "eventAction": "search",
            "eventCategory": "search",
            "anonymousId": "a",
            "eventId": "broken-search",
            "properties": {"term": 7, "results": 1},
        }
    )
    answer = stack.post([{"type": "track", "eventAction": "x", "eventId": "nobody"}])
    (verdict,) = answer["results"]
    assert (verdict["eventId"], verdict["status"], verdict["reason"]) == ("nobody", "rejected", "missing_id")

    def receipt() -> int:
        return stack.run("event", "broken-search")[0]

    eventually(receipt, lambda code: code == 3)
    fix = '[{"op": "replace", "path": "/properties/term", "value": "7"}]'
    for _ in range(2):
        code, out, error = stack.run("dead-letters", "replay", "--reason", "property_schema", "--fix", fix)
        assert code == 0, out + error
    eventually(receipt, lambda code: code == 0)
    rows = stack.query("SELECT count() FROM headrace.events WHERE eventId = 'broken-search'")
    assert rows == [[1]]


def test_demo_traffic_with_every_part_killed_in_the_middle_is_exact(stack: RunningStack) -> None:
    before, dead_before = stack.settled(), stack.dead_events()
    sending = subprocess.Popen(
        [*HEADRACE, "demo", "--events", "20000", "--rate", "1000", "--port-base", str(stack.port_base), "--json"],
        stdout=subprocess.PIPE,
        cwd=stack.folder,
    )
    for name in ("worker", "collector", "broker", "clickhouse", "worker"):
        threading.Event().wait(3)
        eventually(stack.status, lambda status, name=name: name in status["pids"])  # type: ignore[misc]
        stack.kill(name)
    out, _ = sending.communicate(timeout=200)
    assert sending.returncode == 0, out
    after = stack.settled()
    code, document = stack.verify()
    assert code == 0, document
    grown = {name: after[name] - before[name] for name in ("stored", "duplicate", "dead", "accepted")}
    assert grown["accepted"] == grown["stored"] + grown["duplicate"] + grown["dead"]
    told = json.loads(out)
    assert (grown["stored"], grown["dead"]) == (told["stored"], told["dead"])
    assert stack.dead_events() - dead_before == told["dead"]


def test_a_stack_that_was_stopped_goes_on_from_there(stack: RunningStack) -> None:
    before = stack.settled()
    assert stack.stop() == 0
    stack.start()
    stack.post({"type": "track", "eventAction": "after the restart", "anonymousId": "a"})
    after = eventually(stack.settled, lambda status: status["stored"] == before["stored"] + 1)
    assert after["accepted"] == before["accepted"] + 1
    assert stack.verify()[0] == 0


def test_a_second_stack_on_the_same_folder_or_port_says_so_in_one_sentence(stack: RunningStack, tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        done = subprocess.run([*HEADRACE, "up", *options], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    data = str(stack.folder / "data")
    assert "runs on" in refused("--data", data, "--port-base", str(free_port_base()))
    assert f"Port {stack.port_base}," in refused("--data", str(tmp_path), "--port-base", str(stack.port_base))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be used" in refused("--data", str(blocked), "--port-base", str(free_port_base()))
    assert stack.status()["ready"], "the stack that runs was disturbed"
