"""Three brokers of Apache Kafka under load: whichever of them dies, the numbers stay exact."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from schemas.topics import COLLECTED
from streams.settings import WorkerSettings
from tests.kafka.server import KafkaCluster
from tests.stack import HEADRACE, RunningStack, eventually, running_stack

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("failover"), workers=2, broker="kafka", brokers=3) as running:
        yield running


@pytest.fixture
def kafka(stack: RunningStack) -> Iterator[KafkaCluster]:
    """The stack's cluster, whole before the test and after it."""
    assert stack.kafka
    yield stack.kafka
    for node in stack.kafka.nodes:
        if node not in stack.kafka.pids:
            stack.kafka.start_node(node)
    stack.kafka.wait_replicated()


@contextmanager
def exact_under_load(stack: RunningStack, events: int = 3_000) -> Iterator[Callable[[], int]]:
    """Sends 400 events a second while the block runs; then every event has to be accounted for, and once.

    Gives a function that tells how many events are stored now.
    """
    before, dead_before = stack.settled(), stack.dead_events()
    command = [*HEADRACE, "demo", "--events", str(events), "--rate", "400", "--json"]
    command += ["--port-base", str(stack.port_base)]
    sending = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=stack.folder)
    try:
        eventually(lambda: stored(stack), lambda count: count > before["stored"])
        yield lambda: stored(stack)
        out, _ = sending.communicate(timeout=200)
    finally:
        sending.kill()
        sending.wait()
    assert sending.returncode == 0, out
    after = stack.settled()
    code, document = stack.verify()
    assert code == 0, document
    grown = {name: after[name] - before[name] for name in ("accepted", "stored", "duplicate", "dead")}
    told = json.loads(out)
    assert (grown["stored"], stack.dead_events() - dead_before) == (told["stored"], told["dead"])
    assert grown["accepted"] == grown["stored"] + grown["duplicate"] + grown["dead"]


def stored(stack: RunningStack) -> int:
    return int(stack.query("SELECT sum(stored) FROM headrace.blocks")[0][0])


def test_the_killed_leader_of_a_partition_costs_no_event(stack: RunningStack, kafka: KafkaCluster) -> None:
    with exact_under_load(stack):
        kafka.kill_node(kafka.leader(COLLECTED, 0))


def test_the_killed_coordinator_of_the_workers_costs_no_event(stack: RunningStack, kafka: KafkaCluster) -> None:
    with exact_under_load(stack) as stored_now:
        kafka.kill_node(kafka.coordinator(WorkerSettings().consumer_group))
        count = stored_now()
        eventually(stored_now, lambda found: found > count)


def test_a_restart_of_every_broker_one_by_one_costs_no_event(stack: RunningStack, kafka: KafkaCluster) -> None:
    with exact_under_load(stack, events=8_000):
        for node in kafka.nodes:
            kafka.end_node(node)
            kafka.start_node(node)
            kafka.wait_node(node)
            kafka.wait_replicated()
