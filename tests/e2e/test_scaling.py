"""Workers come and go, and partitions are added, while clients send and retry: the numbers stay exact."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.checks import check, missing
from tests.chaos.producers import Producers
from tests.production import WRITE_KEY, Production, production
from tests.stack import eventually

pytestmark = pytest.mark.timeout(600)
_PARTITIONS, _MORE = 12, 24
_RATE = 150.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Production]:
    with production(tmp_path, _PARTITIONS) as running:
        yield running


def test_one_four_and_two_workers_and_twice_the_partitions_under_load_are_exact(parts: Production) -> None:
    parts.start_collector()
    producers = Producers(5, _RATE, 200_000, parts.collector_port, WRITE_KEY)
    producers.start()
    parts.start_workers("one")
    await_more(parts)
    parts.start_workers("two", "three", "four")
    await_more(parts)
    parts.stop("one")
    parts.stop("two", number=signal.SIGKILL)
    parts.await_shared()
    await_more(parts)
    add_partitions(parts, producers)
    eventually(lambda: partitions_written(parts), lambda count: count == _MORE)
    producers.stop(60)
    eventually(lambda: missing(parts, producers.record), lambda count: count == 0)
    assert check(parts, producers.record).faults == []
    done = parts.run("verify", "--json", "--accepted", "unknown")
    assert done.returncode == 0, done.stdout + done.stderr


def add_partitions(parts: Production, producers: Producers) -> None:
    """As docs/guide/running-in-production.md says."""
    parts.environment["HEADRACE_PARTITIONS"] = str(_MORE)
    parts.stop("three", "four")
    await_accepted(producers)
    too_early = parts.run("migrate", "--grow")
    assert too_early.returncode == 1
    assert "are not stored yet" in too_early.stderr
    parts.environment["HEADRACE_PARTITIONS"] = str(_PARTITIONS)
    parts.start_workers("three", "four")
    parts.stop("collector")
    eventually(lambda: missing(parts, producers.record), lambda count: count == 0)
    parts.stop("three", "four")
    parts.environment["HEADRACE_PARTITIONS"] = str(_MORE)
    grown = parts.run("migrate", "--grow")
    assert grown.returncode == 0, grown.stderr
    assert f"topic events.collected has {_MORE} partitions" in grown.stdout
    parts.start_workers("five", "six")
    parts.start_collector()


def await_more(parts: Production) -> None:
    """Until more is stored than is now, by a second's traffic."""
    before = stored(parts)
    eventually(lambda: stored(parts), lambda count: count >= before + 2 * _RATE)


def await_accepted(producers: Producers) -> None:
    """Until more is accepted than is now."""
    before = producers.latest
    eventually(lambda: producers.latest, lambda latest: latest != before)


def stored(parts: Production) -> int:
    return int(parts.rows("SELECT sum(stored) FROM blocks")[0][0])


def partitions_written(parts: Production) -> int:
    return int(parts.rows("SELECT uniqExact(partition) FROM blocks WHERE topic = 'events.collected'")[0][0])
