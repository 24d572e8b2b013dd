"""What does not fit is refused in one sentence, and goes on after the command that the sentence names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import COLLECTED
from tests.contract.broker_fixture import until
from tests.stack import RunningStack, eventually, running_stack

pytestmark = pytest.mark.timeout(300)
_LEDGER = "SELECT logId, partition, max(end) FROM headrace.blocks WHERE topic = 'events.collected' GROUP BY 1, 2"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def send(stack: RunningStack, name: str, number: int = 8) -> None:
    """So many visitors that every partition gets a record."""
    stack.post([{"type": "track", "eventAction": name, "anonymousId": f"visitor {n}"} for n in range(number)])


def refusals(stack: RunningStack) -> list[str]:
    """The reasons that the worker's log gives for its ends."""
    lines = (stack.folder / "data/logs/worker.log").read_text().splitlines()
    return [str(json.loads(line)["reason"]) for line in lines if "worker_refuses" in line]


def assert_refused(stack: RunningStack, words: str) -> None:
    eventually(lambda: refusals(stack), lambda found: any(words in reason for reason in found))


def repaired(stack: RunningStack) -> list[dict[str, Any]]:
    """Show, then mend; what was mended."""
    code, shown, error = stack.run("repair", "--json")
    assert code == 1, shown + error
    code, mended, error = stack.run("repair", "--json", "--apply")
    assert code == 0, mended + error
    problems: list[dict[str, Any]] = json.loads(mended)
    assert [problem["problem"] for problem in problems] == [found["problem"] for found in json.loads(shown)]
    return problems


def counted(stack: RunningStack, name: str, number: int) -> None:
    sql = f"SELECT count() FROM headrace.events WHERE eventAction = '{name}'"
    eventually(lambda: stack.query(sql), lambda rows: int(rows[0][0]) == number)


def test_a_damaged_claim_is_refused_and_replaced(stack: RunningStack) -> None:
    send(stack, "before")
    stack.settled()
    for log_id, partition, end in stack.query(_LEDGER):
        stack.execute(
            "INSERT INTO headrace.block_claims (logId, topic, partition, start, end, worker) "
            f"VALUES ('{log_id}', 'events.collected', {partition}, {end}, 0, 'somebody')"
        )
    send(stack, "after")
    assert_refused(stack, "ends at 0")
    repaired(stack)
    counted(stack, "after", 8)
    stack.settled()
    assert stack.verify()[0] == 0


def test_a_ledger_that_reaches_beyond_its_log_is_refused_and_the_log_read_as_a_new_one(stack: RunningStack) -> None:
    send(stack, "early")
    stack.settled()
    log_id, partition, end = stack.query(_LEDGER)[0]
    stack.execute(
        "INSERT INTO headrace.blocks (logId, topic, partition, start, end, worker) "
        f"VALUES ('{log_id}', 'events.collected', {partition}, {end}, {int(end) + 1_000}, 'somebody')"
    )
    assert_refused(stack, "the log ends at")
    repaired(stack)
    send(stack, "late")
    counted(stack, "late", 8)


def test_a_ledger_with_a_hole_is_refused_and_the_hole_noted(stack: RunningStack) -> None:
    for name in ("one", "two", "three"):
        send(stack, name)
        stack.settled()
    log_id, partition, end = stack.query(f"{_LEDGER} ORDER BY max(storedAt) DESC")[0]
    (start,) = stack.query(
        f"SELECT max(start) FROM headrace.blocks WHERE logId = '{log_id}' AND topic = 'events.collected' "
        f"AND partition = {partition} AND end < {end}"
    )[0]
    stack.execute(
        f"DELETE FROM headrace.blocks WHERE logId = '{log_id}' AND topic = 'events.collected' "
        f"AND partition = {partition} AND start = {start}"
    )
    stack.kill("worker")
    assert_refused(stack, "misses")
    repaired(stack)
    send(stack, "four")
    counted(stack, "four", 8)


async def test_a_topic_that_was_created_anew_is_refused_and_read_as_a_new_log(tmp_path: Path) -> None:
    with running_stack(tmp_path, broker="kafka") as stack:
        send(stack, "before")
        stack.settled()
        assert stack.kafka is not None
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka.address)
        await admin.start()
        await admin.delete_topics([COLLECTED])

        async def is_gone() -> bool:
            return COLLECTED not in await admin.list_topics()

        await until(is_gone)
        await admin.create_topics([NewTopic(COLLECTED, 4, stack.kafka.replicas)])
        await admin.close()
        send(stack, "after")
        assert_refused(stack, "created anew")
        repaired(stack)
        counted(stack, "after", 8)
        counted(stack, "before", 8)
